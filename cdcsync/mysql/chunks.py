"""How a MySQL table is cut into chunks: ranges of its primary key, in the order of the database's own collation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cdcsync.errors import End, Transient
from cdcsync.mysql import catalogue
from cdcsync.mysql.connection import quoted
from cdcsync.mysql.select import expressions
from cdcsync.ports import Wanted
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Table
    from cdcsync.mysql.connection import Connection
    from cdcsync.pending import Key
    from cdcsync.ports import Selection
    from cdcsync.snapshot import Chunk

_BY_NUMBER: Final = frozenset({Kind.ENUM, Kind.SET, Kind.BIT})
"""Their index is in the order of a number, which a comparison with text is not."""
_ROWS: Final = "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"


@dataclass(frozen=True, slots=True)
class Part:
    """One table as its chunks are read."""

    table: Table
    """As the log shows it."""
    rows: int
    """The server's estimate."""

    @property
    def by(self) -> tuple[str, ...]:
        """The key's columns."""
        return self.table.key

    def check(self, connection: Connection) -> None:
        """Raise Transient when the table's columns or its key are others now."""
        check(connection, self.table)

    def cut(self, connection: Connection, chunk: Chunk) -> Key | None:
        """Return the last key of a chunk, None when it goes on to the end. Raises what PyMySQL raises."""
        shown = ", ".join(self._ordered(name) for name in self.by)
        where, values = self._within(chunk.after, None)
        order = ", ".join(_plain(quoted(name)) for name in self.by)
        limit = f"LIMIT {chunk.rows_max - 1}, 1"
        """Counted from the chunk's begin, so that what is passed over is what is read next."""
        query = f"SELECT {shown} FROM {self._name}{where} ORDER BY {order} {limit}"  # noqa: S608  quoted
        rows = connection.execute(query, values)
        return tuple(map(_written, rows[0])) if rows else None

    def begin(self, connection: Connection, chunk: Chunk, last: Key | None) -> None:
        """Ask for the rows of a chunk. Raises what PyMySQL raises."""
        where, values = self._within(chunk.after, last)
        if chunk.pending.where:
            wanted = f"({_plain(chunk.pending.where)})"
            where = f"{where} AND {wanted}" if where else f" WHERE {wanted}"
        shown = _plain(", ".join(expressions(self.table)))
        connection.begin(f"SELECT {shown} FROM {self._name}{where}", values)  # noqa: S608  quoted

    @property
    def _name(self) -> str:
        return _plain(quoted(self.table.schema, self.table.name))

    def _ordered(self, name: str) -> str:
        """Return a key's column as something whose order is that of the index, and that can be written exactly."""
        kind = self.table.columns[self.table.at[name]].type
        shown = _plain(quoted(name))
        if kind.kind in _BY_NUMBER:
            return f"{shown} + 0"
        return f"{shown} * 1e0" if kind.kind is Kind.FLOAT else shown

    def _within(self, after: Key | None, last: Key | None) -> tuple[str, list[object]]:
        """Return the condition of a range, spelled out: a comparison of row values would not use the index."""
        conditions: list[str] = []
        values: list[object] = []
        for sign, bound in ((">", after), ("<", last)):
            if bound is not None:
                condition, more = self._beyond(sign, [_read(each) for each in bound], or_equal=sign == "<")
                conditions.append(condition)
                values += more
        return (" WHERE " + " AND ".join(conditions) if conditions else ""), values

    def _beyond(self, sign: str, bound: Sequence[object], *, or_equal: bool) -> tuple[str, list[object]]:
        names = list(self.by)
        parts: list[str] = []
        values: list[object] = []
        for index, name in enumerate(names):
            final = f"{sign}=" if or_equal and index == len(names) - 1 else sign
            equal = [f"{self._ordered(each)} = {self._place(each)}" for each in names[:index]]
            parts.append(" AND ".join([*equal, f"{self._ordered(name)} {final} {self._place(name)}"]))
            values += bound[: index + 1]
        first = f"{self._ordered(names[0])} {sign}= {self._place(names[0])}"
        return f"{first} AND ({' OR '.join(f'({part})' for part in parts)})", [bound[0], *values]

    def _place(self, name: str) -> str:
        kind = self.table.columns[self.table.at[name]].type
        if kind.kind is Kind.DECIMAL:
            return f"CAST(%s AS DECIMAL({kind.precision or 65}, {kind.scale or 0}))"
        return "%s"


def plans(connection: Connection, selection: Selection) -> tuple[dict[str, Part], list[Table]]:
    """Return how each table of the mapping is read by its key, by its name, and the tables that cannot be.

    These have no key, or their rows are appended and cannot be told apart from those of the log.
    """
    found: dict[str, Part] = {}
    bare = []
    for table in catalogue.tables(connection, selection):
        if table.key and selection.wants(table.schema, table.name) is not Wanted.APPENDED:
            rows = connection.ask(f"looking at {table.qualified}", _ROWS, [table.schema, table.name])
            found[table.qualified] = Part(table, int(rows[0][0] or 0) if rows else 0)
        else:
            bare.append(table)
    return found, bare


def check(connection: Connection, table: Table) -> None:
    """Raise Transient when the table's columns or its key are others now."""
    if catalogue.table(connection, table.schema, table.name) != table:
        raise altered(table.qualified)


def altered(table: str) -> Transient:
    """Return what to raise when a table is not as it was when its reading was planned."""
    return Transient(End.SOURCE, f"table {table} was altered while it was copied: what is left of it is planned anew")


def _plain(text: str) -> str:
    """Return SQL whose percent signs stand for themselves beside values."""
    return text.replace("%", "%%")


def _written(value: object) -> str:
    """Return a key's value as text that says what it was."""
    if isinstance(value, bytes):
        return f"x{value.hex()}"
    return f"i{value}" if isinstance(value, int) else f"f{value!r}" if isinstance(value, float) else f"s{value}"


def _read(text: str) -> object:
    kind, value = text[0], text[1:]
    if kind == "x":
        return bytes.fromhex(value)
    return int(value) if kind == "i" else float(value) if kind == "f" else value
