"""The target's names: whether it takes them, and where in the file each was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.mapping.shape import MESSAGE_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cdcsync.change import Table
    from cdcsync.connectors import Names
    from cdcsync.document import KeyPath
    from cdcsync.mapping.plan import Plan
    from cdcsync.mapping.transform import Mapping


def misnamed(mapping: Mapping, tables: Iterable[Table], names: Names) -> list[str]:
    """Return a line for each name that the target cuts or refuses, or that is another's to it. Raises Fatal."""
    plans = [plan for table in tables for plan in mapping.plans(table)]
    lines = [line for plan in plans for line in _misnamed(plan, names)]
    return list(dict.fromkeys(lines))


def _misnamed(plan: Plan, names: Names) -> Iterator[str]:
    mark, of = plan.rule.mark, f"table {plan.source.qualified}"
    for target in plan.targets:
        for name in (target.schema, target.name):
            if names.length(name) > names.longest:
                yield f"{mark(('to',))}{of}: the target's name {name} is {names.too_long(name)}"
    seen: dict[str, str] = {}
    for column in _own(plan.target):
        place = mark(_keys(plan, column))
        if names.length(column) > names.longest:
            yield f"{place}{of}: the column's name {column} is {names.too_long(column)}"
        known = seen.setdefault(column.casefold() if names.folds else column, column)
        if known != column:
            yield f"{place}{of}: columns {known} and {column} would be one, as capitals do not count in the target's names"


def places(mapping: Mapping, tables: Iterable[Table]) -> dict[tuple[str, str], str]:
    """Return where in the file a target's column is made, by target and column; none for those that pass as they are."""
    found: dict[tuple[str, str], str] = {}
    for plan in (plan for table in tables for plan in mapping.plans(table)):
        for target in plan.targets:
            for column in _own(target):
                keys = _keys(plan, column)
                if keys:
                    found[target.qualified, column] = plan.rule.mark(keys)
    return found


def _own(target: Table) -> list[str]:
    return [column.name for column in target.columns if not column.name.startswith(MESSAGE_KEY)]


def _keys(plan: Plan, column: str) -> KeyPath:
    """Return the keys that lead to what makes a target's column; none where it is the source's own."""
    entry = plan.rule.mapping
    history = entry.history_columns
    if column in entry.columns:
        return "columns", column
    if column in entry.nest:
        return "nest", column
    if column == entry.soft_column:
        return "delete", "soft"
    if history is not None and column in (history.operation, history.time):
        return ("history",)
    renamed = [source for source, target in entry.rename.items() if target == column]
    if renamed:
        return "rename", renamed[0]
    flattened = [(name, key) for name, keys in entry.flatten.items() for key in keys if f"{name}_{key}" == column]
    return ("flatten", *flattened[0]) if flattened else ()
