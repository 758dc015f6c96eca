"""Reads rows of a SQLite target beside the stream, for `verify`."""

from __future__ import annotations

import sqlite3
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from cdcsync.connectors import Scanner
from cdcsync.errors import End
from cdcsync.positions import NAME as POSITIONS
from cdcsync.sql import names, quote
from cdcsync.sqlite.errors import translated
from cdcsync.sqlite.types import decoder, encoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cdcsync.change import Row, Table
    from cdcsync.ports import SinkContext
    from cdcsync.sqlite.config import SqliteConfig

FETCH_ROWS: Final = 1000
KEYS_MAX: Final = 100
"""Keys asked for by one statement, within SQLite's limit of parameters."""


def sink_scanner(config: SqliteConfig, context: SinkContext) -> Scanner:
    """Return the scanner of the target; its `end` is the position that is committed with its rows."""
    rows = _Rows(config)
    return Scanner(rows.scan, rows.read, lambda: rows.stored(context.pipeline), rows.close)


class _Rows:
    """Two read-only connections: a cursor stands on one while keys are read by the other."""

    def __init__(self, config: SqliteConfig) -> None:
        self._config = config
        self._connections: dict[str, sqlite3.Connection] = {}

    def scan(self, table: Table) -> Iterator[Row]:
        """All rows of one snapshot, in key order."""
        query = f"{_select(table)}{f' ORDER BY {names(table.key)}' if table.key else ''}"
        with translated(self._config.path, End.SINK):
            cursor = self._connected("scanning").execute(query)
            while some := cursor.fetchmany(FETCH_ROWS):
                yield from _decoded(table, some)

    def read(self, table: Table, keys: Iterable[Row]) -> list[Row]:
        """The rows of these keys, as they are now."""
        encoders = [encoder(table.columns[index].type) for index in table.key_at]
        marks = f"({', '.join('?' * len(table.key))})"
        rows: list[Row] = []
        left = iter(keys)
        with translated(self._config.path, End.SINK):
            while some := list(islice(left, KEYS_MAX)):
                values = [
                    value if encode is None else encode(value)
                    for key in some
                    for encode, value in zip(encoders, key, strict=True)
                ]
                where = f" WHERE ({names(table.key)}) IN (VALUES {', '.join([marks] * len(some))})"
                rows += _decoded(table, self._connected("reading").execute(_select(table) + where, values).fetchall())
        return rows

    def stored(self, pipeline: str) -> str | None:
        """Return the position stored in this file."""
        with translated(self._config.path, End.SINK):
            row = (
                self._connected("reading")
                .execute(f"SELECT position FROM {quote(POSITIONS)} WHERE pipeline = ?", [pipeline])  # noqa: S608  a constant
                .fetchone()
            )
        return None if row is None else row[0]

    def close(self) -> None:
        """Close the file. Never raises; may be called twice."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _connected(self, purpose: str) -> sqlite3.Connection:
        if purpose not in self._connections:
            address = f"{self._config.path.resolve().as_uri()}?mode=ro"
            self._connections[purpose] = sqlite3.connect(
                address, uri=True, timeout=self._config.busy_timeout_s, isolation_level=None
            )
        return self._connections[purpose]


def _select(table: Table) -> str:
    return f"SELECT {names([column.name for column in table.columns])} FROM {quote(table.name)}"  # noqa: S608  quoted


def _decoded(table: Table, rows: list[tuple[Any, ...]]) -> list[Row]:
    decoders = [
        (index, decode) for index, column in enumerate(table.columns) if (decode := decoder(column.type)) is not None
    ]
    if not decoders:
        return rows
    decoded: list[Row] = []
    for row in rows:
        values = list(row)
        for index, decode in decoders:
            if values[index] is not None:
                values[index] = decode(values[index])
        decoded.append(tuple(values))
    return decoded
