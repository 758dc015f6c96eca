"""PostgreSQL's tables change while they are carried into PostgreSQL, and the targets follow."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from fix_evolution import Flow
from fix_postgres import Database, drop_database, make_database

from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_evolution import Life

TABLE = "CREATE TABLE t (id int PRIMARY KEY, a text, n int NOT NULL DEFAULT 0)"
FULL = bool(os.environ.get("CDCSYNC_FULL"))
ROWS = "INSERT INTO t SELECT i, 'a' || i, i FROM generate_series(1, 20) i"
COLUMNS = """
SELECT attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attname
"""


@pytest.fixture
def target(other_database: Database) -> Database:
    """The other database of the same server."""
    return other_database


def shape(database: Database, table: str = "t") -> dict[str, str]:
    """Return the columns and their types."""
    return {name: kind for name, kind, _ in database.query(COLUMNS, [table])}


def rows(database: Database, table: str = "t", names: str = "") -> list[tuple[Any, ...]]:
    """Return the rows by their columns' names, every value as text."""
    names = names or ", ".join(f'"{name}"::text' for name in shape(database, table))
    return sorted(database.query(f"SELECT {names} FROM {table}"), key=repr) if names else []


def same(source: Database, target: Database, table: str = "t") -> bool:
    """Return whether both have the same columns, of the same types, and rows."""
    return bool(shape(source, table) == shape(target, table) and rows(source, table) == rows(target, table))


def number(table: str) -> str:
    """Return the statement that adds a row which comes last."""
    return f"INSERT INTO {table} (id) SELECT max(id) + 1 FROM {table}"


CHANGES = {
    "added": "ALTER TABLE {t} ADD c text",
    "defaulted": "ALTER TABLE {t} ADD c numeric(8,2) NOT NULL DEFAULT 1.50, ADD d text[] DEFAULT '{{a,\"b c\"}}'",
    "dropped": "ALTER TABLE {t} DROP a",
    "replaced": "ALTER TABLE {t} DROP n; INSERT INTO {t} (id) VALUES (300); ALTER TABLE {t} ADD n text DEFAULT 'x''y'",
    "wider": "ALTER TABLE {t} ALTER n TYPE bigint",
    "other": "ALTER TABLE {t} ALTER n DROP DEFAULT, ALTER n TYPE text, ALTER n SET DEFAULT ''",
    "narrower": "UPDATE {t} SET a = 'x'; ALTER TABLE {t} ALTER a TYPE varchar(5)",
    "looser": "ALTER TABLE {t} ALTER n DROP NOT NULL; INSERT INTO {t} VALUES (500, 'null', null)",
    "keyed": "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey, ADD PRIMARY KEY (n, id)",
    "mixed": "INSERT INTO {t} VALUES (100, 'old', 1); ALTER TABLE {t} ADD c int, DROP a; "
    "INSERT INTO {t} VALUES (101, 2, 3); UPDATE {t} SET c = id; DELETE FROM {t} WHERE id = 5; ALTER TABLE {t} ADD e int; "
    "UPDATE {t} SET e = 7 WHERE id < 4",
}
"""By the table's name."""


def changed(table: str) -> str:
    """Return a table's change with a row behind it, one transaction."""
    return f"BEGIN; {CHANGES[table].format(t=table)}; {number(table)}; COMMIT"


