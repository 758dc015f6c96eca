"""Publications: made, checked, reused, and never one that breaks the application's updates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from fix_postgres import drop_database, make_database

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.ports import SourceContext, Wanted
from cdcsync.postgres.catalogue import Catalogue
from cdcsync.postgres.config import PostgresSource, from_url
from cdcsync.postgres.connection import Connection, connect
from cdcsync.postgres.publication import Publications, ensure

if TYPE_CHECKING:
    from fix_postgres import Database

KEYED, APPENDED = Wanted.KEYED, Wanted.APPENDED


class Names:
    def __init__(self, **wanted: Wanted) -> None:
        self._wanted = wanted

    def wants(self, schema: str, name: str) -> Wanted | None:
        return self._wanted.get(name) if schema == "public" else None


def attach(database: Database, **fields: Any) -> tuple[PostgresSource, Connection]:
    config = PostgresSource.model_validate({**from_url(database.url), **fields})
    return config, connect(config, application_name="test", read_write=True)


def made(database: Database, wanted: dict[str, Wanted], *, fresh: bool = True, **fields: Any) -> Publications:
    config, connection = attach(database, **fields)
    with connection:
        return ensure(connection, config, SourceContext("p", Names(**wanted), Path()), fresh=fresh)


def publications(database: Database) -> list[tuple[Any, ...]]:
    return database.query("SELECT pubname FROM pg_publication ORDER BY 1")


def test_the_tables_of_the_mapping_are_published_and_others_are_not(each_database: Database) -> None:
    each_database.execute("CREATE TABLE a (id int PRIMARY KEY, t text); CREATE TABLE b (id int PRIMARY KEY)")

    got = made(each_database, {"a": KEYED})

    assert got.names == ("cdcsync_p",)
    assert [published.info.qualified for published in got.tables] == ["public.a"]
    assert each_database.query("SELECT tablename FROM pg_publication_tables") == [("a",)]
    assert made(each_database, {"a": KEYED}, fresh=False).names == got.names


def test_a_table_without_replica_identity_is_refused_before_the_application_is_broken(each_database: Database) -> None:
    each_database.execute("CREATE TABLE a (id int); CREATE TABLE u (id int NOT NULL); CREATE UNIQUE INDEX ui ON u (id)")

    with pytest.raises(Fatal) as caught:
        made(each_database, {"a": KEYED, "u": KEYED})

    assert 'ALTER TABLE "public"."a" REPLICA IDENTITY FULL;' in caught.value.hint
    assert 'ALTER TABLE "public"."u" REPLICA IDENTITY USING INDEX "ui";' in caught.value.hint
    assert publications(each_database) == []
    each_database.execute("INSERT INTO a VALUES (1); UPDATE a SET id = 2; DELETE FROM a")


def test_a_partition_without_replica_identity_is_refused_too(database: Database) -> None:
    database.execute(
        "CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (9); ALTER TABLE r1 REPLICA IDENTITY NOTHING"
    )

    with pytest.raises(Fatal, match=r"public\.r1"):
        made(database, {"r": KEYED})


def test_an_appended_table_without_identity_stays_updatable(each_database: Database) -> None:
    each_database.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE h (x int);"
        "CREATE TABLE f (x int); ALTER TABLE f REPLICA IDENTITY FULL"
    )

    got = made(each_database, {"a": KEYED, "h": APPENDED, "f": APPENDED})

    assert got.names == ("cdcsync_p", "cdcsync_p_inserts")
    assert each_database.query("SELECT tablename FROM pg_publication_tables WHERE pubname = 'cdcsync_p_inserts'") == [
        ("h",)
    ]
    each_database.execute("INSERT INTO h VALUES (1); UPDATE h SET x = 2; DELETE FROM h")


def test_all_tables_is_refused_while_any_table_would_break(database: Database) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE other (id int)")

    with pytest.raises(Fatal, match=r"public\.other"):
        made(database, {"a": KEYED}, publication={"mode": "all_tables"})

    database.execute("ALTER TABLE other ADD PRIMARY KEY (id)")
    assert made(database, {"a": KEYED}, publication={"mode": "all_tables"}).names == ("cdcsync_p",)


def test_names_that_look_like_sql_are_names(each_database: Database) -> None:
    names = {'a"b': KEYED, "'; DROP TABLE a; --": KEYED}
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        each_database.execute(f'CREATE TABLE {quoted} ("k""e\'y" int PRIMARY KEY)')

    got = made(each_database, names, publication={"name": 'p"; DROP'})

    assert sorted(published.info.name for published in got.tables) == sorted(names)
    assert publications(each_database) == [('p"; DROP',)]


def test_an_existing_publication_is_checked_and_its_filter_honoured(each_database: Database) -> None:
    each_database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, t text, x int); CREATE TABLE b (id int PRIMARY KEY);"
        "CREATE PUBLICATION theirs FOR TABLE a (id, x) WHERE (id > 5)"
    )
    theirs = {"name": "theirs", "mode": "existing"}

    got = made(each_database, {"a": KEYED}, publication=theirs)

    assert [column.name for column in got.tables[0].columns] == ["id", "x"]
    assert got.tables[0].row_filter == "((id > 5))"
    with pytest.raises(Fatal, match="is not in the publication") as caught:
        made(each_database, {"a": KEYED, "b": KEYED}, publication=theirs)
    assert 'ALTER PUBLICATION "theirs" ADD TABLE "public"."b";' in caught.value.hint
    with pytest.raises(Fatal, match="does not exist"):
        made(each_database, {"a": KEYED}, publication={"name": "nobodys", "mode": "existing"})


def test_a_column_list_without_the_key_is_refused(database: Database) -> None:
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, x int);CREATE PUBLICATION theirs FOR TABLE a (x) WITH (publish = 'insert')"
    )

    with pytest.raises(Fatal, match="lacks the key: id"):
        made(database, {"a": KEYED}, publication={"name": "theirs", "mode": "existing"})


def test_a_table_joins_a_running_pipeline_at_once_only_while_it_is_empty(each_database: Database) -> None:
    each_database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    made(each_database, {"a": KEYED})

    assert len(made(each_database, {"a": KEYED, "b": KEYED}, fresh=False).tables) == 2
    each_database.execute("CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c VALUES (1)")
    got = made(each_database, {"a": KEYED, "b": KEYED, "c": KEYED}, fresh=False)
    assert (len(got.tables), [table.qualified for table in got.joining]) == (2, ["public.c"])

    each_database.execute("CREATE TABLE d (x int); INSERT INTO d VALUES (1)")
    made(each_database, {"a": KEYED})
    each_database.execute("ALTER TABLE d REPLICA IDENTITY FULL")
    with pytest.raises(Fatal, match=r"public\.d.*has rows"):
        made(each_database, {"a": KEYED, "d": Wanted.APPENDED}, fresh=False)


def test_a_publication_dropped_under_a_stored_position_is_not_made_anew(database: Database) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY)")

    with pytest.raises(Fatal, match="though the pipeline has a position"):
        made(database, {"a": KEYED}, fresh=False)


def test_a_partitioned_table_comes_by_its_root_or_its_leaves(each_database: Database) -> None:
    each_database.execute(
        "CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (9)"
    )

    root = made(each_database, {"r": KEYED, "r1": KEYED})
    leaf = made(each_database, {"r": KEYED, "r1": KEYED}, partitions="leaf", publication={"name": "leaf"})

    assert [published.info.name for published in root.tables] == ["r"]
    assert [published.info.name for published in leaf.tables] == ["r1"]


def test_generated_columns_are_those_that_the_server_publishes(each_database: Database) -> None:
    each_database.execute("CREATE TABLE a (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED)")

    got = made(each_database, {"a": KEYED})

    want = ["id", "g"] if each_database.server.version >= 18 else ["id"]
    assert [column.name for column in got.tables[0].columns] == want


def test_full_identity_with_a_virtual_column_is_refused(postgres18: Any, request: pytest.FixtureRequest) -> None:
    database = make_database(postgres18)
    request.addfinalizer(lambda: drop_database(database))
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) VIRTUAL);"
        "ALTER TABLE a REPLICA IDENTITY FULL"
    )

    with pytest.raises(Fatal, match="virtual generated column"):
        made(database, {"a": KEYED})

    database.execute("CREATE PUBLICATION shows FOR TABLE a; INSERT INTO a VALUES (1)")
    with pytest.raises(psycopg.Error):
        database.execute("UPDATE a SET id = 2")


def test_an_unlogged_table_is_refused(database: Database) -> None:
    database.execute("CREATE UNLOGGED TABLE a (id int PRIMARY KEY)")

    with pytest.raises(Fatal, match="unlogged") as caught:
        made(database, {"a": KEYED})
    assert "SET LOGGED" in caught.value.hint


def test_a_mapping_of_nothing_is_a_mistake_in_the_configuration(database: Database) -> None:
    with pytest.raises(Fatal, match="names no table") as caught:
        made(database, {"nothing": KEYED})
    assert caught.value.status is ExitStatus.CONFIG


def test_a_user_who_owns_nothing_is_told_what_to_grant(database: Database) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY)")
    database.execute("DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN REPLICATION PASSWORD 'weak'")

    with pytest.raises(Fatal) as caught:
        made(database, {"a": KEYED}, user="weak", password="weak")
    assert caught.value.status is ExitStatus.PERMISSION


def test_the_catalogue_sees_composites_domains_enums_and_arrays(database: Database) -> None:
    database.execute(
        "CREATE TYPE mood AS ENUM ('b', 'a'); CREATE DOMAIN price AS numeric(10, 2);"
        "CREATE TYPE pair AS (x int, y mood[]); CREATE TABLE a (id int PRIMARY KEY, p pair, d price, m mood[])"
    )
    _, connection = attach(database)

    with connection:
        catalogue = Catalogue(connection)
        (table,) = catalogue.tables(table.oid for table in catalogue.names())
        got = {info.name: info for info in catalogue.types(column.type for column in table.columns).values()}

    assert got["mood"].labels == ("b", "a")
    assert [field.name for field in got["pair"].attributes] == ["x", "y"]
    assert (got["price"].base, got["price"].base_modifier) == (1700, (10 << 16 | 2) + 4)
    assert got["_mood"].element == got["mood"].oid
