"""The PostgreSQL sink on real servers: exactly once, whatever happens between rows and position."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fix_postgres_sink import DELETE, INSERT, INTEGER, LOGS, TEXT, USERS, Ends, insert, make, update, users

from cdcsync.change import UNCHANGED, Change, Column, CopyStart, Operation, Table
from cdcsync.errors import ExitStatus, Fatal, Rejected, Transient
from cdcsync.ports import SinkContext
from cdcsync.postgres.config import PostgresSink as Config
from cdcsync.postgres.config import from_url
from cdcsync.postgres.sink import identity
from cdcsync.postgres.target_check import sink_check
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fix_postgres import Database

    from cdcsync.testing.servers import PostgresServer


@pytest.fixture(params=[15, 18], ids=lambda version: f"postgres{version}")
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    server: PostgresServer = request.getfixturevalue(f"postgres{request.param}")
    return server


@pytest.fixture
def ends(database: Database) -> Iterator[Ends]:
    """Open ends with the table of users."""
    made = make(database, USERS)
    made.open()
    yield made
    made.close()


def test_rows_and_position_are_committed_together(ends: Ends, database: Database) -> None:
    got = ends.write(*insert((1, "a"), (2, 'q"\\\t\n')), update((1, UNCHANGED), (1, "b")))

    assert got == MemoryPosition(1, 1)
    assert users(database) == [(1, "b"), (2, 'q"\\\t\n')]
    assert database.query("SELECT position, epoch, source FROM cdcsync_positions") == [
        ("1:1:0", 1, "postgres:1/source")
    ]


def test_a_large_insert_is_copied_and_a_repeated_one_overwrites(ends: Ends, database: Database) -> None:
    rows = [(at, f"n\\{at}\t" if at % 2 else None) for at in range(3000)]

    ends.write(*insert(*rows))
    ends.write(*insert(*rows))

    assert users(database) == rows


def test_a_batch_written_twice_is_written_once(ends: Ends, database: Database) -> None:
    batch = ends.batch(Change(LOGS, INSERT, None, ("x",)))
    ends.sink.write(batch)
    ends.sink.write(batch)
    ends.close()
    ends.open()

    ends.sink.write(batch)

    assert database.query("SELECT * FROM logs") == [("x",)]


def test_an_update_that_moves_the_key_leaves_no_ghost(ends: Ends, database: Database) -> None:
    ends.write(*insert((1, "a"), (2, "b")))

    ends.write(update((1, UNCHANGED), (5, UNCHANGED)), update((2, "b"), (1, "c")), update((5, UNCHANGED), (6, "z")))

    assert users(database) == [(1, "c"), (6, "z")]


def test_rows_that_swap_a_unique_value_both_arrive(ends: Ends, database: Database) -> None:
    ends.write(*insert((1, "a"), (2, "b"), (3, "c")))
    database.execute("ALTER TABLE users ADD UNIQUE (name)")

    ends.write(update((1, "a"), (1, "b")), update((2, "b"), (2, "a")), update((3, "c"), (3, "d")))

    assert users(database) == [(1, "b"), (2, "a"), (3, "d")]


def test_an_update_fires_no_cascade(ends: Ends, database: Database) -> None:
    ends.write(*insert((1, "a")))
    database.execute("CREATE TABLE child (u int REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE)")
    database.execute("INSERT INTO child VALUES (1)")

    ends.write(update((1, "a"), (1, "b")), update((1, "b"), (4, "b")))

    assert database.query("SELECT * FROM child") == [(4,)]


def test_a_child_that_moves_to_another_parent_survives_its_parent(database: Database) -> None:
    child = Table("public", "child", (Column("id", INTEGER), Column("u", INTEGER)), ("id",))
    database.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    database.execute("CREATE TABLE child (id int PRIMARY KEY, u int REFERENCES users ON DELETE CASCADE)")
    database.execute("CREATE TABLE grandchild (c int REFERENCES child ON DELETE CASCADE)")
    ends = make(database, USERS, child)
    ends.open()
    ends.write(*insert((1, "a"), (2, "b")), *insert((7, 1), table=child))
    database.execute("INSERT INTO grandchild VALUES (7)")

    ends.write(update((7, 1), (7, 2), child), Change(USERS, DELETE, (1, "a"), None))

    assert database.query("SELECT c, u FROM grandchild JOIN child ON c = id") == [(7, 2)]
    ends.close()


def test_rejected_rows_are_all_named_without_their_values_and_the_rest_goes_through(
    ends: Ends, database: Database
) -> None:
    database.execute("ALTER TABLE users ADD CONSTRAINT short CHECK (length(name) < 5)")
    rows = [(at, "secret" if at in {3, 700} else "ok") for at in range(1000)]
    rows[900] = (900, "n\0")

    with pytest.raises(Rejected) as caught:
        ends.write(*insert(*rows))
    ends.write(*insert(*[row for at, row in enumerate(rows) if at not in {3, 700, 900}]))

    assert set(caught.value.reasons) == {(0, 3), (0, 700), (0, 900)}
    assert "short" in str(caught.value)
    assert "NUL" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(users(database)) == 997


def test_an_incomplete_update_of_a_missing_row_is_rejected_with_the_remedy(ends: Ends) -> None:
    with pytest.raises(Rejected, match="REPLICA IDENTITY FULL"):
        ends.write(update((9, UNCHANGED), (9, UNCHANGED)))


def test_a_whole_update_of_a_missing_row_is_an_insert(ends: Ends, database: Database) -> None:
    ends.write(*[update((at, UNCHANGED), (at, "x")) for at in range(9)])

    assert len(users(database)) == 9


def test_a_transaction_in_parts_is_invisible_until_complete(ends: Ends, database: Database) -> None:
    assert ends.sink.write(ends.batch(*insert((1, "a")), part=0, last=False)) is None
    assert ends.sink.flush() is None
    assert users(database) == []
    with pytest.raises(Rejected):
        ends.sink.write(ends.batch(*insert((2, "a\0")), part=1, last=False))
    assert ends.sink.write(ends.batch(*insert((2, "b")), part=1, last=False)) is None

    got = ends.sink.write(ends.batch(*insert((3, "c")), part=2))

    assert got is not None
    assert users(database) == [(1, "a"), (2, "b"), (3, "c")]


def test_closing_inside_a_transaction_in_parts_undoes_it(ends: Ends, database: Database) -> None:
    ends.sink.write(ends.batch(*insert((1, "a")), part=0, last=False))
    ends.close()
    ends.open()

    ends.write(*insert((2, "b")))

    assert users(database) == [(2, "b")]


def test_a_killed_backend_leaves_neither_rows_nor_position(ends: Ends, database: Database) -> None:
    ends.write(*insert((1, "a")))
    ends.sink.write(ends.batch(*insert((2, "b")), part=0, last=False))
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdcsync test'")

    with pytest.raises(Transient):
        ends.sink.write(ends.batch(*insert((3, "c")), part=1))
    ends.close()
    ends.open()

    assert users(database) == [(1, "a")]
    assert ends.sink.positions().load() is not None


def test_a_second_process_is_refused_and_the_holder_named(ends: Ends, database: Database) -> None:
    second = make(database, USERS)

    with pytest.raises(Fatal, match="cdcsync test") as caught:
        second.open()

    assert caught.value.status is ExitStatus.OWNERSHIP
    ends.write(*insert((1, "a")))


def test_a_fenced_process_writes_nothing(ends: Ends, database: Database) -> None:
    database.execute("UPDATE cdcsync_positions SET fence = fence + 1")

    with pytest.raises(Fatal) as caught:
        ends.write(*insert((1, "a")))

    assert caught.value.status is ExitStatus.OWNERSHIP
    assert users(database) == []


def test_a_target_that_went_back_is_refused(ends: Ends, database: Database) -> None:
    ends.write(*insert((1, "a")))
    ends.write(*insert((2, "a")))
    ends.close()
    database.execute("UPDATE cdcsync_positions SET position = '1:1:0'")

    with pytest.raises(Fatal, match="has lost"):
        ends.open()


def test_the_first_copy_wants_an_empty_target_and_clears_its_own_rows_when_begun_again(
    ends: Ends, database: Database
) -> None:
    ends.write(*insert((1, "a")))

    with pytest.raises(Fatal, match="not empty"):
        ends.write(CopyStart(USERS, again=False))
    ends.write(CopyStart(USERS, again=True))

    assert users(database) == []


def test_a_truncate_stands_in_its_place(ends: Ends, database: Database) -> None:
    ends.write(*insert((1, "a")), Change(USERS, Operation.TRUNCATE, None, None), *insert((2, "b")))

    assert users(database) == [(2, "b")]


def test_all_misfits_are_named_at_once_with_their_sql(database: Database) -> None:
    database.execute("CREATE TABLE users (id int, extra int NOT NULL)")
    ends = make(database, USERS)

    with pytest.raises(Fatal) as caught:
        ends.open()
    ends.close()

    for part in ("ADD COLUMN", "extra", "ADD UNIQUE"):
        assert part in str(caught.value)
    config = Config.model_validate(from_url(database.url))
    found = sink_check(config, SinkContext("test", Path("/nowhere"), (USERS,)))
    assert [each.severity.value for each in found].count("error") == 3
    assert identity(config).startswith("postgres:")


def test_odd_names_schemas_and_every_type_arrive(each_database: Database) -> None:
    database = each_database
    array = Type(Kind.ARRAY, element=TEXT, name="text[]", system="postgres")
    mood = Type(Kind.ENUM, labels=("sad", "it's"), name="odd.mood", system="postgres")
    types: Sequence[tuple[Type, Any]] = [
        (INTEGER, -1),
        (Type(Kind.TEXT), 'a"\\b,{}NULL'),
        (Type(Kind.BYTES), b"\0\xff\\"),
        (Type(Kind.BOOLEAN), True),
        (Type(Kind.DECIMAL), "-1.50"),
        (Type(Kind.FLOAT, bits=64), float("inf")),
        (Type(Kind.DATE), "-0043-03-15"),
        (Type(Kind.TIMESTAMPTZ), "2026-11-23T10:00:00.5Z"),
        (Type(Kind.INTERVAL), "P1Y2M3DT4H5M6.7S"),
        (Type(Kind.JSON), '{"a":  "\\n"}'),
        (array, ("x", None, 'q"')),
        (Type(Kind.OPAQUE, name="box", system="postgres"), "(1,1),(0,0)"),
        (mood, "it's"),
        (Type(Kind.OPAQUE, name="x.unknown", system="postgres"), "(1)"),
        (Type(Kind.BIT, length=4, fixed=True), "1010"),
    ]
    columns = tuple(Column(f"'; DROP {at}\"", each) for at, (each, _) in enumerate(types))
    table = Table("odd", 'a"b', columns, (columns[0].name,))
    row = tuple(value for _, value in types)
    ends = make(database, table)
    ends.open()

    ends.write(*insert(row, (2, *[None] * (len(row) - 1)), table=table))
    casts = ", ".join('"' + each.name.replace('"', '""') + '"::text' for each in columns)
    want = database.query(f'SELECT {casts} FROM odd."a""b" ORDER BY 1')
    ends.write(*[Change(table, Operation.READ, None, (at + 10, *row[1:])) for at in range(300)])
    got = database.query(f'SELECT {casts} FROM odd."a""b" WHERE {casts.split("::", maxsplit=1)[0]} = 309')

    assert got[0][1:] == want[0][1:]
    assert want[0][6:8] == ("0044-03-15 BC", "2026-11-23 10:00:00.5+00")
    assert want[0][9:13] == ('{"a":  "\\n"}', '{x,NULL,"q\\""}', "(1,1),(0,0)", "it's")
    assert want[1][1:] == (None,) * (len(row) - 1)
    ends.close()


def test_generated_columns_are_left_out_and_identities_overridden(ends: Ends, database: Database) -> None:
    table = Table("public", "made", (Column("id", INTEGER), Column("twice", INTEGER, generated=True)), ("id",))
    database.execute(
        "CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)"
    )

    ends.write(*insert((5, 10), table=table), update((5, 10), (5, 10), table))

    assert database.query("SELECT * FROM made") == [(5, 10)]
