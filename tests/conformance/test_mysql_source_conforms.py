"""MySQL and MariaDB pass the suite of sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fix_mysql_source import Tables

from cdcsync.mysql.config import MysqlSource, from_url
from cdcsync.mysql.source import MysqlBinlog
from cdcsync.ports import SourceContext
from cdcsync.testing.conformance.sources import SourceSuite

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_mysql import MysqlDatabase

    from cdcsync.ports import Source

DIGITS = ", ".join(f"({digit})" for digit in range(10))


class Beginning(MysqlBinlog):
    """Without a stored position it stands where the log of the test begins."""

    first = ""

    def open(self, start_at: str | None, epoch: int) -> None:
        super().open(start_at or self.first, epoch)


class TestMysqlSource(SourceSuite):
    @pytest.fixture
    def changes(self) -> int:
        return 3 + 9000 + 2

    @pytest.fixture
    def source(self, each_mysql_database: MysqlDatabase) -> Callable[[], Source]:
        database = each_mysql_database
        database.execute("CREATE TABLE t (id int PRIMARY KEY, name text); CREATE TABLE u (id int PRIMARY KEY)")
        database.execute(f"CREATE TABLE no_d (i int PRIMARY KEY); INSERT INTO no_d VALUES {DIGITS}")
        config = MysqlSource.model_validate({**from_url(database.server.url()), "start": "now"})
        context = SourceContext("p", Tables(database.name), Path("/nowhere"))
        maker = MysqlBinlog(config, context)
        maker.open(None, 0)
        batch = None
        while batch is None:
            batch = maker.poll(1.0)
        maker.close()
        database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'); UPDATE t SET name = 'c' WHERE id = 1")
        database.execute(
            "INSERT INTO u SELECT a.i + b.i * 10 + c.i * 100 + d.i * 1000 FROM no_d a, no_d b, no_d c, no_d d WHERE d.i < 9"
        )
        database.execute("DELETE FROM t WHERE id = 2; FLUSH BINARY LOGS")
        database.execute("UPDATE t SET id = 7 WHERE id = 1")
        Beginning.first = batch.position.encode()
        return lambda: Beginning(config, context)
