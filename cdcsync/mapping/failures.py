"""What can be wrong with an expression: a fault in its text, found before a row is read, and a failure on one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cdcsync.change import Row


class Fault(Exception):  # noqa: N818  named for what it is: a place in a text and what is wrong there
    """A mistake in an expression's text."""

    def __init__(self, message: str, start: int = 0, end: int = 0) -> None:
        super().__init__(message)
        self.start = start
        """Offset of the first character of the fault."""
        self.end = end
        """Offset after the last."""

    def caret(self, text: str) -> str:
        """Return the expression's line with carets under the fault, indented."""
        first = text.rfind("\n", 0, self.start) + 1
        line = text[first:].split("\n", 1)[0]
        width = max(1, min(self.end, first + len(line)) - self.start)
        return f"    {line}\n    {' ' * (self.start - first)}{'^' * width}"


class Failure(ValueError):  # noqa: N818  named for what happened to one row
    """An expression has no value on this row; the message says why, never a value."""


class Failed(Exception):  # noqa: N818  named for what happened to one row
    """An expression of an entry has no value on this row; the message names it, without values."""

    def __init__(self, message: str, row: Row) -> None:
        super().__init__(message)
        self.row = row
        """The target's row, UNCHANGED where an expression failed."""


FAILURES: Final = (ArithmeticError, ValueError, LookupError, TypeError)
"""What an expression may raise on one row; `reason` says it in words that hold no value."""


def reason(error: Exception) -> str:
    """Return why an expression failed, without values."""
    if isinstance(error, Failure):
        return str(error)
    if isinstance(error, ZeroDivisionError):
        return "division by zero"
    if isinstance(error, OverflowError):
        return "the result is out of range"
    if isinstance(error, ArithmeticError):
        return "no such number"
    return f"a value does not fit ({type(error).__name__})"
