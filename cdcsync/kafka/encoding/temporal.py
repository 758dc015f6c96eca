"""Dates and times in the neutral form as the numbers that Debezium writes; years of any size."""

from __future__ import annotations

import re
from typing import Final

from cdcsync.kafka.encoding.modes import Unfit

DAY_S: Final = 86_400
INFINITE_DAYS: Final = {"infinity": 2_147_483_647, "-infinity": -2_147_483_648}
"""PostgreSQL's own day numbers for them."""
INFINITE_MS: Final = {"infinity": 9_223_372_036_825_200_000, "-infinity": -9_223_372_036_832_400_000}
"""As Debezium's connector for PostgreSQL writes them, whatever the unit."""
_DAYS: Final[dict[str, int]] = {}
_DAYS_MAX: Final = 20_000
_DURATION: Final = re.compile(
    r"(-?)P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)W)?(?:(-?\d+)D)?"
    r"(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d+))?S)?)?"
)
_MONTH_US: Final = 2_629_800_000_000
"""30.4375 days, as Debezium counts."""


def days(text: str) -> int:
    """Return the days since 1970-01-01 of an ISO date. Raises Unfit for MySQL's zero dates."""
    found = _DAYS.get(text)
    if found is None:
        found = _days(text)
        if len(_DAYS) >= _DAYS_MAX:
            _DAYS.clear()
        _DAYS[text] = found
    return found


def _days(text: str) -> int:
    """Count by the civil calendar, extended both ways (Hinnant, "chrono-Compatible Low-Level Date Algorithms")."""
    if text in INFINITE_DAYS:
        return INFINITE_DAYS[text]
    sign = -1 if text[0] == "-" else 1
    year_text, month_text, day_text = text.lstrip("+-").split("-")
    year, month, day = sign * int(year_text), int(month_text), int(day_text)
    if not month or not day:
        raise Unfit("a date with a zero in it has no number of days")
    year -= month < 3  # noqa: PLR2004  the year begins in March here
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1  # noqa: PLR2004
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def clock_us(text: str) -> int:
    """Return the microseconds of a time of day; MySQL's may be negative, or longer than a day."""
    if text[0] == "-":
        return -clock_us(text[1:])
    hours, minutes, rest = text.split(":")
    seconds, _, fraction = rest.partition(".")
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    return whole * 1_000_000 + (int(fraction.ljust(6, "0")[:6]) if fraction else 0)


def moment_us(text: str) -> int:
    """Return the microseconds since 1970 of a date and time, `Z` or not."""
    if text in INFINITE_MS:
        return INFINITE_MS[text]
    day, _, clock = text.partition("T")
    return days(day) * DAY_S * 1_000_000 + clock_us(clock.rstrip("Z"))


def clock_ms(text: str) -> int:
    """Return milliseconds, cut off."""
    return clock_us(text) // 1000


def moment_ms(text: str) -> int:
    """Return milliseconds since 1970, cut off."""
    return INFINITE_MS[text] if text in INFINITE_MS else moment_us(text) // 1000


def moment_ns(text: str) -> int:
    """Return nanoseconds since 1970."""
    if text in INFINITE_MS:
        return INFINITE_MS[text]
    fraction = text.rstrip("Z").partition(".")[2]
    return moment_us(text) * 1000 + (int(fraction.ljust(9, "0")[6:9]) if len(fraction) > 6 else 0)  # noqa: PLR2004


def clock_ns(text: str) -> int:
    """Return the nanoseconds of a time of day."""
    return clock_us(text) * 1000


def duration_us(text: str) -> int:
    """Return the microseconds of an ISO 8601 duration, as Debezium's MicroDuration counts them."""
    sign, (years, months, weeks, day, hours, minutes), us = _duration(text)
    whole = ((weeks * 7 + day) * 24 + hours) * 60 + minutes
    return sign * ((years * 12 + months) * _MONTH_US + whole * 60_000_000 + us)


def duration_text(text: str) -> str:
    """Return an ISO 8601 duration with all its parts, as Debezium's Interval has them."""
    sign, (years, months, weeks, day, hours, minutes), us = _duration(text)
    whole, part = divmod(abs(us), 1_000_000)
    seconds = f"{'-' if us * sign < 0 else ''}{whole}" + (f".{part:06d}".rstrip("0") if part else "")
    parts = [sign * each for each in (years, months, weeks * 7 + day, hours, minutes)]
    return "P{}Y{}M{}DT{}H{}M{}S".format(*parts, seconds)


def _duration(text: str) -> tuple[int, tuple[int, ...], int]:
    """Return sign, whole parts, and the seconds in microseconds."""
    matched = _DURATION.fullmatch(text)
    if matched is None:
        raise Unfit("not an ISO 8601 duration")
    sign, *parts, minus, seconds, fraction = matched.groups()
    us = int(seconds or 0) * 1_000_000 + int((fraction or "").ljust(6, "0")[:6])
    return (-1 if sign else 1), tuple(int(part or 0) for part in parts), -us if minus else us
