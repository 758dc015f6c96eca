"""Whether a schema change leaves the mapped columns as they are, and what is said when it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from cdcsync.change import Column, Table
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
        "make the target's columns fit by hand and start again, or keep the new columns out with `exclude` "
        "(or `include`) in the mapping"
    )
    return Fatal(msg, hint=hint)
