"""What sinks that speak SQL share: quoting, statements of a table, and whether a table there fits the one wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdcsync.errors import ExitStatus, Fatal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Column, Table
    from cdcsync.types import Type


def quote(name: str) -> str:
    """Return an identifier in double quotes, whatever it holds. Raises Fatal for a NUL, which no name may hold."""
    if "\0" in name or not name:
        msg = f"a name is empty or holds a NUL character: {name!r}"
        raise Fatal(msg, hint="give the column or table another name with `rename` or `to`", status=ExitStatus.CONFIG)
    return '"' + name.replace('"', '""') + '"'


def quoted(table: Table) -> str:
    """Return the qualified name of a table, quoted part by part."""
    return f"{quote(table.schema)}.{quote(table.name)}" if table.schema else quote(table.name)


def create_table(table: Table, declare: Callable[[Type], str], *, name: str, suffix: str = "") -> str:
    """Return the statement that creates a table of that quoted name: columns, NOT NULL, primary key."""
    lines = [
        f"{quote(column.name)} {declare(column.type)}{_not_null(table, column)}".rstrip() for column in table.columns
    ]
    if table.key:
        lines.append(f"PRIMARY KEY ({names(table.key)})")
    body = ",\n  ".join(lines)
    return f"CREATE TABLE {name} (\n  {body}\n){suffix}"


def _not_null(table: Table, column: Column) -> str:
    return " NOT NULL" if column.name in table.key or not column.nullable else ""


def names(columns: Sequence[str]) -> str:
    """Return quoted names with commas between."""
    return ", ".join(quote(column) for column in columns)


@dataclass(frozen=True, slots=True)
class Shape:
    """The statements of one table, for a driver that numbers nothing (`?`, `%s`)."""

    name: str
    """The quoted, qualified name."""
    table: Table
    placeholder: str

    def insert(self) -> str:
        """Return INSERT with all columns in order."""
        marks = ", ".join([self.placeholder] * len(self.table.columns))
        return f"INSERT INTO {self.name} ({names([each.name for each in self.table.columns])}) VALUES ({marks})"  # noqa: S608

    def upsert(self) -> str:
        """Return INSERT that overwrites the row of the same key; all columns in order."""
        others = [each.name for each in self.table.columns if each.name not in self.table.key]
        conflict = f" ON CONFLICT ({names(self.table.key)}) DO "
        if not others:
            return self.insert() + conflict + "NOTHING"
        return self.insert() + conflict + "UPDATE SET " + ", ".join(f"{quote(n)} = excluded.{quote(n)}" for n in others)

    def update(self, columns: Sequence[str]) -> str:
        """Return UPDATE of these columns, then the key values that find the row."""
        changed = ", ".join(f"{quote(column)} = {self.placeholder}" for column in columns)
        return f"UPDATE {self.name} SET {changed} WHERE {self.key_is()}"  # noqa: S608

    def delete(self) -> str:
        """Return DELETE by key."""
        return f"DELETE FROM {self.name} WHERE {self.key_is()}"  # noqa: S608

    def select(self) -> str:
        """Return SELECT of all columns in order, by key."""
        return f"SELECT {names([each.name for each in self.table.columns])} FROM {self.name} WHERE {self.key_is()}"  # noqa: S608

    def key_is(self) -> str:
        """Return the condition that finds one row."""
        return " AND ".join(f"{quote(column)} = {self.placeholder}" for column in self.table.key)


@dataclass(frozen=True, slots=True)
class ColumnThere:
    """One column as the target has it."""

    name: str
    declared: str
    """Its type in the target's own words."""
    nullable: bool = True
    defaulted: bool = False
    """It has a value when none is given: a default, an identity, or it is computed."""
    computed: bool = False
    """It takes no value."""


@dataclass(frozen=True, slots=True)
class TableThere:
    """One table as the target has it."""

    columns: Mapping[str, ColumnThere]
    keys: Sequence[Sequence[str]] = field(default=())
    """The column names of its primary key and of every unique constraint over columns that are not null."""


def misfits(table: Table, there: TableThere, fits: Callable[[Type, ColumnThere], str | None]) -> list[str]:
    """Return all that keeps the mapped rows out of that table, a line each; `fits` says why a column does not."""
    found: list[str] = []
    for column in table.columns:
        stands = there.columns.get(column.name)
        if stands is None:
            found.append(f"column {column.name} is missing")
        elif stands.computed:
            found.append(f"column {column.name} is computed by the target and takes no value")
        else:
            reason = fits(column.type, stands)
            if reason:
                found.append(f"column {column.name}: {reason}")
            if column.nullable and column.name not in table.key and not stands.nullable:
                found.append(f"column {column.name} may be null at the source and is NOT NULL at the target")
    found += [
        f"column {name} is NOT NULL without a default and no mapped column fills it"
        for name, stands in there.columns.items()
        if name not in table.at and not stands.nullable and not stands.defaulted
    ]
    if table.key and set(table.key) not in [set(key) for key in there.keys]:
        found.append(f"no primary key or unique constraint over ({', '.join(table.key)})")
    return found


def refuse(found: Mapping[str, Sequence[str]]) -> None:
    """Raise Fatal naming every misfit of every table; return when there are none."""
    lines = [f"target table {table}: {misfit}" for table, each in found.items() for misfit in each]
    if lines:
        raise Fatal(
            "\n".join(lines),
            hint="alter the target table, map to another one with `to`, or drop it and let it be created",
            status=ExitStatus.CONFIG,
        )
