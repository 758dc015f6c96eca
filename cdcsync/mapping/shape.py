"""What a source table becomes under an entry: the target's columns and key, and all that does not fit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from cdcsync.change import Column, Table
from cdcsync.document import nearest
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdcsync.mapping.model import TableMapping

SOFT: Final = Type(Kind.TIMESTAMPTZ, precision=6)


@dataclass(slots=True)
class Shape:
    """A source table's target; not to be used when there are problems."""

    source: Table
    taken: list[int] = field(default_factory=list)
    """Indexes of the source columns that go to the target, in order."""
    columns: list[Column] = field(default_factory=list)
    key: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def target(self, schema: str, name: str) -> Table:
        """Return the target table; the source's own object where nothing differs."""
        table = Table(schema, name, tuple(self.columns), tuple(self.key))
        return self.source if table == self.source else table


def shape(mapping: TableMapping, source: Table) -> Shape:
    """Work out the target; every mistake is a line in `problems`."""
    made = Shape(source)
    _check_names(made, mapping)
    left_out = set(mapping.exclude)
    for index, column in enumerate(source.columns):
        if column.name in left_out or (mapping.include is not None and column.name not in mapping.include):
            continue
        made.taken.append(index)
        name = mapping.rename.get(column.name, column.name)
        made.columns.append(column if name == column.name else replace(column, name=name))
    if mapping.soft_column:
        made.columns.append(Column(mapping.soft_column, SOFT))
    if not made.columns:
        made.problems.append("no column is left")
    _check_twice(made)
    _choose_key(made, mapping)
    return made


def _check_names(made: Shape, mapping: TableMapping) -> None:
    """Every column that the entry names has to be there."""
    said: dict[str, Iterable[str]] = {
        "include": mapping.include or (),
        "exclude": mapping.exclude,
        "rename": mapping.rename,
    }
    for option, names in said.items():
        for name in names:
            if name not in made.source.at:
                made.problems.append(f"{option}: there is no column {name}{nearest(name, made.source.at)}")
    for name in mapping.rename:
        if name in mapping.exclude or (mapping.include is not None and name not in mapping.include):
            made.problems.append(f"rename: column {name} is left out")


def _check_twice(made: Shape) -> None:
    seen: set[str] = set()
    for column in made.columns:
        if column.name in seen:
            made.problems.append(f"two columns would be named {column.name}")
        seen.add(column.name)


def _choose_key(made: Shape, mapping: TableMapping) -> None:
    """Take the declared key, by source names or else by target names; the source's own by default."""
    if mapping.key == "none":
        return
    wanted = mapping.key if mapping.key is not None else made.source.key
    if not wanted:
        made.problems.append(
            "there is no primary key: name unique columns as `key: [...]`, or write `key: none` to only append rows"
        )
    targets = {made.source.columns[index].name: made.columns[at].name for at, index in enumerate(made.taken)}
    by_target = {column.name: column.name for column in made.columns if column.name != mapping.soft_column}
    for name in wanted:
        found = targets.get(name) or (None if name in made.source.at else by_target.get(name))
        if found is not None:
            made.key.append(found)
        elif name in made.source.at:
            made.problems.append(f"key: column {name} is left out")
        else:
            made.problems.append(f"key: there is no column {name}{nearest(name, made.source.at)}")
    if len(set(made.key)) < len(made.key):
        made.problems.append("key: a column stands there twice")


def nullable_key(mapping: TableMapping, made: Shape) -> list[str]:
    """Return a problem for each declared key column that may be null by the catalogue."""
    by_name = {column.name: column for column in made.columns}
    own = {made.columns[at].name for at, index in enumerate(made.taken) if index in made.source.key_at}
    if mapping.key in (None, "none"):
        return []
    return [
        f"key: column {name} may be null at the source; a key has to be unique and not null"
        for name in made.key
        if by_name[name].nullable and name not in own
    ]
