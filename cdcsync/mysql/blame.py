"""What a refused row is told to be at fault for: the column or key by name, never the value that the server quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cdcsync.mysql.errors import describe, number_of

if TYPE_CHECKING:
    from cdcsync.mysql.errors import MysqlError

_UNIQUE: Final = frozenset({1062, 1169, 1557, 1586, 1761, 1762, 1859})
_NULL: Final = 1048
_COLUMN: Final = re.compile(
    r"(?s)(?:.*for column (?:'(.+?)'|`[^`]*`\.`[^`]*`\.`(.+?)`) at row \d+|Column '(.+)' cannot be null|Field '(.+)' doesn't.*)$"
)
"""The last of its kind in the message: before it may stand a value."""
_COLUMN_OF: Final = re.compile(r"(?s).*value for column '([^']+)'\.?$")
_KEY: Final = re.compile(r"for key '([^']+)'$")
_CONSTRAINT: Final = re.compile(r"CONSTRAINT `([^`]+)`|[Cc]heck constraint '([^']+)'")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row is not taken."""

    reason: str
    is_unique: bool = False
    """Another row has a value that has to be its alone; that row may be about to change."""


def fault_of(error: MysqlError, guard: str) -> Fault:
    """Return the fault of an error that is about rows; `guard` is the column by which upserts spare other rows."""
    number = number_of(error)
    text = str(error.args[1]) if len(error.args) > 1 else ""
    column = _first(_COLUMN_OF, text) or _first(_COLUMN, text)
    if number == _NULL and guard and column == guard:
        return Fault(
            "another row of the target has this key by its collation, or a value of a unique key", is_unique=True
        )
    named = [
        f"{what} {name}"
        for what, name in (
            ("column", column),
            ("key", _first(_KEY, text) if number in _UNIQUE else ""),
            ("constraint", _first(_CONSTRAINT, text)),
        )
        if name
    ]
    return Fault(", ".join([describe(error), *named]), is_unique=number in _UNIQUE)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.match(text) if pattern in {_COLUMN, _COLUMN_OF} else pattern.search(text)
    return next((each for each in found.groups() if each), "") if found else ""
