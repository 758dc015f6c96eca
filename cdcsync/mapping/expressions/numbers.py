"""Arithmetic and functions of numbers, exact on decimals."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from cdcsync.mapping.expressions import moments
from cdcsync.mapping.expressions.casts import EXACT
from cdcsync.mapping.expressions.registry import define
from cdcsync.mapping.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

SECTION: Final = "Numbers"
DIGITS_MAX: Final = 1000
"""Digits after the point that a function may make."""


def integer_divide(a: int, b: int) -> int:
    """Return the quotient without its fraction."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) is (b < 0) else -quotient


def integer_rest(a: int, b: int) -> int:
    """Return the rest with the sign of the dividend."""
    return (
        int(math.fmod(a, b)) if -(1 << 53) < a < 1 << 53 and -(1 << 53) < b < 1 << 53 else a - b * integer_divide(a, b)
    )


def decimal_divide(a: Decimal, b: Decimal) -> Decimal:
    """Return the quotient with as many digits as PostgreSQL gives (numeric.c, select_div_scale)."""
    if not b and not a.is_nan():
        raise ZeroDivisionError
    if not (a.is_finite() and b.is_finite()):
        return EXACT.divide(a, b)
    (weight_a, first_a), (weight_b, first_b) = _leading(a), _leading(b)
    weight = weight_a - weight_b - (first_a <= first_b)
    scale = min(max(16 - weight * 4, -int(a.as_tuple().exponent), -int(b.as_tuple().exponent), 0), DIGITS_MAX)
    return EXACT.divide(a, b).quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP, EXACT)


def _leading(value: Decimal) -> tuple[int, int]:
    """Return weight and value of the first digit in base 10,000."""
    if not value:
        return 0, 0
    power = value.adjusted()
    weight = power // 4
    return weight, int(abs(value).scaleb(-4 * weight, EXACT))


def decimal_rest(a: Decimal, b: Decimal) -> Decimal:
    """Return the rest with the sign of the dividend."""
    if not b and not a.is_nan():
        raise ZeroDivisionError
    return EXACT.remainder(a, b)


def decimal_less(a: Decimal, b: Decimal) -> bool:
    """Return whether a < b; NaN is greater than all else, as in PostgreSQL."""
    try:
        return a < b
    except InvalidOperation:
        return not a.is_nan() and b.is_nan()


def decimal_same(a: Decimal, b: Decimal) -> bool:
    """Return whether a = b; NaN equals itself."""
    return a == b or (a.is_nan() and b.is_nan())


def float_less(a: float, b: float) -> bool:
    """Return whether a < b; NaN is greater than all else."""
    return a < b or (b != b and a == a)  # noqa: PLR0124  that is NaN


def float_same(a: float, b: float) -> bool:
    """Return whether a = b; NaN equals itself."""
    return a == b or (a != a and b != b)  # noqa: PLR0124  that is NaN


def float_divide(a: float, b: float) -> float:
    """Return the quotient."""
    return a / b


def float_result(value: float, *given: float) -> float:
    """Return a result, Failure where finite numbers made an infinite one."""
    if math.isinf(value) and all(map(math.isfinite, given)):
        raise Failure("the result is out of range")
    return value


def rounded(value: Decimal, digits: int = 0) -> Decimal:
    """Return it with so many digits after the point, halves away from zero."""
    return _quantized(value, digits, ROUND_HALF_UP)


def _quantized(value: Decimal, digits: int, how: str) -> Decimal:
    if not value.is_finite():
        return value
    if abs(digits) > DIGITS_MAX:
        raise Failure("too many digits")
    made = value.quantize(Decimal(1).scaleb(-digits), how, EXACT)
    return made if digits >= 0 else made.quantize(Decimal(1), how, EXACT)


def float_rounded(value: float) -> float:
    """Return the nearest whole number, halves away from zero, as in DuckDB."""
    if not math.isfinite(value):
        return value
    whole = math.trunc(value)
    return math.copysign(float(whole + (value > 0) - (value < 0) if abs(value - whole) >= 0.5 else whole), value)  # noqa: PLR2004  a half


def _power(base: float, exponent: float) -> float:
    try:
        return float_result(math.pow(base, exponent), base, exponent)
    except ValueError as error:
        raise Failure("no real number is the result of this power") from error


def _exp(value: float) -> float:
    return math.exp(value)


def _positive(function: Callable[[float], float]) -> Callable[[float], float]:
    def checked(value: float) -> float:
        if value <= 0:
            raise Failure("the logarithm of a number that is not positive")
        return function(value)

    return checked


def _root(value: float) -> float:
    if value < 0:
        raise Failure("the square root of a negative number")
    return math.sqrt(value)


def _sign(value: Any) -> int:
    return int(value > 0) - int(value < 0)


def _extreme(pick: Callable[..., Any], key: Callable[[Any], Any] | None) -> Callable[..., Any]:
    def found(*values: Any) -> Any:
        known = [value for value in values if value is not None]
        return pick(known, key=key) if known else None

    return found


def _nan_last(value: Any) -> tuple[bool, Any]:
    return (True, 0) if value != value else (False, value)  # noqa: PLR0124  that is NaN


