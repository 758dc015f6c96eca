"""What sessions can change about the rows that a server logs: images, partial JSON, metadata, formats, alters."""

from __future__ import annotations

import ipaddress
import json
import random
from typing import TYPE_CHECKING

import pytest
from fix_binlog import Logged, hints_of, selected
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database

from cdcsync.change import UNCHANGED, Operation
from cdcsync.errors import Fatal
from cdcsync.mysql.config import ZeroDates
from cdcsync.mysql.types import is_unmeasured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.change import Change
    from cdcsync.testing.mysql_servers import MysqlServer


def run(database: MysqlDatabase, *statements: str) -> None:
    """Run statements in one session."""
    with database.server.connect(database.name) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def images(changes: list[Change]) -> list[tuple[object, object]]:
    return [(change.before, change.after) for change in changes]


@pytest.mark.pure
def test_images_that_leave_columns_out_carry_no_null_for_them(each_mysql_database: MysqlDatabase) -> None:
    each_mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b text, c varchar(9) DEFAULT 'd')")
    logged = Logged(each_mysql_database.server)
    work = (
        "INSERT INTO t (id, b) VALUES (1, 'b')",
        "UPDATE t SET a = 2",
        "UPDATE t SET b = NULL",
        "UPDATE t SET id = 2",
        "DELETE FROM t",
    )

    run(each_mysql_database, "SET binlog_row_image = MINIMAL", *work)
    run(each_mysql_database, "SET binlog_row_image = NOBLOB", *work)

    u = UNCHANGED
    assert images(logged.changes()) == [
        (None, (1, u, "b", u)),
        ((1, u, u, u), (1, 2, u, u)),
        ((1, u, u, u), (1, u, None, u)),
        ((1, u, u, u), (2, u, u, u)),
        ((2, u, u, u), None),
        (None, (1, None, "b", "d")),
        ((1, None, u, "d"), (1, 2, u, "d")),
        ((1, 2, u, "d"), (1, 2, None, "d")),
        ((1, 2, u, "d"), (2, 2, u, "d")),
        ((2, 2, u, "d"), None),
    ]


@pytest.mark.pure
def test_partial_json_is_the_document_that_a_select_gives(mysql_database: MysqlDatabase) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, j json, k json, t text)")
    padding = json.dumps({"p": "x" * 500, "a": 1, "b": [1, 2, {"c": "d"}], "e f": {}})
    run(mysql_database, f"INSERT INTO t VALUES (1, '{padding}', '[]', 't'), (2, NULL, NULL, NULL)")
    work = (
        "j = JSON_SET(j, '$.a', 'longer than it was')",
        "j = JSON_REPLACE(j, '$.b[2].c', NULL), k = JSON_ARRAY_APPEND(k, '$', 1.5)",
        """j = JSON_SET(j, '$."e f".g', JSON_OBJECT('h', TRUE), '$.b[7]', 7), t = 'u'""",
        "j = JSON_REMOVE(j, '$.b[0]', '$.a')",
        "j = JSON_SET(j, '$.p', REPEAT('é', 300)), k = JSON_SET(k, '$[0]', CAST('2026-11-24' AS DATE))",
    )

    for statement in work:
        logged = Logged(mysql_database.server)
        run(
            mysql_database, "SET binlog_row_value_options = PARTIAL_JSON",
            f"UPDATE t SET {statement} WHERE id = 1",
        )  # fmt: skip
        assert [kind for kind, _ in logged.events() if kind in {31, 39}] == [39]
        (change,) = logged.changes()
        assert change.after == selected(mysql_database, change.table)[0]


def test_partial_json_without_the_document_before_stops_by_the_settings_name(mysql_database: MysqlDatabase) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, j json)")
    mysql_database.execute("""INSERT INTO t VALUES (1, '{"a": 1, "b": "xxxxxxxxxxxxxxxxxxxxxxxx"}')""")
    logged = Logged(mysql_database.server)
    run(
        mysql_database, "SET binlog_row_value_options = PARTIAL_JSON, binlog_row_image = MINIMAL",
        "UPDATE t SET j = JSON_SET(j, '$.a', 2)",
    )  # fmt: skip

    with pytest.raises(Fatal, match=r"\.t: column j holds differences") as caught:
        logged.changes()

    assert "binlog_row_image = 'FULL'" in caught.value.hint


