"""A change as the SQL that does it again at its source, or undoes it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cdcsync.change import UNCHANGED, Change, Operation, SchemaChange
from cdcsync.errors import Fatal
from cdcsync.lines import commit_time, encode_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cdcsync.change import Item, Row, Table, Transaction, Value
    from cdcsync.types import Type


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a system's SQL names things and writes values so that its server reads them back exactly."""

    quote: Callable[[str], str]
    """An identifier, whatever it holds."""
    literal: Callable[[Type, Value], str]
    """A value that is neither None nor UNCHANGED."""
    same: Callable[[Type, str, str | None], str]
    """The condition that a quoted column has that literal (None: NULL); for tables without a key."""
    single: Callable[[str, str], str]
    """What finds exactly one of the equal rows of a table, by a condition: all that comes after WHERE."""
    remedy: str
    """What makes the log carry whole rows; `{table}` is the quoted name."""
    head: Sequence[str] = ()
    """Lines that a script begins with."""
    insert: str = "INSERT INTO {table} ({columns}) VALUES ({values})"
    empty: str = "INSERT INTO {table} DEFAULT VALUES"
    """Of a row in which every column is computed."""
    set_by_server: Callable[[Type], bool] = lambda _kind: False
    """Whether a column of that type may be one that an update sets by itself where it does not name it."""
    exactly: Callable[[Any], Any] = lambda config: config
    """The source's section, by which every value is read as it was logged."""
    begin: str = "BEGIN;"
    commit: str = "COMMIT;"


class Written(NamedTuple):
    """One change as SQL."""

    text: str
    """A statement, or a comment where there is none."""
    lacking: bool = False
    """The log lacks what a statement would need."""


NOTHING: Final = Written("")


