"""Foreign keys, triggers, generated columns and values that the target refuses: exact, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fix_postgres_sink import DELETE, INTEGER, LOGS, USERS, Ends, insert, make, update, users

from cdcsync.change import UNCHANGED, Change, Column, CopyStart, Operation, Table
from cdcsync.connectors import Severity
from cdcsync.errors import Fatal, Rejected
from cdcsync.ports import SinkContext
from cdcsync.postgres.config import PostgresSink as Config
from cdcsync.postgres.config import from_url
from cdcsync.postgres.target_check import sink_check
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_postgres import Database

    from cdcsync.change import Item, Row
    from cdcsync.connectors import Finding

CHILD = Table("public", "child", (Column("id", INTEGER, nullable=False), Column("u", INTEGER)), ("id",))
PARENTS = """
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE child (id int PRIMARY KEY, u int REFERENCES users {})
"""
SPIES = """
CREATE TABLE seen (what text);
CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO seen VALUES (TG_OP); RETURN NULL; END';
CREATE TRIGGER spy AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION spy()
"""


@pytest.fixture
def ends(database: Database) -> Iterator[Ends]:
    made = make(database, USERS, CHILD, LOGS)
    yield made
    made.close()


def delete(row: Row, table: Table = USERS) -> Item:
    return Change(table, DELETE, row, None)


def truncate(table: Table = USERS) -> Item:
    return Change(table, Operation.TRUNCATE, None, None)


def children(database: Database) -> list[tuple[Any, ...]]:
    return database.query("SELECT * FROM child ORDER BY id")


def checked(database: Database, *tables: Table, **options: Any) -> dict[str, Finding]:
    """The findings that are not well, by subject."""
    config = Config.model_validate({**from_url(database.url), **options})
    found = sink_check(config, SinkContext("test", Path("/nowhere"), tables))
    return {each.subject: each for each in found if each.severity is not Severity.OK}


def test_parents_come_first_and_children_go_first(ends: Ends, database: Database) -> None:
    database.execute(PARENTS.format(""))
    ends.open()

    ends.write(*insert((7, 1), table=CHILD), *insert((1, "a"), (2, "b")))
    ends.write(delete((1, "a")), delete((7, 1), CHILD), *insert((8, 2), table=CHILD))

    assert users(database) == [(2, "b")]
    assert children(database) == [(8, 2)]


def test_rows_of_one_table_that_refer_to_each_other_arrive_in_any_order(ends: Ends, database: Database) -> None:
    database.execute("CREATE TABLE child (id int PRIMARY KEY, u int REFERENCES child)")
    ends.open()

    ends.write(*insert(*[(at, min(at + 1, 11999)) for at in range(12000)], table=CHILD))

    assert len(children(database)) == 12000


@pytest.mark.parametrize("deferrable", ["DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"])
def test_a_circle_of_deferrable_foreign_keys_is_written_and_a_broken_one_named(
    ends: Ends, database: Database, deferrable: str
) -> None:
    database.execute("CREATE TABLE users (id int PRIMARY KEY, name text UNIQUE)")
    database.execute(f"CREATE TABLE child (id int PRIMARY KEY, u int REFERENCES users {deferrable})")
    database.execute(
        f"ALTER TABLE users ADD c int DEFAULT 7, ADD CONSTRAINT back FOREIGN KEY (c) REFERENCES child {deferrable}"
    )
    ends.open()

    ends.write(*insert((1, "a"), (2, "b")), *insert((7, 1), table=CHILD))
    with pytest.raises(Rejected, match="child_u_fkey") as caught:
        ends.write(*insert((8, 2), (9, 3), table=CHILD))

    assert caught.value.reasons.keys() == {(0, 1)}
    assert children(database) == [(7, 1)]


def test_a_deferred_key_that_a_large_transaction_breaks_is_named_and_nothing_of_it_stays(
    ends: Ends, database: Database
) -> None:
    database.execute(PARENTS.format("DEFERRABLE INITIALLY DEFERRED"))
    ends.open()
    ends.sink.write(ends.batch(*insert((7, 1), table=CHILD), last=False))

    with pytest.raises(Fatal, match="child_u_fkey"):
        ends.sink.write(ends.batch(*insert((9, 3), table=CHILD), part=1))
    ends.close()
    assert children(database) == []
    ends.open()
    ends.sink.write(ends.batch(*insert((7, 1), table=CHILD), last=False))
    ends.sink.write(ends.batch(*insert((1, "a")), part=1))

    assert children(database) == [(7, 1)]


def test_a_circle_that_cannot_be_deferred_is_named_by_check(database: Database) -> None:
    database.execute(PARENTS.format(""))
    database.execute("ALTER TABLE users ADD c int, ADD CONSTRAINT back FOREIGN KEY (c) REFERENCES child")

    found = checked(database, USERS, CHILD)

    remedy = found["target table child"].remedy
    assert remedy == 'ALTER TABLE child ALTER CONSTRAINT "child_u_fkey" DEFERRABLE'
    database.execute(remedy)
    assert checked(database, USERS, CHILD) == {}


@pytest.mark.parametrize("action", ["ON DELETE CASCADE", "ON DELETE SET NULL"])
def test_a_truncate_does_not_reach_other_tables(ends: Ends, database: Database, action: str) -> None:
    database.execute(PARENTS.format(action))
    ends.open()
    ends.write(*insert((1, "a")), *insert((7, 1), table=CHILD))

    with pytest.raises(Rejected, match=f"child_u_fkey, {action}"):
        ends.write(truncate())
    with pytest.raises(Fatal, match="child_u_fkey"):
        ends.write(CopyStart(USERS, again=True))

    assert children(database) == [(7, 1)]
    ends.write(truncate(), truncate(CHILD), *insert((2, "b")))
    assert (users(database), children(database)) == ([(2, "b")], [])


def test_a_truncate_that_would_break_a_foreign_key_is_rejected(ends: Ends, database: Database) -> None:
    database.execute(PARENTS.format(""))
    ends.open()
    ends.write(*insert((1, "a")), *insert((7, 1), table=CHILD))

    with pytest.raises(Rejected, match="child_u_fkey"):
        ends.write(truncate(), *insert((2, "b")))
    ends.write(delete((7, 1), CHILD), truncate(), *insert((2, "b")))

    assert users(database) == [(2, "b")]


def test_a_folded_update_fires_one_update_and_no_delete(ends: Ends, database: Database) -> None:
    database.execute(PARENTS.format("ON DELETE CASCADE"))
    ends.open()
    ends.write(*insert((1, "a")), *insert((7, 1), table=CHILD))
    database.execute(SPIES)

    ends.write(update((1, "a"), (1, "b")), update((1, UNCHANGED), (1, "c")), update((1, "c"), (1, "d")))

    assert database.query("SELECT what FROM seen") == [("UPDATE",)]
    assert children(database) == [(7, 1)]


def test_a_row_inserted_and_deleted_in_one_batch_is_not_there(ends: Ends, database: Database) -> None:
    ends.open()
    database.execute(SPIES)

    ends.write(*insert((1, "a")), update((1, "a"), (1, "b")), delete((1, "b")), *insert((2, "b")))

    assert users(database) == [(2, "b")]
    assert database.query("SELECT what FROM seen") == [("INSERT",)]


def test_a_deferrable_unique_value_is_swapped(ends: Ends, database: Database) -> None:
    database.execute("CREATE TABLE users (id int PRIMARY KEY, name text UNIQUE DEFERRABLE)")
    ends.open()
    ends.write(*insert((1, "a"), (2, "b")))

    ends.write(update((1, "a"), (1, "b")), update((2, "b"), (2, "a")))

    assert users(database) == [(1, "b"), (2, "a")]


def test_columns_that_the_target_fills_itself_are_left_to_it(ends: Ends, database: Database) -> None:
    database.execute(
        "CREATE TABLE users (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text,"
        " upper text GENERATED ALWAYS AS (upper(name)) STORED, at timestamptz NOT NULL DEFAULT now())"
    )
    ends.open()

    ends.write(*insert(*[(at, "a") for at in range(300)]), update((5, "a"), (5, "b")))

    assert database.query("SELECT upper, count(*) FROM users WHERE at IS NOT NULL GROUP BY 1 ORDER BY 1") == [
        ("A", 299),
        ("B", 1),
    ]


def typed(kind: Kind, name: str, **more: Any) -> Table:
    column = Type(kind, name=name, system="postgres", **more)
    return Table("public", "typed", (Column("id", INTEGER, nullable=False), Column("v", column)), ("id",))


def test_a_new_label_of_an_enum_is_rejected_by_name_and_taken_once_it_is_there(ends: Ends, database: Database) -> None:
    table = typed(Kind.ENUM, "public.mood", labels=("sad", "ok"))
    database.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    ends.open()
    rows = insert((1, "ok"), (2, "glad"), (3, "sad"), table=table)

    with pytest.raises(Rejected) as caught:
        ends.write(*rows)

    assert list(caught.value.reasons) == [(0, 1)]
    assert "column v" in str(caught.value)
    assert "ALTER TYPE mood ADD VALUE" in str(caught.value)
    assert "glad" not in str(caught.value)
    database.execute("ALTER TYPE mood ADD VALUE 'glad'")
    ends.write(*rows)
    assert len(database.query("SELECT * FROM typed")) == 3


@pytest.mark.parametrize(
    ("table", "value", "declared", "reason"),
    [
        (USERS, "a\0b", "text", "NUL"),
        (USERS, "\ud800", "text", "surrogate"),
        (typed(Kind.JSON, "jsonb"), '{"a": "\\u0000"}', "jsonb", "column v: jsonb does not take it"),
        (typed(Kind.DECIMAL, "numeric"), "123456", "numeric(5,2)", r"column v: numeric\(5,2\)"),
        (typed(Kind.TEXT, "text"), "wider", "varchar(3)", r"column v: too long for character varying\(3\)"),
        (typed(Kind.OPAQUE, "inet"), "nowhere", "inet", "column v: inet"),
    ],
)
def test_a_value_that_the_target_cannot_hold_is_rejected_with_its_column(
    ends: Ends, database: Database, table: Table, value: Any, declared: str, reason: str
) -> None:
    ends.open()
    ends.write(*insert((1, None), table=table))
    database.execute(f"ALTER TABLE {table.name} ALTER {table.columns[1].name} TYPE {declared}")
    good = insert((3, None), table=table)

    with pytest.raises(Rejected, match=reason) as caught:
        ends.write(*insert((2, value), table=table), *good)
    ends.write(*good)

    assert caught.value.reasons.keys() == {(0, 0)}
    assert value not in str(caught.value)
    assert database.query(f"SELECT id FROM {table.name} ORDER BY 1") == [(1,), (3,)]


def test_check_names_every_grant_that_is_missing_and_its_sql_mends_it(database: Database) -> None:
    role = f"writer_{database.name}"
    database.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'w'; CREATE SCHEMA shop; REVOKE CREATE ON SCHEMA public FROM public"
    )
    database.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    shop = Table("shop", "items", USERS.columns, ("id",))
    new = Table("fresh", "items", USERS.columns, ("id",))
    own: dict[str, Any] = {"user": role, "password": "w"}
    wanted = {
        "target schema shop": f'GRANT USAGE ON SCHEMA "shop" TO {role}',
        "target schema fresh": f'CREATE SCHEMA "fresh" AUTHORIZATION {role}',
        'table "public".cdcsync_positions': f'GRANT CREATE ON SCHEMA "public" TO {role}',
        'target table "public"."users"': f'GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON "public"."users" TO {role}',
    }

    found = checked(database, USERS, shop, new, **own)

    assert {subject: finding.remedy for subject, finding in found.items()} == wanted
    while found:
        for finding in found.values():
            assert finding.remedy is not None
            database.execute(finding.remedy)
        found = checked(database, USERS, shop, new, **own)
    ends = make(database, USERS, shop, new, **own)
    ends.open()
    ends.write(*insert((1, "a"), table=shop), *insert((1, "a"), table=new))
    ends.write(update((1, "a"), (1, "b")))
    ends.close()
    database.execute(f"REVOKE UPDATE ON cdcsync_positions FROM {role}")
    database.execute(f"REASSIGN OWNED BY {role} TO postgres; REVOKE ALL ON cdcsync_positions FROM {role}")
    assert checked(database, USERS, **own)['table "public".cdcsync_positions'].remedy == (
        f'GRANT SELECT, INSERT, UPDATE ON "public".cdcsync_positions TO {role}'
    )
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