@pytest.mark.parametrize(
    ("policy", "date", "moment"),
    [(ZeroDates.NULL, None, None), (ZeroDates.TEXT, "0000-00-00", "0000-00-00T00:00:00")],
)
def test_zero_dates_are_what_the_policy_says_in_the_log_and_in_a_select(
    each_mysql_database: MysqlDatabase, policy: ZeroDates, date: str | None, moment: str | None
) -> None:
    each_mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, d date, e datetime(2), f timestamp(1) NULL)")
    logged = Logged(each_mysql_database.server)
    run(each_mysql_database, "SET sql_mode = 'ALLOW_INVALID_DATES'", "INSERT INTO t VALUES (1, 0, 0, 0)",
        "INSERT INTO t VALUES (2, '2026-02-31', '2026-02-00 01:00:00.5', NULL)")  # fmt: skip

    changes = logged.changes(policy)

    assert changes[0].after == (1, date, moment, moment and f"{moment}Z")
    assert [change.after for change in changes] == selected(each_mysql_database, changes[0].table, zero_dates=policy)
    for read in (logged.changes, lambda: selected(each_mysql_database, changes[0].table)):
        with pytest.raises(Fatal, match=r"\.t, column d holds a date that no calendar has"):
            read()


def test_labels_keep_their_meaning_through_an_alter_that_reorders_them(each_mysql_database: MysqlDatabase) -> None:
    each_mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, e enum('a','b'), s set('x','y'))")
    logged = Logged(each_mysql_database.server)

    run(
        each_mysql_database, "INSERT INTO t VALUES (1, 'b', 'x')",
        "ALTER TABLE t MODIFY e enum('b','c','a'), MODIFY s set('z','y','x')",
        "INSERT INTO t VALUES (2, 'b', 'x,z')",
        "SET sql_mode = ''", "INSERT INTO t VALUES (3, 'no label', '')",
    )  # fmt: skip

    assert [change.after for change in logged.changes()] == [(1, "b", ("x",)), (2, "b", ("z", "x")), (3, "", ())]
    assert [layout.labels[1] for layout in logged.layouts] == [("a", "b"), ("b", "c", "a"), ("b", "c", "a")]


@pytest.fixture(params=["mysql8", "mysql57", "mariadb10", "mariadb11"])
def bare_database(request: pytest.FixtureRequest) -> Iterator[MysqlDatabase]:
    """On a server that logs no names."""
    server: MysqlServer = request.getfixturevalue(request.param)
    is_old = server.build.name == "mysql57"
    made = make_mysql_database(server)
    if not is_old:
        server.execute("SET GLOBAL binlog_row_metadata = MINIMAL")
    yield made
    if not is_old:
        server.execute("SET GLOBAL binlog_row_metadata = FULL")
    drop_mysql_database(made)


@pytest.mark.pure
def test_a_log_without_names_gives_the_same_rows_by_the_catalogue(bare_database: MysqlDatabase) -> None:
    bare_database.execute(
        "CREATE TABLE t (a int unsigned, y year, id bigint unsigned PRIMARY KEY, e enum('x','it''s') , s set('p','q'), "
        "v varchar(30) character set latin1, b varbinary(3), p point, t text character set utf16, "
        "g int generated always as (a + 1) virtual, d decimal(8,3) unsigned zerofill)"
    )
    logged = Logged(bare_database.server)
    run(
        bare_database,
        "INSERT INTO t (a, y, id, e, s, v, b, p, t, d) VALUES (7, 1999, 18446744073709551615, 'it''s', 'q', 'é', x'00', "
        "ST_GeomFromText('POINT(1 2)'), '€', 1.5)",
    )

    (change,) = logged.changes()

    assert logged.layouts[0].names == ()
    assert change.after == selected(bare_database, change.table)[0]
    assert change.table.key == ("id",)
    assert [column.name for column in change.table.columns if column.generated] == ["g"]