class Statements:
    """Writes the changes of one source. Not for several threads at once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._names: dict[Table, tuple[str, tuple[str, ...]]] = {}

    def redo(self, item: Item) -> Written:
        """Return the statement that does it again; empty when it is nothing that SQL does."""
        if not isinstance(item, Change):
            return _schema(item) if isinstance(item, SchemaChange) else NOTHING
        table, operation, before, after = item
        if operation is Operation.TRUNCATE:
            return Written(f"TRUNCATE TABLE {self._name(table)};")
        if after is None:
            return self._delete(item, before or ())
        if before is None:
            return self._insert(item, after)
        return self._update(item, before, after, self._changed(table, before, after))

    def undo(self, item: Item) -> Written:
        """Return the statement that undoes it; a comment where the log lacks what it would need."""
        if not isinstance(item, Change):
            return _schema(item)._replace(lacking=True) if isinstance(item, SchemaChange) else NOTHING
        table, operation, before, after = item
        if operation is Operation.TRUNCATE:
            return self._lacking(item, None, "the log has no rows of a TRUNCATE")
        if after is None:
            return self._insert(item, before or ())
        if before is None:
            return self._delete(item, after)
        changed = self._changed(table, after, before)
        lacks = [at for at in self._settable(table) if before[at] is UNCHANGED and after[at] is not UNCHANGED]
        if lacks:
            return self._lacks(item, after, lacks)
        return self._update(item, after, before, changed)

    def _changed(self, table: Table, old: Row, new: Row) -> list[int]:
        """Return the columns that an update from `old` to `new` has to set; what was not logged may have changed."""
        return [
            at
            for at in self._settable(table)
            if new[at] is not UNCHANGED and (old[at] is UNCHANGED or not _alike(old[at], new[at]))
        ]

    def _settable(self, table: Table) -> list[int]:
        return [at for at, column in enumerate(table.columns) if not column.generated]

    def _insert(self, item: Change, row: Row) -> Written:
        table = item.table
        taken = self._settable(table)
        lacks = [at for at in taken if row[at] is UNCHANGED]
        if lacks:
            return self._lacks(item, row, lacks)
        if not taken:
            return Written(self._dialect.empty.format(table=self._name(table)) + ";")
        columns = ", ".join(self._column(table, at) for at in taken)
        values = ", ".join(self._value(table, at, row[at]) for at in taken)
        form = self._dialect.insert
        return Written(form.format(table=self._name(table), columns=columns, values=values) + ";")

    def _delete(self, item: Change, row: Row) -> Written:
        condition = self._condition(item.table, row)
        if condition is None:
            return self._lacks(item, row, [at for at, value in enumerate(row) if value is UNCHANGED])
        return Written(f"DELETE FROM {self._name(item.table)} WHERE {condition};")  # noqa: S608  quoted by the dialect

    def _update(self, item: Change, old: Row, new: Row, changed: list[int]) -> Written:
        table = item.table
        condition = self._condition(table, old)
        if condition is None:
            return self._lacks(item, old, [at for at, value in enumerate(old) if value is UNCHANGED])
        if not changed:
            return NOTHING
        sets = ", ".join(
            f"{self._column(table, at)} = {self._set_to(table, at, old, new)}"
            for at in self._settable(table)
            if at in changed or self._dialect.set_by_server(table.columns[at].type)
        )
        return Written(f"UPDATE {self._name(table)} SET {sets} WHERE {condition};")  # noqa: S608  quoted by the dialect

    def _set_to(self, table: Table, at: int, old: Row, new: Row) -> str:
        """Return the value that a column gets; its own where the log has neither."""
        value = old[at] if new[at] is UNCHANGED else new[at]
        return self._column(table, at) if value is UNCHANGED else self._value(table, at, value)

    def _condition(self, table: Table, row: Row) -> str | None:
        """Return what finds this row, by its key or else by all its columns; None when the log lacks them."""
        named = table.key_at or range(len(table.columns))
        if any(row[at] is UNCHANGED for at in named):
            return None
        if table.key:
            return " AND ".join(f"{self._column(table, at)} = {self._value(table, at, row[at])}" for at in named)
        parts = [
            self._dialect.same(
                table.columns[at].type,
                self._column(table, at),
                None if row[at] is None else self._value(table, at, row[at]),
            )
            for at in named
        ]
        return self._dialect.single(self._name(table), " AND ".join(parts))

    def _lacks(self, item: Change, row: Row, columns: Iterable[int]) -> Written:
        names = ", ".join(item.table.columns[at].name for at in columns)
        remedy = self._dialect.remedy.format(table=self._name(item.table))
        return self._lacking(item, row, f"the log lacks {names}; from now on it has them after {remedy}")

    def _lacking(self, item: Change, row: Row | None, why: str) -> Written:
        key = encode_key(item.table, row) if row is not None else None
        what = f"{item.operation.value} of {item.table.qualified}" + (f" {key}" if key else "")
        return Written(comment(f"LACKING: {what}: {why}"), lacking=True)

    def _value(self, table: Table, at: int, value: Value) -> str:
        return "NULL" if value is None else self._dialect.literal(table.columns[at].type, value)

    def _name(self, table: Table) -> str:
        return self._known(table)[0]

    def _column(self, table: Table, at: int) -> str:
        return self._known(table)[1][at]

    def _known(self, table: Table) -> tuple[str, tuple[str, ...]]:
        known = self._names.get(table)
        if known is None:
            quote = self._dialect.quote
            name = f"{quote(table.schema)}.{quote(table.name)}" if table.schema else quote(table.name)
            known = self._names[table] = (name, tuple(quote(column.name) for column in table.columns))
        return known


class Script:
    """Transactions as one SQL script, part by part as they come."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._statements = Statements(dialect)
        self._open = False
        """A transaction has begun and not ended."""
        self.lacking = 0
        """Changes of which the log lacks what their statement would need."""

    def head(self) -> str:
        """Return what the script begins with."""
        return "".join(f"{line}\n" for line in self._dialect.head)

    def redone(self, part: Transaction) -> Iterator[str]:
        """Yield the lines that do a transaction, or a part of a large one, again."""
        if not self._open:
            yield f"{_title(part)}\n{self._dialect.begin}\n"
        self._open = not part.last
        yield from self._lines(map(self._statements.redo, part.items))
        if part.last:
            yield f"{self._dialect.commit}\n"

    def undone(self, part: Transaction) -> Iterator[str]:
        """Yield the same in the order of the log; read backwards, from the last line to the first, they undo it."""
        if not self._open:
            yield f"{self._dialect.commit}\n"
        self._open = not part.last
        yield from self._lines(map(self._statements.undo, part.items))
        if part.last:
            yield f"{_title(part)}\n{self._dialect.begin}\n"

    def refuse_lacking(self) -> None:
        """Raise Fatal when the script lacks statements."""
        if self.lacking:
            msg = f"the script is not whole: {self.lacking} change(s) have no statement, see its lines with LACKING"
            raise Fatal(msg, hint="mend those rows by hand")

    def _lines(self, written: Iterable[Written]) -> Iterator[str]:
        for each in written:
            self.lacking += each.lacking
            if each.text:
                yield f"{each.text}\n"


def comment(text: str) -> str:
    """Return a comment of one line, whatever the text holds."""
    return "-- " + "".join(character if character.isprintable() else " " for character in text)


def _title(part: Transaction) -> str:
    return comment(f"transaction {part.id}, committed {commit_time(part.commit_time_us)}")


def _schema(item: SchemaChange) -> Written:
    table = item.new or item.old
    name = table.qualified if table else "a table"
    said = f": {item.statement}" if item.statement else ""
    return Written(comment(f"here the columns of {name} change{said}"))


def _alike(one: Value, other: Value) -> bool:
    """Return whether two values are the same to the byte: 0.0 is not -0.0, and NaN is itself."""
    if isinstance(one, float | tuple):
        return repr(one) == repr(other)
    return type(one) is type(other) and bool(one == other)
