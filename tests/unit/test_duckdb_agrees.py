"""Generated expressions come to what DuckDB says; every difference that is meant is listed here with its reason."""

from __future__ import annotations

import json
import math
import os
import random
from collections import Counter
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain
from typing import Any, Final
from uuid import UUID

import duckdb
import pytest
from fix_duckdb import COUNTERPARTS
from fix_generated import COLUMNS, INTERVALS, TABLE, Generator, rows

from cdcsync.mapping.expressions import Fault, Scope, compiled, parsed
from cdcsync.mapping.expressions.program import value_function
from cdcsync.mapping.expressions.registry import library
from cdcsync.mapping.failures import FAILURES, reason
from cdcsync.types import Kind

FULL: Final = os.environ.get("CDCSYNC_FULL") == "1"
EXPRESSIONS: Final = 6000 if FULL else 300
CALLS: Final = 60 if FULL else 3
"""Of each function, beside those that the generator chooses."""
ROWS: Final = 20
SEED: Final = 20261124
KINDS: Final = [Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT, Kind.TEXT, Kind.BOOLEAN, Kind.DATE, Kind.TIMESTAMP,
                Kind.TIMESTAMPTZ, Kind.ARRAY, Kind.JSON, Kind.BYTES, Kind.TIME, Kind.UUID]  # fmt: skip
FAILED: Final = object()
REFUSED: Final = ("the text is", "the number is out of range", "json_object takes")
"""What is refused before a row is read where DuckDB fails on the row, if it comes to it: constants that do not cast."""
BESIDE_NULL: Final = "an operand that fails beside one that is null: an error here, as in PostgreSQL"
UNNEEDED: Final = ("Conversion Error", "Division by zero", "Invalid Input Error: bounds", "hex digit")
YEAR_DIGITS: Final = 4
FOUR_DIGITS: Final = 1000
DOMAIN: Final = {
    "the result is out of range",
    "no real number is the result of this power",
    "the logarithm of a number that is not positive",
    "the square root of a negative number",
}


def oracle(given: list[tuple[Any, ...]]) -> duckdb.DuckDBPyConnection:
    """Return a database with the rows."""
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'; set threads = 1")
    declared = ", ".join(f"{name} {kind}" for name, (_, kind) in COLUMNS.items())
    connection.execute(f"create table t (number integer, {declared})")
    marks = ", ".join(f"cast(? as {kind})" for _, kind in COLUMNS.values())
    for at, row in enumerate(given):
        values = [list(value) if isinstance(value, tuple) else INTERVALS.get(value, value) for value in row]
        connection.execute(f"insert into t select {at}, {marks}", values)
    return connection


def theirs(connection: duckdb.DuckDBPyConnection, expression: str, kind: Kind) -> list[Any]:
    """Return DuckDB's value for each row, an error as the error; a moment in UTC as text."""
    shown = (
        f"strftime(cast({expression} as timestamp), '%Y-%m-%dT%H:%M:%S.%f')" if kind is Kind.TIMESTAMPTZ else expression
    )
    try:
        return [value for (value,) in connection.execute(f"select {shown} from t order by number").fetchall()]
    except duckdb.Error:
        return [_one(connection, shown, at) for at in range(ROWS)]


def _one(connection: duckdb.DuckDBPyConnection, shown: str, at: int) -> Any:
    try:
        found = connection.execute(f"select {shown} from t where number = {at}").fetchone()
    except duckdb.Error as error:
        return error
    return found[0] if found else None


def plain(value: Any, kind: Kind) -> Any:
    """Return a value in a form that both sides share."""
    if value is None or isinstance(value, Exception):
        return value
    if isinstance(value, datetime):
        return value.isoformat().rstrip("0") if value.microsecond else value.isoformat()
    if isinstance(value, time):
        return value.isoformat().rstrip("0") if value.microsecond else value.isoformat()
    if isinstance(value, date | UUID):
        return str(value)
    if kind is Kind.TIMESTAMPTZ:
        return (
            str(value).removesuffix("Z").rstrip("0").rstrip(".") if "." in str(value) else str(value).removesuffix("Z")
        )
    if kind is Kind.DECIMAL:
        return Decimal(str(value)) if not isinstance(value, float) else Decimal(repr(value))
    if kind is Kind.JSON:
        return json.loads(value)
    return tuple(value) if isinstance(value, list) else value


