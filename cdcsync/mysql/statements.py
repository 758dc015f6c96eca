"""One table's statements, built by hand: many rows in one, bounded in rows and bytes.

A whole row is INSERT .. ON DUPLICATE KEY UPDATE, which finds the row that is in the way by any unique key. Where another
key than ours could be it, or where ours has a collation to which different texts are equal, the statement sets our key
to NULL unless the row found has it, which the server refuses: so no other row is ever overwritten
(docs/decisions/0016-the-mysql-sink-guards-its-upserts.md). Parts of rows and moved keys are one UPDATE each, several
in a packet, and each has to find its row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cdcsync.mysql.connection import quoted
from cdcsync.mysql.fits import needs_check
from cdcsync.mysql.literals import Parameter, Unfit
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.mysql.target import TargetColumn, TargetTable

ROWS_MAX: Final = 1000
"""Rows or keys in one statement: far below what makes the server's optimizer give up on ranges."""
STATEMENT_MAX: Final = 1 << 20
"""Characters of one statement, unless a single row is longer."""
_NARROW: Final = frozenset({Kind.UUID, Kind.TIMETZ, Kind.INTERVAL, Kind.DECIMAL, Kind.BIT, Kind.INTEGER, Kind.DATE})
"""Kinds whose texts differ by more than case, accents and spaces at the end."""