def _bucket(value: Decimal, low: Decimal, high: Decimal, count: int) -> int:
    """Return the part's number, counted from 1 at `low`."""
    if count <= 0 or not low < high:
        raise Failure("the bounds of the buckets do not fit")
    if value < low:
        return 0
    return count + 1 if value >= high else int(EXACT.divide((value - low) * count, high - low)) + 1


for _signature, _run, _said, _example, _more in (
    ("abs(integer) -> integer", abs, "Without its sign.", ("abs(-5)", "5"), {}),
    ("abs(decimal) -> decimal", abs, "Without its sign.", ("abs(-1.50)", "1.50"), {}),
    ("abs(float) -> float", abs, "Without its sign.", ("abs(-1.5e0)", "1.5"), {}),
    ("round(decimal, integer = 0) -> decimal", rounded, "So many digits after the point, halves away from zero.", ("round(2.345, 2)", "2.35"), {"duckdb": "-"}),
    ("round(float) -> float", float_rounded, "The nearest whole number, halves away from zero as in DuckDB (PostgreSQL: to the even one).", ("round(2.5e0)", "3"), {}),
    ("trunc(decimal, integer = 0) -> decimal", lambda value, digits: _quantized(value, digits, ROUND_DOWN), "The digits that are left out do not count.", ("trunc(-2.789, 1)", "-2.7"), {"duckdb": "-"}),
    ("trunc(float) -> float", lambda value: float(math.trunc(value)) if math.isfinite(value) else value, "The whole part.", ("trunc(-2.7e0)", "-2"), {}),
    ("ceil(decimal) -> decimal", lambda value: _quantized(value, 0, ROUND_CEILING), "The next whole number upwards.", ("ceil(2.1)", "3"), {}),
    ("ceil(float) -> float", lambda value: float(math.ceil(value)) if math.isfinite(value) else value, "The next whole number upwards.", ("ceil(2.1e0)", "3"), {}),
    ("floor(decimal) -> decimal", lambda value: _quantized(value, 0, ROUND_FLOOR), "The next whole number downwards.", ("floor(-2.1)", "-3"), {}),
    ("floor(float) -> float", lambda value: float(math.floor(value)) if math.isfinite(value) else value, "The next whole number downwards.", ("floor(-2.1e0)", "-3"), {}),
    ("sign(integer) -> integer", _sign, "-1, 0 or 1.", ("sign(-5)", "-1"), {}),
    ("sign(decimal) -> integer", lambda value: 0 if value.is_nan() else _sign(value), "-1, 0 or 1.", ("sign(0.5)", "1"), {}),
    ("sign(float) -> integer", _sign, "-1, 0 or 1.", ("sign(-0.5e0)", "-1"), {}),
    ("mod(integer, integer) -> integer", integer_rest, "The rest of a division, with the sign of the dividend; also `a % b`.", ("mod(-7, 3)", "-1"), {"duckdb": "-"}),
    ("mod(decimal, decimal) -> decimal", decimal_rest, "The same on decimals.", ("mod(7.5, 2)", "1.5"), {"duckdb": "-"}),
    ("power(float, float) -> float", _power, "To a power; a float, as in DuckDB.", ("power(2, 10)", "1024"), {}),
    ("sqrt(float) -> float", _root, "The square root; a float, as in DuckDB.", ("sqrt(2.25)", "1.5"), {}),
    ("exp(float) -> float", _exp, "e to a power.", ("exp(0)", "1"), {}),
    ("ln(float) -> float", _positive(math.log), "The natural logarithm.", ("ln(1)", "0"), {}),
    ("log10(float) -> float", _positive(math.log10), "The logarithm to the base 10.", ("log10(1000)", "3"), {}),
    ("width_bucket(decimal, decimal, decimal, integer) -> integer", _bucket, "Which of so many equal parts between two bounds a number lies in; 0 below, one more above.", ("width_bucket(35, 0, 100, 10)", "4"), {"duckdb": "-"}),
):  # fmt: skip
    define(SECTION, _signature, _run, _said, _example, **_more)


for _kind, _key, _low, _high in (
    ("integer", None, "1, 2", ("2", "1")), ("decimal", _nan_last, "1.5, 2.5", ("2.5", "1.5")),
    ("float", _nan_last, "1.5e0, 2.5e0", ("2.5", "1.5")), ("text", None, "'a', 'b'", ("b", "a")),
    ("date", moments.order, "date '2026-01-02', date '2026-01-03'", ("2026-01-03", "2026-01-02")),
    ("timestamp", moments.order, "timestamp '2026-01-02 10:00', timestamp '2026-01-02 10:00:00.5'", ("2026-01-02T10:00:00.5", "2026-01-02T10:00:00")),
    ("timestamptz", moments.order, "timestamptz '2026-01-02 10:00Z', timestamptz '2026-01-02 12:00+03'", ("2026-01-02T10:00:00Z", "2026-01-02T09:00:00Z")),
):  # fmt: skip
    define(
        "Choice",
        f"greatest({_kind}...) -> {_kind}",
        _extreme(max, _key),
        "The greatest that is not null.",
        (f"greatest({_low})", _high[0]),
        strict=False,
        total=False,
    )
    define(
        "Choice",
        f"least({_kind}...) -> {_kind}",
        _extreme(min, _key),
        "The least that is not null.",
        (f"least({_low})", _high[1]),
        strict=False,
        total=False,
    )