def test_a_catalogue_of_another_shape_stops_instead_of_misnaming_columns(bare_database: MysqlDatabase) -> None:
    bare_database.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b int)")
    logged = Logged(bare_database.server)
    bare_database.execute("INSERT INTO t VALUES (1, 2, 3)")
    bare_database.execute("ALTER TABLE t MODIFY b text")

    with pytest.raises(Fatal, match=r"column b as type 3 in the log and text in the catalogue"):
        logged.changes()

    bare_database.execute("ALTER TABLE t DROP b")
    with pytest.raises(Fatal, match="3 columns in the log and 2 in the catalogue"):
        logged.changes()


def test_columns_of_the_server_itself_stay_out_of_rows(each_mysql_database: MysqlDatabase) -> None:
    is_mariadb = "mariadb" in each_mysql_database.server.build.name
    extra = "UNIQUE (v)" if is_mariadb else "INDEX ((n + 1))"
    each_mysql_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v text, n int, {extra})")
    logged = Logged(each_mysql_database.server)
    run(each_mysql_database, "INSERT INTO t VALUES (1, 'v', 2)", "UPDATE t SET v = 'w'", "DELETE FROM t")

    changes = logged.changes()

    assert images(changes) == [(None, (1, "v", 2)), ((1, "v", 2), (1, "w", 2)), ((1, "w", 2), None)]
    assert len(logged.layouts[0].names) == 4


@pytest.mark.parametrize(
    "period",
    ["", ", a timestamp(6) as row start, z timestamp(6) as row end, PERIOD FOR SYSTEM_TIME (a, z)"],
    ids=["implicit", "explicit"],
)
def test_a_system_versioned_table_is_refused_by_name(mariadb10: MysqlServer, period: str) -> None:
    database = make_mysql_database(mariadb10)
    period = period.replace(" as row", " generated always as row")
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v int {period}) WITH SYSTEM VERSIONING")
    logged = Logged(mariadb10)
    run(database, "INSERT INTO t (id, v) VALUES (1, 2)")

    with pytest.raises(Fatal, match=rf"{database.name}\.t is system-versioned"):
        logged.changes()

    drop_mysql_database(database)


@pytest.mark.parametrize("build", ["mariadb10", "mariadb11"])
def test_times_in_the_old_formats_keep_their_fraction(request: pytest.FixtureRequest, build: str) -> None:
    server: MysqlServer = request.getfixturevalue(build)
    database = make_mysql_database(server)
    server.execute("SET GLOBAL mysql56_temporal_format = OFF")
    try:
        kinds = [f"{kind}({precision})" for kind in ("time", "datetime", "timestamp") for precision in range(7)]
        columns = ", ".join(f"c{index} {kind} NULL" for index, kind in enumerate(kinds))
        database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
        logged = Logged(server)
        values = ["'-837:59:58.987654'"] * 7 + ["'9999-12-31 23:59:59.987654'"] * 7 + ["'2038-01-19 03:14:07'"] * 7
        small = ["'00:00:00.5'"] * 7 + ["'1000-01-01 00:00:00.000001'"] * 7 + ["'1970-01-01 00:00:01.75'"] * 7
        run(
            database, "SET time_zone = '+00:00'",
            f"INSERT INTO t VALUES (1, {', '.join(values)})",
            f"INSERT INTO t VALUES (2, {', '.join(small)})",
            "INSERT INTO t (id) VALUES (3)",
        )  # fmt: skip
    finally:
        server.execute("SET GLOBAL mysql56_temporal_format = ON")

    changes = logged.changes()

    layout = logged.layouts[0]
    assert {7, 11, 12} <= set(layout.type_codes)
    assert is_unmeasured(layout)
    assert [change.after for change in changes] == selected(database, changes[0].table)
    drop_mysql_database(database)


