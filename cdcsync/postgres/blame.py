"""Finds the column whose value the target does not take: the server does not always name it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from cdcsync.postgres.errors import is_about_rows
from cdcsync.postgres.wire import Failed, Request, Statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdcsync.change import Row
    from cdcsync.postgres.statements import Parameter
    from cdcsync.postgres.target import TargetColumn
    from cdcsync.postgres.wire import Wire

OF_VALUES: Final = "22"
"""The class of errors that a value causes (PostgreSQL manual, appendix A)."""
_NO_LABEL: Final = "22P02"
_SAVEPOINT: Final = Statement(b"SAVEPOINT cdcsync_blame")
_RELEASE: Final = Statement(b"RELEASE SAVEPOINT cdcsync_blame")
_BACK: Final = Statement(b"ROLLBACK TO SAVEPOINT cdcsync_blame")


def blame(wire: Wire, columns: Mapping[str, TargetColumn], parameters: Sequence[Parameter], row: Row) -> str:
    """Return what to add to a reason: the first column that does not take its value, and what to do; or nothing.

    `columns` is what the catalogue says now: the table may have been altered since the start.
    """
    for parameter, value in zip(parameters, row, strict=True):
        column = columns.get(parameter.name)
        if column is None or value is None:
            continue
        text = parameter.texts([value])[0]
        if _overflows(column.declared, text):
            return f", column {column.name}: too long for {column.declared}"
        state = _refused(wire, column.declared, text)
        if state == _NO_LABEL and column.labelled:
            enum = column.bare.removesuffix("[]")
            return f", column {column.name}: {enum} has no such label; at the target: ALTER TYPE {enum} ADD VALUE .."
        if state:
            return f", column {column.name}: {column.declared} does not take it"
    return ""


def _overflows(declared: str, text: str) -> bool:
    """Return whether the text is longer than a character column takes: a cast would cut it."""
    bare, _, limit = declared.partition("(")
    return bare.startswith("character") and limit[:-1].isdigit() and len(text.rstrip(" ")) > int(limit[:-1])


def _refused(wire: Wire, declared: str, text: str) -> str:
    """Return the SQLSTATE of casting the text to a type; empty when it can be."""
    try:
        wire.run([Request(_SAVEPOINT), Request(_probe(declared), [text.encode()]), Request(_RELEASE)])
    except Failed as failed:
        wire.run([Request(_BACK), Request(_RELEASE)])
        return (failed.error.sqlstate or "") if is_about_rows(failed.error) else ""
    return ""


@cache
def _probe(declared: str) -> Statement:
    return Statement(f"SELECT $1::text::{declared}".encode())
