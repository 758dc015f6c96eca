"""Each error of the server or its client, and the verdict on it."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.postgres.errors import RULES, Verdict, describe, is_about_rows, rule_of, verdict

ROWS: dict[str, Verdict] = {
    "08006": Verdict.TRANSIENT,
    "0A000": Verdict.DATA,
    "22001": Verdict.ROWS,
    "22003": Verdict.ROWS,
    "22021": Verdict.ROWS,
    "22P02": Verdict.ROWS,
    "23502": Verdict.ROWS,
    "23503": Verdict.ROWS,
    "23505": Verdict.ROWS,
    "23514": Verdict.ROWS,
    "25006": Verdict.TRANSIENT,
    "25P03": Verdict.TRANSIENT,
    "25P04": Verdict.TRANSIENT,
    "28P01": Verdict.PERMISSION,
    "28000": Verdict.PERMISSION,
    "38000": Verdict.ROWS,
    "39000": Verdict.ROWS,
    "3D000": Verdict.CONFIG,
    "3F000": Verdict.CONFIG,
    "40001": Verdict.TRANSIENT,
    "40P01": Verdict.TRANSIENT,
    "42501": Verdict.PERMISSION,
    "42703": Verdict.DATA,
    "42P01": Verdict.DATA,
    "44000": Verdict.ROWS,
    "53100": Verdict.TRANSIENT,
    "53300": Verdict.TRANSIENT,
    "53400": Verdict.CONFIG,
    "54000": Verdict.ROWS,
    "55000": Verdict.DATA,
    "55006": Verdict.TRANSIENT,
    "55P03": Verdict.TRANSIENT,
    "57014": Verdict.TRANSIENT,
    "57P01": Verdict.TRANSIENT,
    "57P02": Verdict.TRANSIENT,
    "57P03": Verdict.TRANSIENT,
    "57P04": Verdict.CONFIG,
    "58030": Verdict.TRANSIENT,
    "58P01": Verdict.DATA,
    "58P02": Verdict.DATA,
    "P0001": Verdict.ROWS,
    "XX000": Verdict.DATA,
    "XX001": Verdict.DATA,
    "F0000": Verdict.DATA,
}
STATUS = {
    Verdict.PERMISSION: ExitStatus.PERMISSION,
    Verdict.CONFIG: ExitStatus.CONFIG,
    Verdict.DATA: ExitStatus.DATA,
    Verdict.ROWS: ExitStatus.DATA,
}


@pytest.mark.parametrize(("state", "want"), ROWS.items())
def test_each_sqlstate_has_its_verdict(state: str, want: Verdict) -> None:
    error = errors.lookup(state)("secret value") if state in _known_to_psycopg() else _made(state)

    got = verdict(error, End.SINK, "writing")

    assert rule_of(error).verdict is want
    assert is_about_rows(error) is (want is Verdict.ROWS)
    if want is Verdict.TRANSIENT:
        assert isinstance(got, Transient)
        assert got.end is End.SINK
    else:
        assert isinstance(got, Fatal)
        assert got.status is STATUS[want]
        assert got.hint


def test_every_row_of_the_table_is_tested() -> None:
    untested = [state for state in RULES if not any(tested.startswith(state) for tested in ROWS)]

    assert untested == []


def test_a_lost_connection_is_transient() -> None:
    assert isinstance(verdict(psycopg.OperationalError("server closed the connection"), End.SOURCE, "x"), Transient)


def test_a_value_that_the_client_cannot_send_is_about_rows_and_not_shown() -> None:
    error = psycopg.DataError("PostgreSQL text fields cannot contain NUL: secret")

    assert is_about_rows(error)
    assert "secret" not in describe(error)


def test_what_the_client_does_not_know_is_fatal() -> None:
    assert isinstance(verdict(psycopg.InterfaceError("bug"), End.SINK, "x"), Fatal)


def _made(state: str) -> psycopg.Error:
    made: psycopg.Error = type("Made", (psycopg.DatabaseError,), {"sqlstate": state})("secret value")
    return made


def _known_to_psycopg() -> set[str]:
    found = (getattr(errors, name) for name in dir(errors))
    return {state for known in found if isinstance(known, type) and (state := getattr(known, "sqlstate", None))}
