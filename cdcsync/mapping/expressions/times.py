"""Functions of dates and times."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from cdcsync.mapping.expressions import moments
from cdcsync.mapping.expressions.moments import Span
from cdcsync.mapping.expressions.registry import define
from cdcsync.mapping.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

SECTION: Final = "Dates and times"
DIRECTIVES: Final = frozenset("YmdHMSfjybBaAIpuVG%")
"""What a format may hold after a percent sign."""
FOUR_DIGITS: Final = 1000
"""The first year that glibc writes with four digits by itself."""
_LENGTHS: Final = {"week": 7 * moments.DAY_US, "day": moments.DAY_US, "hour": 3_600_000_000, "minute": 60_000_000,
                   "second": 1_000_000, "millisecond": 1000, "microsecond": 1}  # fmt: skip


def day_truncated(unit: str) -> Callable[[str], str]:
    """Return what cuts a date's midnight to the beginning of its unit. Raises ValueError."""
    cut = moments.truncated(unit)
    return lambda text: cut(moments.midnight(text))


def part(unit: str) -> Callable[[str], int]:
    """Return what takes a whole part of a date or timestamp. Raises ValueError."""
    if unit not in moments.PARTS:
        msg = f"no such part; there are: {', '.join(moments.PARTS)}, second, epoch, microsecond"
        raise ValueError(msg)
    take = moments.PARTS[unit]
    slices = {"year": (0, 4), "month": (5, 7), "day": (8, 10), "hour": (11, 13), "minute": (14, 16)}
    if unit not in slices:
        return lambda text: int(take(moments.read(text)))
    start, end = slices[unit]

    def cut(text: str) -> int:
        return int(text[start:end] or 0) if "0" <= text[0] < ":" else int(take(moments.read(text)))

    return cut


def seconds(text: str) -> Decimal:
    """Return seconds and their fraction within the minute."""
    moment = moments.read(text)
    return Decimal(moment.second * 1_000_000 + moment.microsecond).scaleb(-6)


def epoch(text: str) -> Decimal:
    """Return seconds since 1970."""
    return Decimal(moments.microseconds(moments.read(text))).scaleb(-6)


def microsecond(text: str) -> int:
    """Return microseconds within the minute."""
    moment = moments.read(text)
    return moment.second * 1_000_000 + moment.microsecond


def difference(unit: str) -> Callable[[str, str], int]:
    """Return what counts the borders of a unit that lie between two timestamps. Raises ValueError."""
    if unit in ("year", "quarter", "month"):
        size = {"year": 12, "quarter": 3, "month": 1}[unit]

        def calendar_units(earlier: str, later: str) -> int:
            a, b = moments.read(earlier), moments.read(later)
            return (b.year * 12 + b.month - 1) // size - (a.year * 12 + a.month - 1) // size

        return calendar_units
    if unit not in _LENGTHS:
        msg = f"no such unit; there are: year, quarter, month, {', '.join(_LENGTHS)}"
        raise ValueError(msg)
    length = _LENGTHS[unit]
    start = 4 * moments.DAY_US if unit == "week" else 0

    def clock_units(earlier: str, later: str) -> int:
        a, b = moments.microseconds(moments.read(earlier)), moments.microseconds(moments.read(later))
        return (b - start) // length - (a - start) // length

    return clock_units


def formatted(form: str) -> Callable[[str], str]:
    """Return what writes a timestamp in a form. Raises ValueError for an unknown directive."""
    pieces = form.split("%")
    at = 1
    while at < len(pieces):
        letter = pieces[at][:1] or "%"
        if letter not in DIRECTIVES:
            msg = f"no such directive; there are: {' '.join('%' + each for each in sorted(DIRECTIVES))}"
            raise ValueError(msg)
        at += 2 if pieces[at] == "" else 1

    def write(text: str) -> str:
        moment = moments.read(text)
        return moment.strftime(form if moment.year >= FOUR_DIGITS else form.replace("%Y", f"{moment.year:04d}"))

    return write


