"""The first copy: exactly what the publication shows, read by COPY from the snapshot that the slot exported."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg
from psycopg import sql

from cdcsync.change import Change, Operation
from cdcsync.errors import End
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.types import decoder
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cdcsync.change import Row, Table, Value
    from cdcsync.postgres.connection import Connection
    from cdcsync.postgres.publication import Published

CHANGES_MAX: Final = 2_000
SIZE_BYTES_MAX: Final = 4 << 20

_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
"""What COPY writes in text format (manual, COPY, "Text Format"); any other character stands for itself."""


class Chunk(NamedTuple):
    """Some rows of one table, in no order."""

    table: Table
    changes: list[Change]
    size_bytes: int


class Copy:
    """Reads tables from an exported snapshot on a connection of its own, in one transaction.

    Memory holds one chunk. Values are those that the log would carry, decoded by the same decoders.
    """

    def __init__(self, connection: Connection, snapshot: str) -> None:
        """Enter the snapshot, so that the one who exported it may go on. Raises Transient and Fatal."""
        self._connection = connection
        try:
            connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
        except psycopg.Error as error:
            raise verdict(error, End.SOURCE, "entering the slot's snapshot") from error

    def read(self, published: Published, table: Table) -> Iterator[Chunk]:
        """Give the table's rows as READ changes. `table` is `published` as the log shows it."""
        decode = row_decoder(table)
        changes: list[Change] = []
        size_bytes = 0
        try:
            with self._connection.cursor() as cursor, cursor.copy(statement(published)) as rows:
                for raw in rows:
                    data = bytes(raw)
                    changes.append(Change(table, Operation.READ, None, decode(data)))
                    size_bytes += len(data)
                    if len(changes) >= CHANGES_MAX or size_bytes >= SIZE_BYTES_MAX:
                        yield Chunk(table, changes, size_bytes)
                        changes, size_bytes = [], 0
        except psycopg.Error as error:
            raise verdict(error, End.SOURCE, f"copying table {table.qualified}") from error
        if changes:
            yield Chunk(table, changes, size_bytes)

    def close(self) -> None:
        """Disconnect, in the middle of a table too. Never raises."""
        self._connection.close()


def statement(published: Published) -> sql.Composed:
    """Return the COPY of the publication's columns and rows."""
    only = sql.SQL("ONLY ") if published.info.kind == "r" else sql.SQL("")
    text = published.row_filter
    where = sql.SQL("") if text is None else sql.SQL(" WHERE {}").format(filter_of(text))
    return sql.SQL("COPY (SELECT {} FROM {}{}{}) TO STDOUT").format(
        columns_of(published), only, published.info.identifier, where
    )


def columns_of(published: Published) -> sql.Composed:
    """Return the publication's columns."""
    return sql.SQL(", ").join([sql.Identifier(column.name) for column in published.columns])


def filter_of(text: str, *, bare: bool = False) -> sql.Composable:
    """Return SQL that the server has written, or the operator, as it is.

    A row filter is the server's own text of it, read from pg_publication_tables under the same search_path.
    """
    return _Verbatim(text if bare else f"({text})")


class _Verbatim(sql.Composable):
    """SQL as it stands."""

    def as_bytes(self, context: object = None) -> bytes:  # noqa: ARG002  psycopg's signature
        return str(self._obj).encode()


def row_decoder(table: Table) -> Callable[[bytes], Row]:
    """Return what turns a line of COPY's text format, with its newline, into a row."""
    plans: Sequence[tuple[int, Callable[[bytes], Value]]] = [
        (index, decoder(column.type)) for index, column in enumerate(table.columns)
    ]
    if not plans:
        return lambda _line: ()
    texts = all(column.type.kind is Kind.TEXT for column in table.columns)

    def decode(line: bytes) -> Row:
        if b"\\" not in line:
            if texts:
                return tuple(line[:-1].decode().split("\t"))
            fields = line[:-1].split(b"\t")
            return tuple([read(fields[index]) for index, read in plans])
        escaped = line[:-1].split(b"\t")
        return tuple([None if (raw := escaped[index]) == rb"\N" else read(unescape(raw)) for index, read in plans])

    return decode


def unescape(field: bytes) -> bytes:
    """Undo COPY's backslashes."""
    if b"\\" not in field:
        return field
    return _ESCAPE.sub(_plain, field)


def _plain(matched: re.Match[bytes]) -> bytes:
    return _ESCAPED.get(matched[1], matched[1])
