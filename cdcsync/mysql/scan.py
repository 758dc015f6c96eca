"""Reads rows of a MySQL or MariaDB beside the stream, for `verify`: in the log's own forms."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

from cdcsync.connectors import Scanner
from cdcsync.errors import End, Fatal
from cdcsync.mysql.connection import connect, quoted
from cdcsync.mysql.errors import MysqlError, number_of, verdict
from cdcsync.mysql.position import MysqlPosition, file_number
from cdcsync.mysql.reading import expression, row_reader
from cdcsync.mysql.select import SelectedRows, expressions
from cdcsync.mysql.statements import Plan
from cdcsync.mysql.target import Target
from cdcsync.positions import NAME as POSITIONS
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.mysql.config import MysqlServerConfig, MysqlSink, MysqlSource, ZeroDates
    from cdcsync.mysql.connection import Answer, Connection
    from cdcsync.mysql.target import TargetColumn
    from cdcsync.ports import SinkContext, SourceContext

KEYS_MAX: Final = 300
"""Keys asked for by one statement."""
_SLOW: Final = "SET SESSION net_write_timeout = 3600, SESSION net_read_timeout = 3600, SESSION wait_timeout = 86400"
"""The reader may have to wait for rows that settle."""
_NO_TABLE: Final = frozenset({1146, 1049, 1142})


def source_scanner(config: MysqlSource, context: SourceContext) -> Scanner:
    """Return the scanner of the source; its `end` tells whether a stored position has passed all seen so far."""
    rows = _Rows(config, f"cdcsync {context.pipeline} verify", End.SOURCE, config.database or "", config.zero_dates)
    return Scanner(rows.scan, rows.read, rows.end, rows.close)


def sink_scanner(config: MysqlSink, context: SinkContext) -> Scanner:
    """Return the scanner of the target; its `end` is the position that is committed with its rows."""
    rows = _Rows(config, f"cdcsync {context.pipeline} verify", End.SINK, config.database)
    return Scanner(rows.scan, rows.read, lambda: rows.stored(context.pipeline), rows.close, by_value=rows.kept_by_value)


class _Rows:
    """Two sessions: one gives the rows of a scan while keys are read by the other."""

    def __init__(
        self, config: MysqlServerConfig, purpose: str, end: End, database: str, zero_dates: ZeroDates | None = None
    ) -> None:
        self._config = config
        self._purpose = purpose
        self._end = end
        self._database = database
        self._zero_dates = zero_dates
        """The source's policy; None at a target, which keeps them."""
        self._scanning: Connection | None = None
        self._reading: Connection | None = None
        self._targets: dict[Table, _Reader] = {}

    def scan(self, table: Table) -> Iterator[Row]:
        """All rows of one snapshot in key order; an abandoned iteration ends its session."""
        with self._judged(f"reading {table.qualified}"):
            reader = self._reader(table)
            if self._scanning is None:
                self._scanning = self._connect()
            connection, done = self._scanning, False
            try:
                for answer in connection.each(reader.select + reader.order):
                    yield reader.row(answer)
                done = True
            finally:
                if not done:
                    self._scanning = None
                    connection.abort()

    def read(self, table: Table, keys: Iterable[Row]) -> list[Row]:
        """The rows of these keys, as they are now."""
        rows: list[Row] = []
        left = iter(keys)
        with self._judged(f"reading {table.qualified}"):
            reader = self._reader(table)
            while some := list(islice(left, KEYS_MAX)):
                query = f"{reader.select} WHERE {reader.plan.among(some)}"
                rows += [reader.row(answer) for answer in self._read().execute(query)]
        return rows

    def end(self) -> Callable[[str], bool]:
        """Return what tells whether an encoded position lies past all commits visible until now."""
        with self._judged("reading the end of the log"):
            connection = self._read()
            rows = connection.execute(connection.server.status_query)
        if not rows:
            msg = f"{connection.server.title} writes no binlog"
            raise Fatal(msg, hint="run `cdcsync check` on the pipeline")
        place = file_number(str(rows[0][0])), int(rows[0][1])
        return lambda encoded: _has_passed(MysqlPosition.decode(encoded), place)

    def stored(self, pipeline: str) -> str | None:
        """Return the position stored in this database."""
        query = f"SELECT position FROM {quoted(self._database, POSITIONS)} WHERE pipeline = %s"  # noqa: S608  quoted
        try:
            rows = self._read().execute(query, [pipeline])
        except MysqlError as error:
            if number_of(error) in _NO_TABLE:
                return None
            raise verdict(error, self._end, "reading the stored position") from error
        return rows[0][0] if rows else None

    def kept_by_value(self, table: Table) -> list[str]:
        """Return the names of the columns that keep JSON by its value."""
        with self._judged(f"reading {table.qualified}"):
            return [each.name for each in self._reader(table).columns if each.data_type == "json"]

    def close(self) -> None:
        """Disconnect. Never raises; may be called twice."""
        for connection in (self._scanning, self._reading):
            if connection is not None:
                connection.close()
        self._scanning = self._reading = None

    def _reader(self, table: Table) -> _Reader:
        if table not in self._targets:
            target = Target(self._read(), self._database)
            there = target.there(table)
            if there is None or any(column.name not in there.columns for column in table.columns):
                msg = f"table {target.name(table)} is not there, or lacks a column"
                raise Fatal(msg, hint="run `cdcsync check` on the pipeline")
            plan = Plan(table, target.name(table), there, 1 << 20)
            columns = [there.columns[column.name] for column in table.columns]
            self._targets[table] = _Reader(table, columns, plan, self._zero_dates)
        return self._targets[table]

    def _read(self) -> Connection:
        if self._reading is None:
            self._reading = self._connect()
        return self._reading

    def _connect(self) -> Connection:
        connection = connect(self._config, purpose=self._purpose, end=self._end)
        connection.ask("preparing to read", _SLOW)
        return connection

    @contextmanager
    def _judged(self, doing: str) -> Iterator[None]:
        try:
            yield
        except MysqlError as error:
            raise verdict(error, self._end, doing) from error


class _Reader:
    """How the rows of one table are asked for and read."""

    def __init__(self, table: Table, columns: Sequence[TargetColumn], plan: Plan, zero_dates: ZeroDates | None) -> None:
        self.columns = columns
        self.plan = plan
        self.row: Callable[[Answer], Row]
        if zero_dates is not None:
            self.row = SelectedRows(table, zero_dates).row
            shown = expressions(table)
        else:
            self.row = row_reader(table, columns)
            shown = [expression(quoted(each.name), each) for each in columns]
        self.select = f"SELECT {', '.join(shown)} FROM {plan.name}"  # noqa: S608  quoted
        places = [_order(table, columns[at], at) for at in table.key_at]
        self.order = f" ORDER BY {', '.join(places)}" if places else ""


def _order(table: Table, column: TargetColumn, at: int) -> str:
    """Integers by value, all else by the bytes of its text."""
    name = quoted(column.name)
    if table.columns[at].type.kind is Kind.INTEGER and not column.is_text:
        return name
    if column.collation is None and column.data_type in {"binary", "varbinary"}:
        return name
    if column.is_exact and column.is_text and column.charset == "utf8mb4":
        return name
    return f"CAST(CONVERT(CAST({name} AS CHAR) USING utf8mb4) AS BINARY)"


def _has_passed(position: MysqlPosition, place: tuple[int, int]) -> bool:
    return position.is_copied and position.within is None and (file_number(position.file), position.offset) >= place