def from_epoch(value: Decimal) -> str:
    """Return the moment so many seconds after 1970."""
    if not value.is_finite():
        raise Failure("not a moment")
    try:
        us = int((value * 1_000_000).to_integral_value())
        return moments.write(moments.EPOCH + timedelta(microseconds=us)) + "Z"
    except (OverflowError, ArithmeticError) as error:
        raise Failure("the date is out of range") from error


def last_day(text: str) -> str:
    """Return the last day of the month."""
    moment = moments.read(text)
    begin = datetime(moment.year, moment.month, 1)  # noqa: DTZ001  a date
    return moments.write(moments.shifted(begin, Span(1, -1, 0)))[:10]


_ANY_MOMENT: Any = ("timestamp", "timestamptz", "date")
for _kind in _ANY_MOMENT:
    _at = (
        "timestamptz '2026-11-23 10:30:45.5Z'"
        if _kind == "timestamptz"
        else f"{_kind} '2026-11-23{'' if _kind == 'date' else ' 10:30:45.5'}'"
    )
    _back = "timestamp" if _kind == "date" else _kind
    _z = "Z" if _kind == "timestamptz" else ""
    define(
        SECTION,
        f"date_trunc(unit 'text, {_kind}) -> {_back}",
        day_truncated if _kind == "date" else moments.truncated,
        "The beginning of its year, quarter, month, week (Monday), day, hour, minute or second.",
        (f"date_trunc('month', {_at})", f"2026-11-01T00:00:00{_z}"),
    )
    define(
        SECTION,
        f"strftime({_kind}, form 'text) -> text",
        formatted,
        "Written in a form of %Y %m %d %H %M %S %f %j %y %b %B %a %A %I %p %u %V %G, as in DuckDB.",
        (f"strftime({_at}, '%d.%m.%Y')", "23.11.2026"),
    )
    define(
        SECTION,
        f"date_diff(unit 'text, {_kind}, {_kind}) -> integer",
        difference,
        "How many borders of a unit lie between two, as in DuckDB; weeks begin on Monday (DuckDB 2: on Thursday).",
        (f"date_diff('day', {_at.replace('23', '20', 1)}, {_at})", "3"),
        duckdb="date_diff({0}, {1}::timestamp, {2}::timestamp)",
    )
    define(
        SECTION,
        f"epoch_ms({_kind}) -> integer",
        lambda text: moments.microseconds(moments.read(text)) // 1000,
        "Milliseconds since 1970.",
        (f"epoch_ms({_at})", "1795392000000" if _kind == "date" else "1795429845500"),
    )
    define(
        SECTION,
        f"last_day({_kind}) -> date",
        last_day,
        "The last day of its month.",
        (f"last_day({_at})", "2026-11-30"),
    )

define(
    SECTION,
    "timezone(zone 'text, timestamptz) -> timestamp",
    moments.to_zone,
    "The wall clock of a zone; also `t AT TIME ZONE 'Europe/Berlin'`.",
    ("timezone('Europe/Berlin', timestamptz '2026-07-01 10:00Z')", "2026-07-01T12:00:00"),
)
define(
    SECTION,
    "timezone(zone 'text, timestamp) -> timestamptz",
    moments.from_zone,
    "The moment at which a zone's wall clock shows this.",
    ("timezone('Europe/Berlin', timestamp '2026-07-01 12:00')", "2026-07-01T10:00:00Z"),
)
define(
    SECTION,
    "make_date(integer, integer, integer) -> date",
    moments.made_date,
    "The date of year, month and day.",
    ("make_date(2026, 2, 28)", "2026-02-28"),
    duckdb="-",
)
define(
    SECTION,
    "to_timestamp(decimal) -> timestamptz",
    from_epoch,
    "The moment so many seconds after 1970.",
    ("to_timestamp(1.5)", "1970-01-01T00:00:01.5Z"),
    duckdb="-",
)
