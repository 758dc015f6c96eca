"""One table's prepared statements and what turns its rows into their parameters.

Every statement takes arrays, one per column, and unnests them: one statement per kind of effect, whatever the number
of rows, in the same round trip as the position. It was measured against COPY into a temporary table and against one
statement per row: at least as fast as both from five rows on (docs/decisions/0005-the-postgres-sink-writes-arrays.md). Columns are encoded column by column,
so that the loops run in C.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from cdcsync.postgres.text import is_plain, write_date
from cdcsync.postgres.types import encoder
from cdcsync.postgres.wire import Request, Statement
from cdcsync.sql import quote
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.postgres.target import TargetColumn

ROWS_MAX: Final = 5000
"""Rows in one statement or one block of COPY."""
_BARE: Final = frozenset({Kind.INTEGER, Kind.FLOAT, Kind.BOOLEAN, Kind.DECIMAL, Kind.UUID})
"""Kinds whose text needs no quotes in an array."""


class Unfit(Exception):  # noqa: N818  told to the writer, which finds the row
    """A value that PostgreSQL cannot take as text."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """How one column's values travel."""

    name: str
    """For messages."""
    array: str
    """The type of the parameter."""
    cast: str
    """What the unnested text is cast to; empty when it has its type already."""
    encode: Callable[[Any], str] | None
    """None where values are their own text."""
    quoted: bool

    @classmethod
    def of(cls, table: Table, index: int, column: TargetColumn) -> Parameter:
        """Return the parameter for one column of the mapped table."""
        kind = table.columns[index].type.kind
        encode: Callable[[Any], str] | None = encoder(table.columns[index].type)
        if encode is str and kind is not Kind.INTEGER:
            encode = None
        array = "text[]" if column.whole else f"{column.bare}[]"
        quoted = column.whole or kind not in _BARE
        return cls(column.name, array, column.bare if column.whole else "", encode, quoted)

    def texts(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return the text of each value."""
        encode = self.encode
        if encode is None:
            return values
        if None in values:
            return [None if value is None else encode(value) for value in values]
        if encode is write_date and is_plain(values):
            return values
        return list(map(encode, values))

    def literal(self, values: Sequence[Any]) -> bytes:
        """Return the array of these values. Raises Unfit."""
        texts = self.texts(values)
        if None in texts:
            quote_one = _quoted if self.quoted else str
            body = ",".join(["NULL" if text is None else quote_one(text) for text in texts])
        elif not self.quoted:
            body = ",".join(texts)
        else:
            body = '"' + '","'.join(texts) + '"'
            if "\\" in body or body.count('"') != 2 * len(texts):
                body = ",".join(map(_quoted, texts))
        return b"{" + fit(body, self.name) + b"}"

    def copied(self, values: Sequence[Any]) -> Sequence[str]:
        """Return the fields of COPY's text format."""
        texts = self.texts(values)
        if None in texts:
            return ["\\N" if text is None else _escaped(text) for text in texts]
        if not self.quoted:
            return texts
        body = "".join(texts)
        if "\\" in body or "\n" in body or "\t" in body or "\r" in body:
            return list(map(_escaped, texts))
        return texts


def fit(text: str, name: str) -> bytes:
    """Return UTF-8. Raises Unfit for what no PostgreSQL text holds."""
    if "\0" in text:
        msg = f"column {name} holds a NUL character, which no PostgreSQL text can"
        raise Unfit(msg)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        msg = f"column {name} holds half of a surrogate pair, which is no valid text"
        raise Unfit(msg) from error


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One statement with its parameters; a row is a tuple of their values."""

    statement: Statement
    parameters: Sequence[Parameter]
    otherwise: Shape | None = None
    """What to run with the same rows when this one did not find all of them."""
    finds_all: bool = False
    """It fails (division by zero) when a row is not there."""

    def requests(self, rows: Sequence[Row]) -> Iterator[Request]:
        """Return the executions for these rows. Raises Unfit."""
        for first in range(0, len(rows), ROWS_MAX):
            columns = zip(*rows[first : first + ROWS_MAX], strict=True)
            literals = [p.literal(values) for p, values in zip(self.parameters, columns, strict=True)]
            yield Request(self.statement, literals)


class Plan:
    """All statements of one table version at the target."""

    def __init__(self, table: Table, name: str, columns: dict[str, TargetColumn], oid: int) -> None:
        self.table = table
        self.name = name
        """Quoted and qualified."""
        self.oid = oid
        self._columns = columns
        self.written = tuple(at for at, each in enumerate(table.columns) if not columns[each.name].generated)
        """Indexes of the columns that take a value."""
        self.sortable = all(table.columns[at].type.kind is not Kind.ARRAY for at in table.key_at)
        self._partial: dict[tuple[int, ...], Shape] = {}
        self._moves: dict[tuple[int, ...], Shape] = {}
        self.copies = True
        """Whether COPY straight into the table is worth trying."""

    @cached_property
    def copy_sql(self) -> bytes:
        """COPY straight into the table."""
        names = ", ".join(quote(self.table.columns[at].name) for at in self.written)
        return f"COPY {self.name} ({names}) FROM STDIN".encode()

    def copy_blocks(self, rows: Sequence[Row]) -> Iterator[bytes]:
        """Return rows of the written columns in COPY's text format. Raises Unfit."""
        parameters = [self._parameter(at) for at in self.written]
        for first in range(0, len(rows), ROWS_MAX):
            columns = zip(*rows[first : first + ROWS_MAX], strict=True)
            fields = [each.copied(values) for each, values in zip(parameters, columns, strict=True)]
            yield fit("\n".join(map("\t".join, zip(*fields, strict=True))) + "\n", "of the row")

    @cached_property
    def append(self) -> Shape:
        """INSERT without a key."""
        return self._insert("")

    @cached_property
    def upsert(self) -> Shape:
        """INSERT that overwrites the row of the same key."""
        table = self.table
        sets = ", ".join(
            f"{quote(name)} = excluded.{quote(name)}" for name in self._settable(self.written) if name not in table.key
        )
        keys = ", ".join(map(quote, table.key))
        return self._insert(f" ON CONFLICT ({keys}) DO " + (f"UPDATE SET {sets}" if sets else "NOTHING"))

    @cached_property
    def update(self) -> Shape:
        """UPDATE of whole rows; where one is missing, the upsert."""
        if not [name for name in self._settable(self.written) if name not in self.table.key]:
            return self.upsert
        return self._update(self.written, self.upsert)

    def partial(self, known: tuple[int, ...]) -> tuple[Shape, tuple[int, ...]]:
        """Return the UPDATE of these columns, and those of them that it takes."""
        taken = tuple(at for at in known if at in self.written)
        if known not in self._partial:
            self._partial[known] = self._update(taken, None)
        return self._partial[known], taken

    @cached_property
    def delete(self) -> Shape:
        """DELETE; a row is the key."""
        parameters = [self._parameter(at) for at in self.table.key_at]
        sql = f"DELETE FROM {self.name} AS t USING {_unnest(parameters)} WHERE {self._same(range(len(parameters)))}"  # noqa: S608
        return Shape(Statement(sql.encode()), parameters)

    def move(self, known: tuple[int, ...], *, finds_all: bool) -> Shape:
        """UPDATE by the old key; a row is the old key's values and then the columns'."""
        signature = (*known, -int(finds_all) - 1)
        if signature not in self._moves:
            parameters = [self._parameter(at) for at in (*self.table.key_at, *known)]
            width = len(self.table.key_at)
            self._moves[signature] = self._updating(parameters, known, width, range(width), None, finds_all=finds_all)
        return self._moves[signature]

    def _update(self, known: tuple[int, ...], otherwise: Shape | None) -> Shape:
        parameters = [self._parameter(at) for at in known]
        places = [known.index(at) for at in self.table.key_at]
        return self._updating(parameters, known, 0, places, otherwise, finds_all=True)

    def _updating(
        self,
        parameters: list[Parameter],
        known: tuple[int, ...],
        offset: int,
        places: Sequence[int],
        otherwise: Shape | None,
        *,
        finds_all: bool,
    ) -> Shape:
        moves = offset > 0
        names = self._settable(known)
        sets = [
            f"{quote(self.table.columns[at].name)} = {_value(parameters[offset + i], offset + i)}"
            for i, at in enumerate(known)
            if self.table.columns[at].name in names and (moves or at not in self.table.key_at)
        ]
        if not sets:
            at = self.table.key_at[0]
            sets = [f"{quote(self.table.columns[at].name)} = t.{quote(self.table.columns[at].name)}"]
        sql = f"UPDATE {self.name} AS t SET {', '.join(sets)} FROM {_unnest(parameters)} WHERE {self._same(places)}"  # noqa: S608
        if finds_all:
            sql = f"WITH u AS ({sql} RETURNING 1) SELECT 1 / (count(*) >= cardinality($1))::int FROM u"  # noqa: S608
        return Shape(Statement(sql.encode()), parameters, otherwise, finds_all)

    def _insert(self, conflict: str) -> Shape:
        parameters = [self._parameter(at) for at in self.written]
        names = ", ".join(quote(each.name) for each in parameters)
        values = ", ".join(_value(each, at) for at, each in enumerate(parameters))
        override = " OVERRIDING SYSTEM VALUE" if any(self._columns[p.name].always for p in parameters) else ""
        sql = f"INSERT INTO {self.name} ({names}){override} SELECT {values} FROM {_unnest(parameters)}{conflict}"  # noqa: S608
        return Shape(Statement(sql.encode()), parameters)

    def _settable(self, known: Sequence[int]) -> list[str]:
        names = [self.table.columns[at].name for at in known]
        return [name for name in names if not self._columns[name].always]

    def _parameter(self, at: int) -> Parameter:
        return Parameter.of(self.table, at, self._columns[self.table.columns[at].name])

    def _same(self, places: Sequence[int]) -> str:
        """Return the condition that a row is the one whose key stands at these places of the parameters."""
        parameters = [self._parameter(at) for at in self.table.key_at]
        return " AND ".join(
            f"t.{quote(each.name)} = {_value(each, place)}" for each, place in zip(parameters, places, strict=True)
        )


def _unnest(parameters: Sequence[Parameter]) -> str:
    arrays = ", ".join(f"${at + 1}::{each.array}" for at, each in enumerate(parameters))
    return f"unnest({arrays}) AS s({', '.join(f'c{at}' for at in range(len(parameters)))})"


def _value(parameter: Parameter, at: int) -> str:
    return f"s.c{at}::{parameter.cast}" if parameter.cast else f"s.c{at}"
