"""The layouts of one topic's tables: by the messages' schema, by the file's declaration, or columns of text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdcsync.change import Column, SchemaChange, Table
from cdcsync.kafka.decoding.columns import TEXT, How, Layout, text_of
from cdcsync.kafka.decoding.connect import layout_declared, layout_of
from cdcsync.kafka.decoding.records import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdcsync.change import Value

LAYOUTS_MAX = 4096
"""Remembered; a topic whose messages are all of different columns is no table."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A table's structure as the pipeline's file declares it."""

    columns: Mapping[str, str]
    """Type by name; empty: by the messages."""
    key: tuple[str, ...] | None = None
    """None: by the records' keys."""


@dataclass(slots=True)
class Layouts:
    """Finds the layout of a message, the same object for the same structure."""

    declared: Mapping[str, Declared]
    """By qualified name."""
    absent: Value = None
    """What stands for a column that a message does not have."""
    how: How = field(default_factory=How)
    _found: dict[tuple[Any, ...], Layout] = field(default_factory=dict)
    _schemas: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Kept alive, so that an id stays its schema's."""

    def of(
        self, place: tuple[str, str], schema: Mapping[str, Any] | None, names: Sequence[str], key: Sequence[str]
    ) -> Layout:
        """Return the layout of rows with these column names, of a table with this key. Raises Malformed."""
        token = id(schema) if schema is not None else tuple(names)
        wanted = (place, token, tuple(key))
        found = self._found.get(wanted)
        if found is None:
            if len(self._found) >= LAYOUTS_MAX:
                self._found.clear()
                self._schemas.clear()
            found = self._made(place, schema, names, key)
            if schema is not None:
                self._schemas[id(schema)] = schema
            self._found[wanted] = found
        return found

    def declaration(self, place: tuple[str, str]) -> Declared | None:
        """Return what the file declares of a table."""
        return self.declared.get(f"{place[0]}.{place[1]}" if place[0] else place[1])

    def _made(
        self, place: tuple[str, str], schema: Mapping[str, Any] | None, names: Sequence[str], key: Sequence[str]
    ) -> Layout:
        said = self.declaration(place)
        if said is not None and said.key is not None:
            key = said.key
        try:
            if said is not None and said.columns:
                return layout_declared(said.columns, place, key, self.absent, self.how)
            if schema is not None:
                return layout_of(schema, place, key, self.absent)
        except ValueError as error:
            raise Malformed(str(error)) from error
        columns = tuple(Column(name, TEXT, nullable=name not in key) for name in names)
        missing = [name for name in key if name not in names]
        if missing:
            msg = f"its row lacks the key column {', '.join(missing)}"
            raise Malformed(msg)
        return Layout(Table(*place, columns, tuple(key)), dict.fromkeys(range(len(columns)), text_of), self.absent)


class Versions:
    """Notices that a table's structure has changed."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], Table] = {}
        self._seen: set[Table] = set()

    def latest(self, schema: str, name: str) -> Table | None:
        """Return the version that was new last, None when the table was not seen."""
        return self._last.get((schema, name))

    def look(self, table: Table) -> SchemaChange | None:
        """Return the change when this version was never seen and another was: partitions may lag one another."""
        place = (table.schema, table.name)
        last = self._last.get(place)
        if last is table or table in self._seen:
            return None
        self._last[place] = table
        self._seen.add(table)
        return None if last is None else SchemaChange(last, table, None)
