"""Events in forms that a server or a session chooses: compressed ones, row images that are not whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fix_mysql import make_mysql_database
from fix_mysql_source import begun, has_changes

from cdcsync.change import UNCHANGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_mysql import MysqlDatabase
    from fix_mysql_source import MysqlRun

    from cdcsync.testing.mysql_servers import MysqlServer


@pytest.mark.parametrize("build", ["mariadb10", "mariadb11"])
def test_rows_and_statements_that_mariadb_compresses_are_read(
    request: pytest.FixtureRequest, read: Callable[..., MysqlRun], build: str
) -> None:
    server: MysqlServer = request.getfixturevalue(build)
    server.execute("SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10")
    try:
        database = make_mysql_database(server)
        database.execute("CREATE TABLE t (id int PRIMARY KEY, big text)")
        run = begun(read(database))
        database.execute("INSERT INTO t VALUES (1, repeat('x', 5000)), (2, 'y')")
        database.execute("UPDATE t SET big = repeat('z', 3000)")
        database.execute(f"ALTER TABLE t ADD c int COMMENT '{'c' * 500}'; DELETE FROM t")
        run.take(has_changes(6))
        events = database.query(f"SHOW BINLOG EVENTS IN '{server.binlogs()[-1]}'")
    finally:
        server.execute("SET GLOBAL log_bin_compress = OFF")

    kinds = {row[2] for row in events}
    assert {"Write_rows_compressed_v1", "Update_rows_compressed_v1", "Query_compressed"} <= kinds, kinds
    x, z = "x" * 5000, "z" * 3000
    assert run.rows == [
        ("insert", None, (1, x)),
        ("insert", None, (2, "y")),
        ("update", (1, x), (1, z)),
        ("update", (2, "y"), (2, z)),
        ("delete", (1, z, None), None),
        ("delete", (2, z, None), None),
    ]


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
def test_a_value_that_a_session_leaves_out_is_unchanged_and_never_null(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun], image: str
) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a int, big text)")
    run = begun(read(database))
    database.execute("INSERT INTO t VALUES (1, 2, 'x')")
    database.execute(f"SET SESSION binlog_row_image = {image}; UPDATE t SET a = 3; DELETE FROM t")

    run.take(has_changes(3))

    minimal = image == "MINIMAL"
    a_before, a_after = (UNCHANGED if minimal else 2), 3
    assert run.rows == [
        ("insert", None, (1, 2, "x")),
        ("update", (1, a_before, UNCHANGED), (1, a_after, UNCHANGED)),
        ("delete", (1, UNCHANGED if minimal else 3, UNCHANGED), None),
    ]


def test_a_part_of_a_json_document_that_a_session_logs_alone_becomes_the_whole_document(
    mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, j json)")
    run = begun(read(mysql_database))
    mysql_database.execute("""INSERT INTO t VALUES (1, '{"a": 1, "b": "a long text that stays as it was"}')""")
    mysql_database.execute(
        "SET SESSION binlog_row_value_options = PARTIAL_JSON; UPDATE t SET j = JSON_SET(j, '$.a', 2)"
    )

    run.take(has_changes(2))

    assert run.changes[1].after == (1, '{"a": 2, "b": "a long text that stays as it was"}')
