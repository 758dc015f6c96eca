"""Whether a schema change leaves the mapped columns as they are, who follows it, and what is said when nobody does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cdcsync.errors import Fatal
from cdcsync.evolution import Follows, Mode

if TYPE_CHECKING:
    from collections.abc import Collection

    from cdcsync.change import Column, Table
    from cdcsync.evolution import Renamed
    from cdcsync.mapping.model import TableMapping
    from cdcsync.types import Type


def differences(old: Table, new: Table) -> list[str]:
    """Return what is different for the target, a line each; hints (nullability, labels, defaults) do not count."""
    if (old.schema, old.name) != (new.schema, new.name):
        return [f"its target {old.qualified} would become {new.qualified}"]
    said = [f"column {column.name} is gone" for column in old.columns if column.name not in new.at]
    for column in new.columns:
        if column.name not in old.at:
            said.append(f"column {column.name} is new")
        elif not _same_type(column, old.columns[old.at[column.name]]):
            said.append(f"column {column.name} has another type")
    if old.key != new.key:
        said.append(f"the key was ({', '.join(old.key)}) and is ({', '.join(new.key)})")
    return said


def _same_type(column: Column, other: Column) -> bool:
    return _bare(column.type) == _bare(other.type)


def _bare(kind: Type) -> Type:
    """Return the type without its labels, which are a hint."""
    return replace(kind, labels=(), element=_bare(kind.element) if kind.element else None)


def stopped(source: Table, said: list[str], position: str) -> Fatal:
    """Return the error that stops at a schema change."""
    msg = f"table {source.qualified} was changed at {position}: {'; '.join(said)}"
    hint = (
        "make the target's columns fit by hand and start again, keep the new columns out with `exclude` (or `include`) "
        "in the mapping, or let the target follow with `schema_changes`"
    )
    return Fatal(msg, hint=hint)


_STRICTNESS: Final = (Mode.STOP, Mode.IGNORE, Mode.LENIENT, Mode.EVOLVE)


def together(each: Collection[Follows]) -> Follows:
    """Return how a target of several source tables follows: as the strictest says, and losing nothing that one has."""
    if len(each) == 1:
        return next(iter(each))
    found = min(each, key=lambda follows: _STRICTNESS.index(follows.mode), default=Follows())
    return replace(found, mode=Mode.LENIENT) if found.mode is Mode.EVOLVE else found


def renamed_target(mapping: TableMapping, target: Table, renamed: Renamed) -> Renamed:
    """Return the renames of source columns as those of a target's columns."""
    names = [(mapping.rename.get(one, one), mapping.rename.get(other, other)) for one, other in renamed]
    return tuple((one, other) for one, other in names if one != other and other in target.at)