def same(ours: Any, other: Any, kind: Kind) -> bool:
    """Return whether two values are one."""
    a, b = plain(ours, kind), plain(other, kind)
    if a is None or b is None:
        return a is b
    if kind in (Kind.FLOAT, Kind.DECIMAL) and not isinstance(b, Exception):
        x, y = float(a), float(b)
        return (math.isnan(x) and math.isnan(y)) or math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-12)
    return bool(a == b)


def explained(ours: Any, why: str, other: Any, duck: str) -> str:
    """Return the reason for a difference that is meant, as the reference gives it; empty when there is none."""
    text = str(other) if isinstance(other, Exception) else ""
    if ours is FAILED and text:
        return "an error in both"
    if why in DOMAIN:
        return "DuckDB gives inf or nan; an error here, as in PostgreSQL"
    if ours in (None, FAILED) and isinstance(other, str) and len(other.partition("-")[0]) > YEAR_DIGITS:
        return "a year past 9999 is no date in a text here"
    if ours in (None, FAILED) and isinstance(other, date) and other.year < FOUR_DIGITS:
        return "a year in a text has four digits here"
    if ours is FAILED and other is None:
        return BESIDE_NULL
    if any(word in text for word in ("Overflow", "out of range", "Decimal", "DECIMAL")):
        return "DuckDB's numbers end at 64 bits, its decimals at 38 digits, within an expression too"
    if "Insufficient padding" in text:
        return "padding with nothing is an error in DuckDB; here the text stays, as in PostgreSQL"
    if "json_merge_patch" in duck and isinstance(other, list) and sorted(other) == sorted(ours or ()):
        return "a key that a merge patch changes keeps its place here; DuckDB puts it at the end"
    if any(word in text for word in UNNEEDED):
        return "DuckDB computes what a null or a branch makes unneeded"
    return ""


@pytest.mark.timeout(900)
def test_generated_expressions_come_to_what_duckdb_says() -> None:
    dice = random.Random(SEED)
    given = rows(dice, ROWS)
    connection = oracle(given)
    make = Generator(dice)
    pairs, meant, wrong, faults = 0, Counter[str](), [], list[str]()

    agreed, read = Counter[str](), set[Any]()
    every = [function for overloads in library().values() for function in overloads]
    calls = (
        (function.signature, make.call_of(function, dice.randint(1, 3))) for function in every for _ in range(CALLS)
    )
    anything = (("", make.make(KINDS[number % len(KINDS)], dice.randint(1, 4))) for number in range(EXPRESSIONS))
    for called, (ours, duck) in chain(calls, anything):
        try:
            program = compiled(parsed(ours), Scope(TABLE))
        except Fault as fault:
            faults.append(str(fault))
            continue
        function = value_function(program, "t")
        read |= {TABLE.columns[at].name for _, at in program.inputs}
        for row, other in zip(given, theirs(connection, duck, program.type.kind), strict=True):
            try:
                got, why = function(row, None, None), ""
            except FAILURES as error:
                got, why = FAILED, reason(error)
            pairs += 1
            if got is not FAILED and same(got, other, program.type.kind):
                agreed[called] += got is not None
                continue
            meaning = explained(got, why, other, duck)
            meant[meaning] += bool(meaning)
            if not meaning:
                wrong.append((ours, duck, list(row), got if got is not FAILED else why, other))
                break

    print(
        f"seed {SEED}: {pairs} pairs of {EXPRESSIONS + CALLS * len(every)} expressions, {len(faults)} refused; meant differences: {meant}"
    )
    told = "\n".join(
        f"{ours}\n  duckdb: {duck}\n  {row}\n  ours {got!r}, duckdb {other!r}"
        for ours, duck, row, got, other in wrong[:15]
    )
    assert not wrong, f"{len(wrong)} differ:\n{told}"
    assert [fault for fault in faults if not fault.startswith(REFUSED)] == []
    assert [function.signature for function in every if not agreed[function.signature]] == []
    assert read == set(COLUMNS)
    assert meant[BESIDE_NULL] <= pairs // 10_000
    assert pairs >= (100_000 if FULL else 5_000)


def test_every_function_has_its_words_in_duckdb() -> None:
    apart = {function.signature for overloads in library().values() for function in overloads if function.duckdb == "-"}

    assert apart == set(COUNTERPARTS)