@pytest.mark.parametrize("build", ["mariadb10", "mariadb11"])
def test_addresses_are_written_as_mariadb_writes_them(request: pytest.FixtureRequest, build: str) -> None:
    server: MysqlServer = request.getfixturevalue(build)
    database = make_mysql_database(server)
    dice = random.Random(7)
    groups = [[dice.choice((0, 0, 0, 1, 0xFFFF, 0xA)) for _ in range(8)] for _ in range(300)]
    addresses = [str(ipaddress.IPv6Address(b"".join(each.to_bytes(2, "big") for each in one))) for one in groups]
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a inet6)")
    logged = Logged(server)
    database.execute("INSERT INTO t VALUES " + ", ".join(f"({at}, '{each}')" for at, each in enumerate(addresses)))

    changes = logged.changes()

    assert [change.after for change in changes] == selected(database, changes[0].table)
    drop_mysql_database(database)


def test_doubles_in_json_are_what_the_server_writes(mysql_database: MysqlDatabase) -> None:
    dice = random.Random(7)
    numbers = [dice.uniform(-1, 1) * 10.0 ** dice.randint(-30, 30) for _ in range(3000)]
    numbers += [float(round(number)) for number in numbers if abs(number) < 1e18] + [1e22, 1e21, 123e15, 1e-5]
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, j json)")
    logged = Logged(mysql_database.server)
    mysql_database.execute(f"INSERT INTO t VALUES (1, '{json.dumps(numbers)}')")

    (change,) = logged.changes()

    assert change.after == selected(mysql_database, change.table)[0]


@pytest.mark.parametrize("build", ["mariadb10", "mariadb11"])
def test_compressed_rows_are_the_rows(request: pytest.FixtureRequest, build: str) -> None:
    server: MysqlServer = request.getfixturevalue(build)
    database = make_mysql_database(server)
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v mediumtext)")
    server.execute("SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10")
    try:
        logged = Logged(server)
        file, offset = server.position()
        run(database, "INSERT INTO t VALUES (1, REPEAT('a', 70000)), (2, REPEAT('é', 3000))", "UPDATE t SET id = id + 2 ORDER BY id DESC",
            "DELETE FROM t WHERE id = 3")  # fmt: skip
    finally:
        server.execute("SET GLOBAL log_bin_compress = OFF")
    raw = (server.data / file).read_bytes()[offset:]

    changes = logged.changes()

    assert b"a" * 1000 not in raw
    assert [change.operation for change in changes] == [Operation.INSERT] * 2 + [Operation.UPDATE] * 2 + [
        Operation.DELETE
    ]
    assert changes[0].after == (1, "a" * 70000)
    assert changes[2].after == (4, "é" * 3000)
    drop_mysql_database(database)


def test_rows_of_the_first_version_are_the_same_rows(mysql_database: MysqlDatabase) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    logged = Logged(mysql_database.server)
    mysql_database.server.execute("SET GLOBAL log_bin_use_v1_row_events = ON")
    try:
        run(mysql_database, "INSERT INTO t VALUES (1, 'v')", "UPDATE t SET v = 'w'", "DELETE FROM t")
    finally:
        mysql_database.server.execute("SET GLOBAL log_bin_use_v1_row_events = OFF")

    assert images(logged.changes()) == [(None, (1, "v")), ((1, "v"), (1, "w")), ((1, "w"), None)]
    assert {kind for kind, _ in logged.events()} >= {23, 24, 25}


def test_hints_of_a_table_that_is_gone_are_not_needed_where_the_log_describes_it(mysql_database: MysqlDatabase) -> None:
    mysql_database.execute("CREATE TABLE t (id int unsigned PRIMARY KEY, e enum('a','b'))")
    logged = Logged(mysql_database.server)
    mysql_database.execute("INSERT INTO t VALUES (4294967295, 'b')")
    mysql_database.execute("DROP TABLE t")

    assert hints_of(mysql_database.server, mysql_database.name, "t").columns == ()
    assert [change.after for change in logged.changes()] == [(4294967295, "b")]