class Request(NamedTuple):
    """One statement, and whether it has to find a row."""

    sql: str
    finds: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One kind of statement with its parameters; a row is a tuple of their values."""

    plan: Plan
    parameters: Sequence[Parameter]
    head: str
    """Of a statement of many rows; for one row a template with %s for each literal."""
    tail: str = ""
    many: bool = True
    finds: bool = False
    guarded: bool = False
    """An error that a part of the key cannot be null means that another row is in the way."""

    def requests(self, rows: Sequence[Row]) -> Iterator[Request]:
        """Return the statements for these rows. Raises Unfit."""
        for first in range(0, len(rows), ROWS_MAX):
            columns = zip(*rows[first : first + ROWS_MAX], strict=True)
            literals = [p.literals(values) for p, values in zip(self.parameters, columns, strict=True)]
            if self.many:
                texts = [f"({fields})" for fields in map(",".join, zip(*literals, strict=True))]
                for some in self._chunks(texts):
                    yield Request(f"{self.head}{','.join(some)}{self.tail}")
            else:
                for fields in zip(*literals, strict=True):
                    yield Request(self._fit(self.head % fields), self.finds)

    def _chunks(self, texts: list[str]) -> Iterator[list[str]]:
        """Cut the rows into statements of bounded size."""
        size = sum(map(len, texts))
        if size <= STATEMENT_MAX:
            if size * 4 > self.plan.packet_max:
                yield from self._chunks_of_bytes(texts)
            else:
                yield texts
            return
        middle = len(texts) // 2
        if not middle:
            yield [self._fit(texts[0])]
            return
        yield from self._chunks(texts[:middle])
        yield from self._chunks(texts[middle:])

    def _chunks_of_bytes(self, texts: list[str]) -> Iterator[list[str]]:
        if len(texts) == 1:
            yield [self._fit(texts[0])]
        elif sum(map(_bytes_of, texts)) + len(self.head) + len(texts) <= self.plan.packet_max:
            yield texts
        else:
            middle = len(texts) // 2
            yield from self._chunks_of_bytes(texts[:middle])
            yield from self._chunks_of_bytes(texts[middle:])

    def _fit(self, text: str) -> str:
        if len(text) * 4 > self.plan.packet_max and _bytes_of(text) + len(self.head) > self.plan.packet_max:
            msg = f"the row is larger than the target's max_allowed_packet ({self.plan.packet_max} bytes)"
            raise Unfit(msg)
        return text


def _bytes_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


class Plan:
    """All statements of one table version at the target."""

    def __init__(self, table: Table, name: str, there: TargetTable, packet_max: int) -> None:
        self.table = table
        self.name = name
        """Quoted and qualified."""
        self.packet_max = packet_max - 1024
        self._columns = {
            column.name: replace(
                there.columns[column.name], length_checked=needs_check(column.type, there.columns[column.name])
            )
            for column in table.columns
        }
        self.written = tuple(at for at, each in enumerate(table.columns) if not self._columns[each.name].generated)
        """Indexes of the columns that take a value."""
        self.sortable = all(table.columns[at].type.kind is not Kind.ARRAY for at in table.key_at)
        self._loose = frozenset(at for at in table.key_at if self._is_loose(at))
        """Key columns to which the server may think different values equal."""
        self._partial: dict[tuple[int, ...], tuple[Shape, tuple[int, ...]]] = {}
        self._moves: dict[tuple[tuple[int, ...], bool], Shape] = {}
        self._rivals = [
            names for names, whole in there.unique if not whole or not set(table.key) <= set(names)
        ]  # other unique keys, by which an insert may meet another row

    @property
    def guard(self) -> str:
        """The column that the guard sets to NULL; empty when our key alone decides."""
        return self.table.key[0] if self.table.key and (self._loose or self._rivals) else ""

    @cached_property
    def append(self) -> Shape:
        """INSERT without a key."""
        return Shape(self, self._parameters(self.written), self._insert)

    @cached_property
    def upsert(self) -> Shape:
        """INSERT that overwrites the row of the same key, and no other."""
        names = [quoted(self.table.columns[at].name) for at in self.written]
        keys = {quoted(name) for name in self.table.key}
        sets = [f"{name}=VALUES({name})" for name in names if name not in keys]
        if self.guard:
            key = quoted(self.guard)
            same = " AND ".join(self._same_as_new(at) for at in self.table.key_at)
            sets.insert(0, f"{key}=IF({same},{key},NULL)")
        elif not sets:
            sets = [f"{key}={key}" for key in list(keys)[:1]]
        tail = f" ON DUPLICATE KEY UPDATE {','.join(sets)}"
        return Shape(self, self._parameters(self.written), self._insert, tail, guarded=bool(self.guard))

    def partial(self, known: tuple[int, ...]) -> tuple[Shape, tuple[int, ...]]:
        """Return the UPDATE of these columns, and the indexes of what a row of it is made of."""
        found = self._partial.get(known)
        if found is None:
            taken = tuple(at for at in known if at in self.written and at not in self.table.key_at)
            found = self._partial[known] = self._update(taken, finds=True), (*taken, *self._key_values())
        return found

    def move(self, known: tuple[int, ...], *, finds: bool) -> Shape:
        """UPDATE by the old key; a row is the columns' values and then the old key's, as `key_row` gives them."""
        found = self._moves.get((known, finds))
        if found is None:
            found = self._moves[known, finds] = self._update(known, finds=finds)
        return found

    @cached_property
    def delete(self) -> Shape:
        """DELETE; a row is the key, as `key_row` gives it."""
        if len(self.table.key_at) == 1 and not self._loose:
            head = f"DELETE FROM {self.name} WHERE {self._quoted(self.table.key_at[0])} IN ("  # noqa: S608
            return Shape(self, self._parameters(self.table.key_at), head, ")")
        return Shape(self, self._key_parameters(), f"DELETE FROM {_percent(self.name)} WHERE {self._is}", many=False)  # noqa: S608

    def among(self, keys: Sequence[Row]) -> str:
        """Return the condition that a row has one of these keys, each a tuple. Raises Unfit."""
        rows = zip(*[self._flat(key) for key in keys], strict=True)
        literals = [p.literals(values) for p, values in zip(self._key_parameters(), rows, strict=True)]
        return " OR ".join(f"({self._is % fields})" for fields in zip(*literals, strict=True))

    def key_row(self, key: Any) -> Row:
        """Return what a key's conditions take: its values, those of loose columns twice."""
        return self._flat(key if len(self.table.key_at) > 1 else (key,))

    def _flat(self, key: Row) -> Row:
        if not self._loose:
            return tuple(key)
        return tuple(value for at, each in zip(self.table.key_at, key, strict=True) for value in self._twice(at, each))

    def _twice(self, at: int, value: Any) -> tuple[Any, ...]:
        return (value, value) if at in self._loose else (value,)

    def _key_values(self) -> list[int]:
        return [at for key in self.table.key_at for at in self._twice(key, key)]

    def _key_parameters(self) -> list[Parameter]:
        return self._parameters(self._key_values())

    @cached_property
    def _insert(self) -> str:
        names = ",".join(self._quoted(at) for at in self.written)
        return f"INSERT INTO {self.name} ({names}) VALUES "  # noqa: S608

    @cached_property
    def _is(self) -> str:
        """The condition that a row has the key whose literals follow."""
        return " AND ".join(self._same_as_given(at) for at in self.table.key_at)

    def _update(self, columns: Sequence[int], *, finds: bool) -> Shape:
        sets = [f"{_percent(self._quoted(at))}=%s" for at in columns]
        given = {self.table.columns[at].name for at in columns}
        kept = [
            _percent(quoted(each.name)) for each in self._columns.values() if each.on_update and each.name not in given
        ]
        sets += [f"{name}={name}" for name in kept]
        if not sets:
            key = _percent(quoted(self.table.key[0]))
            sets = [f"{key}={key}"]
        head = f"UPDATE {_percent(self.name)} SET {','.join(sets)} WHERE {self._is}"  # noqa: S608
        return Shape(self, [*self._parameters(columns), *self._key_parameters()], head, many=False, finds=finds)

    def _is_loose(self, at: int) -> bool:
        column = self.table.columns[at]
        there = self._columns[column.name]
        if there.is_exact:
            return False
        return column.type.kind not in _NARROW or not str(there.collation).endswith("_bin")

    def _same_as_given(self, at: int) -> str:
        name = _percent(self._quoted(at))
        if at not in self._loose:
            return f"{name}=%s"
        charset = self._columns[self.table.columns[at].name].charset
        return f"{name}=%s AND CAST({name} AS BINARY)=CAST(CONVERT(%s USING {charset}) AS BINARY)"

    def _same_as_new(self, at: int) -> str:
        name = self._quoted(at)
        if at not in self._loose:
            return f"{name}=VALUES({name})"
        return f"CAST({name} AS BINARY)=CAST(VALUES({name}) AS BINARY)"

    def _parameters(self, indexes: Sequence[int]) -> list[Parameter]:
        return [self._parameter(at) for at in indexes]

    def _parameter(self, at: int) -> Parameter:
        column = self.table.columns[at]
        there: TargetColumn = self._columns[column.name]
        return Parameter.of(column.type, there)

    def _quoted(self, at: int) -> str:
        return quoted(self.table.columns[at].name)


def _percent(name: str) -> str:
    """Return a quoted name for a template."""
    return name.replace("%", "%%")
