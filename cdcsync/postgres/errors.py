"""From what psycopg raises to the verdict, as a table."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg

from cdcsync.errors import End, ExitStatus, Fatal, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verdict(enum.Enum):
    """What an SQLSTATE means to a pipeline."""

    TRANSIENT = "transient"
    PERMISSION = "permission"
    OWNERSHIP = "ownership"
    CONFIG = "config"
    DATA = "data"
    ROWS = "rows"
    """Some of the rows given will never be taken; the sink finds out which."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A verdict, and what to do where a person has to."""

    verdict: Verdict
    hint: str = ""


_TRANSIENT: Final = Rule(Verdict.TRANSIENT)
_ROWS: Final = Rule(Verdict.ROWS)
_STRUCTURE: Final = Rule(
    Verdict.DATA, "the tables are not what the pipeline found at its start: run `cdcsync check` on it"
)

RULES: Final[Mapping[str, Rule]] = {
    # Classes first; a whole SQLSTATE wins over its class (PostgreSQL manual, appendix A).
    "08": _TRANSIENT,
    "0A": Rule(Verdict.DATA, "the server does not offer this: run `cdcsync check`, which names what it needs"),
    "22": _ROWS,
    "23": _ROWS,
    "28": Rule(Verdict.PERMISSION, "check `user` and `password`, and the server's pg_hba.conf"),
    "38": _ROWS,
    "39": _ROWS,
    "40": _TRANSIENT,
    "42": _STRUCTURE,
    "44": _ROWS,
    "53": _TRANSIENT,
    "54": _ROWS,
    "57": _TRANSIENT,
    "58": _TRANSIENT,
    "P0": _ROWS,
    "25006": _TRANSIENT,
    "25P03": _TRANSIENT,
    "25P04": _TRANSIENT,
    "3D000": Rule(Verdict.CONFIG, "check `database`"),
    "3F000": Rule(Verdict.CONFIG, "create the schema, or check the mapping's `to` and the section's `schema`"),
    "42501": Rule(Verdict.PERMISSION, "run `cdcsync check`: it prints the GRANT that is missing"),
    "53400": Rule(
        Verdict.CONFIG, "raise max_replication_slots or max_wal_senders in postgresql.conf, or drop unused slots"
    ),
    "55000": Rule(Verdict.DATA, "run `cdcsync check`: it says what the server or the slot lacks"),
    "55006": _TRANSIENT,
    "55P03": _TRANSIENT,
    "57P04": Rule(Verdict.CONFIG, "the database was dropped: check `database`"),
    "58P01": Rule(
        Verdict.DATA,
        "the server has removed WAL that the slot needs; bring it back, or `cdcsync drop` and copy everything again",
    ),
    "58P02": Rule(Verdict.DATA, "drop or rename what is in the way, or choose another name in the file"),
}
"""By SQLSTATE or by its class of two letters. What is not here is fatal: unknown is never retried."""

_UNSENT: Final = (
    "the source holds a value that it cannot send as UTF-8: mend that row; what is in the log stays as it is, so "
    "`cdcsync drop`, empty the target tables, and run again to copy everything"
)
_UNKNOWN: Final = Rule(Verdict.DATA, "this error is not known to cdcsync: the server's log says more")
_STATUS: Final = {
    Verdict.PERMISSION: ExitStatus.PERMISSION,
    Verdict.OWNERSHIP: ExitStatus.OWNERSHIP,
    Verdict.CONFIG: ExitStatus.CONFIG,
    Verdict.DATA: ExitStatus.DATA,
    Verdict.ROWS: ExitStatus.DATA,
}


def rule_of(error: psycopg.Error) -> Rule:
    """Return the table's row for this error."""
    state = error.sqlstate
    if state is None:
        return _without_state(error)
    return RULES.get(state) or RULES.get(state[:2]) or _UNKNOWN


def is_about_rows(error: psycopg.Error) -> bool:
    """Return whether some of the rows given will never be taken: the sink finds which, and rejects them."""
    return rule_of(error).verdict is Verdict.ROWS


def verdict(error: psycopg.Error, end: End, doing: str) -> Transient | Fatal:
    """Return what to raise (`from error`) when `doing` failed at this end."""
    rule = rule_of(error)
    message = f"{doing}: {describe(error)}"
    if rule.verdict is Verdict.TRANSIENT:
        return Transient(end, message)
    context = error.diag.context or ""
    if end is End.SOURCE and context.startswith("slot "):
        message = f"{message}; {context}"
    hint = rule.hint or (_UNSENT if end is End.SOURCE else "the target does not take a row: see the server's log")
    return Fatal(message, hint=hint, status=_STATUS[rule.verdict])


def describe(error: psycopg.Error) -> str:
    """Return one line on the error that holds no value of a row."""
    diag = error.diag
    if diag.sqlstate is None:
        text = str(error) if rule_of(error).verdict is not Verdict.ROWS else "the client cannot send a value"
        return " ".join(text.split()) or type(error).__name__
    if not is_about_rows(error):
        return f"{diag.message_primary} (SQLSTATE {diag.sqlstate})"
    named = [
        f"{what} {name}"
        for what, name in (
            ("table", diag.table_name),
            ("column", diag.column_name or diag.datatype_name),
            ("constraint", diag.constraint_name),
        )
        if name
    ]
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(error).__name__)
    return f"{words.strip()} (SQLSTATE {diag.sqlstate}){', ' if named else ''}{', '.join(named)}"


def _without_state(error: psycopg.Error) -> Rule:
    """Judge what the client library itself raised: a lost connection, or a value that it cannot send."""
    if isinstance(error, psycopg.OperationalError):
        return _TRANSIENT
    if isinstance(error, psycopg.DataError):
        return _ROWS
    return _UNKNOWN
