"""How long real servers keep their logs, against where a pipeline is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fix_mysql_log import insert, now, pause, purge, rotate, section
from structlog.testing import capture_logs

from cdcsync.connectors import Finding, Severity
from cdcsync.mysql.connection import connect
from cdcsync.mysql.retention import judge, kept_s, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.mysql.position import MysqlPosition
    from cdcsync.ports import SourceContext
    from cdcsync.testing.mysql_servers import MysqlServer


@contextmanager
def kept(server: MysqlServer, seconds: int) -> Iterator[None]:
    ((before,),) = server.query("SELECT @@GLOBAL.binlog_expire_logs_seconds")
    server.execute(f"SET GLOBAL binlog_expire_logs_seconds = {seconds}")
    try:
        yield
    finally:
        server.execute(f"SET GLOBAL binlog_expire_logs_seconds = {before}")


def judged(server: MysqlServer, context: SourceContext, position: MysqlPosition) -> Finding:
    (found,) = judge(section(server), context, position.encode())
    return found


def test_a_position_in_the_file_that_is_written_is_safe(fresh: MysqlServer, log_context: SourceContext) -> None:
    with kept(fresh, 5):
        got = judged(fresh, log_context, now(fresh))

    assert got.severity is Severity.OK
    assert "written now" in got.message


def test_a_position_that_outlived_the_retention_is_named_with_what_keeps_the_log(
    fresh: MysqlServer, log_context: SourceContext
) -> None:
    insert(fresh, 1)
    position = now(fresh)
    insert(fresh, 2)
    rotate(fresh)
    pause(3)
    with kept(fresh, 1):
        got = judged(fresh, log_context, position)
        with connect(section(fresh), purpose="test") as connection, capture_logs() as logged:
            warn(connection, section(fresh), log_context, position)

    assert got.severity is Severity.WARNING
    assert "removes it with the next file" in got.message
    assert "604800" in str(got.remedy)
    assert [(each["log_level"], each["event"]) for each in logged] == [("warning", "the log may be gone soon")]
    with kept(fresh, 100000):
        assert judged(fresh, log_context, position).severity is Severity.OK
    with kept(fresh, 0), connect(section(fresh), purpose="test") as connection:
        assert kept_s(connection.server) == 0
        assert "kept for ever" in judged(fresh, log_context, position).message


def test_a_position_whose_log_is_gone_is_an_error_of_check(fresh: MysqlServer, log_context: SourceContext) -> None:
    position = now(fresh)
    insert(fresh, 1)
    rotate(fresh)
    insert(fresh, 2)
    rotate(fresh)
    purge(fresh, fresh.binlogs()[-1])

    got = judged(fresh, log_context, position)

    assert got.severity is Severity.ERROR
    assert "purged" in got.message