@pytest.fixture(params=["postgres15", "postgres16", "postgres18"] if FULL else ["postgres15", "postgres18"])
def each(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database of the oldest and of the newest server; of all in the full length."""
    made = make_database(request.getfixturevalue(request.param))
    yield made
    drop_database(made)


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_targets_follow_while_the_pipeline_runs_and_after_it_was_stopped(
    each: Database, target: Database, tmp_path: Path, *, running: bool
) -> None:
    for table in CHANGES:
        each.execute(f"{TABLE}; {ROWS}; ALTER TABLE t RENAME TO {table}; ALTER INDEX t_pkey RENAME TO {table}_pkey")
    carries = Flow(tmp_path, each.url, target.url, {"from": "public.*"})
    with carries.running() as life:
        life.until(lambda: all(same(each, target, table) for table in CHANGES))
        for table in CHANGES if running else ():
            each.execute(changed(table))
        life.until(lambda: all(same(each, target, table) for table in CHANGES))
    for table in () if running else CHANGES:
        each.execute(changed(table))

    with carries.running() as life:
        for table in CHANGES:
            each.execute(number(table))
        life.until(lambda: [table for table in CHANGES if not same(each, target, table)] == [])


def streaming(life: Life, source: Database, target: Database) -> None:
    """Have one more row carried."""
    (number,) = source.query("INSERT INTO t (id) SELECT max(id) + 1 FROM t RETURNING id")[0]
    life.until(lambda: shape(target) and target.query("SELECT 1 FROM t WHERE id = %s", [number]))


def flow(folder: Path, source: Database, target: Database, how: Any, **entry: Any) -> Flow:
    """Return a pipeline of table t that follows in this way."""
    return Flow(folder, source.url, target.url, {"from": "public.t", "schema_changes": how, **entry})


def test_lenient_loses_nothing(database: Database, target: Database, tmp_path: Path) -> None:
    database.execute(f"{TABLE}; {ROWS}; ALTER TABLE t ADD k int NOT NULL DEFAULT 7, ADD w varchar(9)")
    with flow(tmp_path, database, target, "lenient").running() as life:
        streaming(life, database, target)
        database.execute("ALTER TABLE t DROP k, DROP a, ALTER n TYPE smallint, ADD c text, ALTER w TYPE varchar(20)")
        database.execute("INSERT INTO t VALUES (100, 3, 'eleven char', 'c')")
        streaming(life, database, target)
        database.execute(
            "ALTER TABLE t ALTER n DROP DEFAULT, ALTER n TYPE text; INSERT INTO t VALUES (200, 'x', 'w', 'c')"
        )
        life.until(lambda: target.query("SELECT 1 FROM t WHERE id = 200"))

    assert shape(target) == {
        "id": "integer", "a": "text", "n": "text", "k": "integer", "w": "character varying(20)", "c": "text",
    }  # fmt: skip
    assert target.query("SELECT a, n, k, w, c FROM t WHERE id IN (20, 100, 200) ORDER BY id") == [
        ("a20", "20", 7, None, None), (None, "3", None, "eleven char", "c"), (None, "x", None, "w", "c"),
    ]  # fmt: skip


def test_ignore_goes_on_while_rows_fit_and_stops_where_they_do_not(
    database: Database, target: Database, tmp_path: Path
) -> None:
    database.execute(f"{TABLE}; {ROWS}")
    ignores = flow(tmp_path, database, target, "ignore")
    with ignores.running() as life:
        streaming(life, database, target)
        was = shape(target)
        database.execute("ALTER TABLE t DROP a, ADD c text; INSERT INTO t (id, n, c) VALUES (100, 1, 'c')")
        streaming(life, database, target)
    with ignores.running() as life:
        streaming(life, database, target)

    assert shape(target) == was
    assert target.query("SELECT a, n FROM t WHERE id IN (20, 100) ORDER BY id") == [("a20", 20), (None, 1)]

    said = ignores.fails(lambda: database.execute("ALTER TABLE t ALTER n TYPE bigint; INSERT INTO t VALUES (300, 5)"))
    assert "column n: integer is narrower than bigint" in said


def test_kinds_are_left_out_of_what_is_followed(database: Database, target: Database, tmp_path: Path) -> None:
    database.execute(f"{TABLE}; {ROWS}")
    with flow(tmp_path, database, target, {"mode": "evolve", "exclude": ["drop"]}).running() as life:
        streaming(life, database, target)
        database.execute("ALTER TABLE t DROP a, ADD c text")
        streaming(life, database, target)

    assert list(shape(target)) == ["a", "c", "id", "n"]


def test_stop_stops_by_name_and_an_expression_over_a_dropped_column_by_its_line(
    database: Database, target: Database, tmp_path: Path
) -> None:
    database.execute(f"{TABLE}; {ROWS}")
    change = "ALTER TABLE t DROP a; INSERT INTO t (id) VALUES (100)"
    said = flow(tmp_path, database, target, "evolve", where="a <> 'x'").fails(lambda: database.execute(change))
    assert re.search(r"flow\.yaml:\d+:\d+: .*\n?.*there is no column a", said)


def test_the_plan_shows_what_a_run_would_do(database: Database, target: Database, tmp_path: Path) -> None:
    database.execute(f"{TABLE}; {ROWS}; CREATE TABLE u (id int PRIMARY KEY)")
    carries = Flow(tmp_path, database.url, target.url, {"from": "public.*"})
    carries.write()
    first = carries.asked("plan")
    assert [(each["target"], each["reason"]) for each in first] == [
        ('"public"."t"', "is created"),
        ('"public"."u"', "is created"),
    ]
    assert first[1]["statement"].startswith('CREATE TABLE "public"."u"')
    with carries.running() as life:
        streaming(life, database, target)
    assert carries.asked("plan") == []

    database.execute("ALTER TABLE t ADD c int DEFAULT 5, DROP a")
    assert [each["statement"] for each in carries.asked("plan")] == [
        'ALTER TABLE "public"."t" ADD COLUMN "c" integer DEFAULT \'5\'',
        'ALTER TABLE "public"."t" ALTER COLUMN "c" DROP DEFAULT',
        'ALTER TABLE "public"."t" DROP COLUMN IF EXISTS "a"',
    ]
    assert "a" in shape(target)
    said = {each["message"] for each in carries.asked("check") if each["subject"] == 'target table "public"."t"'}
    assert "will be altered when the log comes to what the source is now" in said
    assert not [each for each in carries.asked("check") if each["severity"] == "error"]


def test_an_event_trigger_tells_of_renamed_columns_and_dropped_tables(
    each: Database, target: Database, tmp_path: Path
) -> None:
    for table in ("u", "k", "t"):
        each.execute(f"{TABLE}; {ROWS}".replace("TABLE t ", f"TABLE {table} ").replace("INTO t ", f"INTO {table} "))
    drops = {"from": "public.u", "schema_changes": {"include": ["drop_table"]}}
    carries = Flow(tmp_path, each.url, target.url, "public.t", drops, "public.k")
    (finding,) = [each for each in carries.asked("check") if each["subject"] == "event trigger cdcsync_ddl"]
    each.execute(finding["remedy"])
    with carries.running() as life:
        life.until(lambda: all(same(each, target, table) for table in ("t", "u", "k")))
        each.execute('ALTER TABLE t RENAME a TO "B b"; DROP TABLE u; ALTER TABLE k RENAME COLUMN n TO m')
        streaming(life, each, target)
        life.until(lambda: same(each, target))
        life.until(lambda: same(each, target, "k") and not shape(target, "u"))
        each.execute("DROP TABLE k")
        streaming(life, each, target)

    assert target.query("SELECT count(*), count(m) FROM k") == [(20, 20)]


def test_a_table_made_under_a_glob_is_carried_while_the_pipeline_runs(
    database: Database, target: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdcsync.postgres.source.LOOK_S", 0.5)
    database.execute(f"{TABLE}; {ROWS}")
    with Flow(tmp_path, database.url, target.url, {"from": "public.*"}).running() as life:
        streaming(life, database, target)
        database.execute("CREATE TABLE made (id int PRIMARY KEY, a text); INSERT INTO made VALUES (1, 'x')")
        streaming(life, database, target)

        life.until(lambda: same(database, target, "made"))
        database.execute("INSERT INTO made VALUES (2, 'y')")

        life.until(lambda: same(database, target, "made"))


def test_another_entry_is_no_change_of_the_source(database: Database, target: Database, tmp_path: Path) -> None:
    database.execute(f"{TABLE}; {ROWS}")
    with flow(tmp_path, database, target, "evolve").running() as life:
        streaming(life, database, target)

    with (
        pytest.raises(Fatal, match="column twice is missing: ALTER TABLE"),
        flow(tmp_path, database, target, "evolve", columns={"twice": "n * 2"}).running() as life,
    ):
        life.until(lambda: False)

    assert "twice" not in shape(target)
