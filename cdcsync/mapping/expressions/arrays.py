"""Functions of arrays. Elements have the canonical form of a row's values."""

from __future__ import annotations

from typing import Any, Final

from cdcsync.mapping.expressions.registry import define
from cdcsync.mapping.expressions.texts import bounded

SECTION: Final = "Arrays"


def element(values: tuple[Any, ...], at: int) -> Any:
    """Return the n-th element, counted from 1; null when there is none."""
    return values[at - 1] if 1 <= at <= len(values) else None


def contains(values: tuple[Any, ...], value: Any) -> bool:
    """Return whether a value is among the elements."""
    return any(each == value for each in values if each is not None)


def position(values: tuple[Any, ...], value: Any) -> int | None:
    """Return where a value first stands, from 1; null when it does not."""
    return values.index(value) + 1 if value in values else None


def concatenated(values: tuple[Any, ...] | None, more: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Return both, one after the other; null when both are."""
    if values is None or more is None:
        return more if values is None else values
    return tuple(values) + tuple(more)


def to_string(values: tuple[Any, ...], separator: str) -> str:
    """Return the elements that are not null with a separator between."""
    known = [str(each) for each in values if each is not None]
    bounded(sum(map(len, known)) + len(separator) * len(known))
    return separator.join(known)


def of_string(text: str, separator: str) -> tuple[str, ...]:
    """Return the parts of a text."""
    if not text:
        return ()
    return tuple(text.split(separator)) if separator else (text,)


define(
    SECTION,
    "cardinality(T[]) -> integer",
    len,
    "Number of elements.",
    ("cardinality(array[1, 2, 3])", "3"),
    duckdb="len({0})",
)
define(
    SECTION,
    "array_contains(T[], T) -> boolean",
    contains,
    "Whether a value is among them; null where the value is, as in PostgreSQL (DuckDB: false).",
    ("array_contains(array['a', 'b'], 'b')", "true"),
    duckdb="case when {1} is null then null else list_contains({0}, {1}) end",
)
define(
    SECTION,
    "array_position(T[], T) -> integer",
    position,
    "Where a value first stands, from 1; null when it does not.",
    ("array_position(array['a', 'b'], 'b')", "2"),
    total=False,
    duckdb="-",
)
define(
    SECTION,
    "array_append(T[], T) -> T[]",
    lambda values, value: (*(values or ()), value),
    "With one more at the end, also a null; null stands for an array of none.",
    ("array_append(array[1, 2], 3)", "{1,2,3}"),
    strict=False,
    duckdb="list_append({0}, {1})",
)
define(
    SECTION,
    "array_concat(T[], T[]) -> T[]",
    concatenated,
    "One after the other; also `a || b`. Null stands for an array of none beside one that is not null.",
    ("array_concat(array[1], array[2])", "{1,2}"),
    strict=False,
    total=False,
    duckdb="case when {0} is null and {1} is null then null else list_concat({0}, {1}) end",
)
define(
    SECTION,
    "array_to_string(text[], text) -> text",
    to_string,
    "All that are not null with a separator between.",
    ("array_to_string(array['a', null, 'b'], '-')", "a-b"),
    duckdb="-",
)
define(
    SECTION,
    "string_to_array(text, text) -> text[]",
    of_string,
    "The parts between separators.",
    ("string_to_array('a,b', ',')", "{a,b}"),
    duckdb="-",
)
