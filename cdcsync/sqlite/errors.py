"""From SQLite's errors to verdicts, as one table."""

from __future__ import annotations

import enum
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cdcsync.errors import End, ExitStatus, Fatal, Transient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Verdict(enum.Enum):
    """What happens next."""

    TRANSIENT = enum.auto()
    DATA = enum.auto()
    """The row will never be taken as it is."""
    PERMISSION = enum.auto()
    BROKEN = enum.auto()


VERDICTS: Final[dict[int, tuple[Verdict, str]]] = {
    sqlite3.SQLITE_BUSY: (Verdict.TRANSIENT, "another process writes to it"),
    sqlite3.SQLITE_LOCKED: (Verdict.TRANSIENT, "another connection holds a table"),
    sqlite3.SQLITE_FULL: (Verdict.TRANSIENT, "the disk is full; nothing is lost, it goes on when there is space again"),
    sqlite3.SQLITE_IOERR: (Verdict.TRANSIENT, "the disk does not answer; nothing is lost, it goes on when it does"),
    sqlite3.SQLITE_NOMEM: (Verdict.TRANSIENT, "no memory is left"),
    sqlite3.SQLITE_PROTOCOL: (Verdict.TRANSIENT, "its locks are contended"),
    sqlite3.SQLITE_CONSTRAINT: (Verdict.DATA, ""),
    sqlite3.SQLITE_MISMATCH: (Verdict.DATA, ""),
    sqlite3.SQLITE_TOOBIG: (Verdict.DATA, ""),
    sqlite3.SQLITE_RANGE: (Verdict.DATA, ""),
    sqlite3.SQLITE_CANTOPEN: (Verdict.PERMISSION, "make its directory, or make it writable for this user"),
    sqlite3.SQLITE_PERM: (Verdict.PERMISSION, "make it writable for this user"),
    sqlite3.SQLITE_READONLY: (Verdict.PERMISSION, "make it and its directory writable for this user"),
    sqlite3.SQLITE_AUTH: (Verdict.PERMISSION, "make it writable for this user"),
    sqlite3.SQLITE_CORRUPT: (Verdict.BROKEN, "bring a good copy back, or move the file away and copy everything again"),
    sqlite3.SQLITE_NOTADB: (Verdict.BROKEN, "name another path: this file is not a SQLite database"),
    sqlite3.SQLITE_ERROR: (
        Verdict.BROKEN,
        "was a table altered while the pipeline ran? `cdcsync check` says what does not fit",
    ),
    sqlite3.SQLITE_SCHEMA: (
        Verdict.BROKEN,
        "was a table altered while the pipeline ran? `cdcsync check` says what does not fit",
    ),
}
"""By primary result code: the verdict, and what is the matter or what to do."""

_PRIMARY: Final = 0xFF


def verdict(error: sqlite3.Error) -> tuple[Verdict, str] | None:
    """Return what the table says; None for an error that is ours."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else VERDICTS.get(code & _PRIMARY)


def is_data(error: Exception) -> bool:
    """Return whether the row is at fault: a constraint, text that is not Unicode, a number past 64 bits."""
    if isinstance(error, UnicodeEncodeError | OverflowError | sqlite3.DataError):
        return True
    found = verdict(error) if isinstance(error, sqlite3.Error) else None
    return found is not None and found[0] is Verdict.DATA


def reason(error: Exception) -> str:
    """Return why a row is rejected, without any of its values."""
    if isinstance(error, UnicodeEncodeError):
        return "a text holds what is no Unicode character"
    if isinstance(error, OverflowError):
        return "a number does not fit into 64 bits"
    return str(error)


@contextmanager
def translated(path: Path, end: End) -> Iterator[None]:
    """Raise the verdict for an error of SQLite that is not of one row."""
    try:
        yield
    except sqlite3.Error as error:
        found = verdict(error)
        if found is None:
            raise
        kind, matter = found
        msg = f"SQLite {path}: {error}"
        if kind is Verdict.TRANSIENT:
            raise Transient(end, f"{msg}: {matter}") from error
        status = ExitStatus.PERMISSION if kind is Verdict.PERMISSION else ExitStatus.DATA
        raise Fatal(msg, hint=matter or "mend the target", status=status) from error
