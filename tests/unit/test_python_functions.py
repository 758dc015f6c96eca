"""Claims about Python functions that expressions call: their types, nulls, and what they may do wrong."""

from __future__ import annotations

from datetime import date, datetime  # noqa: TC003  annotations are read at run time
from decimal import Decimal  # noqa: TC003  the same
from typing import TYPE_CHECKING, Any

import pytest
from fix_expressions import ORDERS, ROW, evaluated, program

from cdcsync.mapping.expressions import Fault, Scope
from cdcsync.mapping.expressions.program import value_function, why
from cdcsync.mapping.expressions.python_functions import load, typed
from cdcsync.mapping.failures import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable


def scope(*functions: Callable[..., Any]) -> Scope:
    """Return a scope in which these may be called."""
    return Scope(ORDERS, functions={each.__name__: typed(each.__name__, each) for each in functions})


def kinds(a: bool, b: int, c: float, d: Decimal, e: str, f: bytes, g: date, h: datetime) -> str:  # noqa: PLR0913, PLR0917  every type
    return " ".join(type(each).__name__ for each in (a, b, c, d, e, f, g, h))


def doubled(value: Decimal) -> Decimal:
    return value * 2


def later(at: datetime, days: int = 1) -> datetime:
    return at.replace(day=at.day + days)


def first(at: date) -> date:
    return at.replace(day=1)


def known(name: str | None) -> bool:
    return name is not None


def perhaps(name: str) -> str | None:
    return name if name.startswith("A") else None


def careless(name: str) -> int:
    return {"a secret value": 1}[name]


def mistaken(name: str) -> int:
    raise RuntimeError(name)


def bare(name) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001  that is the mistake
    return len(name)


def listed(name: list[str]) -> int:
    return len(name)


def hidden(names: Callable[..., Any]) -> int:
    return len(str(names))


def nothing(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN201  that is the mistake
    return name


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (
            "kinds(paid, quantity, weight, price, name, name::bytea, day, at::timestamp)",
            "bool int float Decimal str bytes date datetime",
        ),
        ("doubled(price)", "5.00"),
        ("doubled(quantity)", "6"),
        ("later(at::timestamp)", "2026-11-24T10:30:00.5"),
        ("later(at::timestamp, days => 2)", "2026-11-25T10:30:00.5"),
        ("first(day)", "2026-11-01"),
        ("known(name)", True),
        ("known(null)", False),
        ("doubled(null)", None),
        ("perhaps(name)", "Ann Lee"),
        ("perhaps(upper(name) || '!') is null", False),
        ("perhaps(lower(name)) is null", True),
        ("coalesce(perhaps(lower(name)), 'none')", "none"),
    ],
)
def test_annotations_are_the_types_and_a_null_is_given_where_it_is_taken(text: str, want: object) -> None:
    assert evaluated(text, scope=scope(kinds, doubled, later, first, known, perhaps)) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("doubled(name)", "doubled(text) is none of"),
        ("doubled(price, 1)", "is none of"),
        ("dubled(price)", "did you mean doubled"),
    ],
)
def test_a_call_that_does_not_fit_the_annotations_is_a_fault(text: str, want: str) -> None:
    with pytest.raises(Fault) as caught:
        program(text, scope(doubled))

    assert want in str(caught.value)


def test_a_function_that_fails_on_a_row_is_told_without_values() -> None:
    made = program("careless(name)", scope(careless))

    with pytest.raises(FAILURES) as caught:
        value_function(made, "x")(ROW, None, None)

    assert why(made, caught.value) == "`careless(name)` fails: a value does not fit (KeyError)"


def test_a_mistake_in_a_function_is_no_rejected_row() -> None:
    made = program("mistaken(name)", scope(mistaken))

    with pytest.raises(RuntimeError):
        value_function(made, "x")(ROW, None, None)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("bare", "parameter name has to be annotated with one of: bool, int"),
        ("listed", "parameter name has to be annotated"),
        ("nothing", "its result has to be annotated"),
        ("hidden", "the annotation Callable is not there at run time"),
        ("absent", "has no absent"),
    ],
)
def test_a_function_that_cannot_be_typed_is_refused(name: str, want: str) -> None:
    with pytest.raises(ValueError, match=want):
        load(f"{__name__}:{name}")


@pytest.mark.parametrize(
    ("text", "want"), [("shop_rules", "write module:name"), ("no_such_module:f", "there is no module no_such_module")]
)
def test_a_name_that_leads_to_no_function_is_refused(text: str, want: str) -> None:
    with pytest.raises(ValueError, match=want):
        load(text)
