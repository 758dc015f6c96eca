"""Dates and times as numbers and as strings, the way messages carry them, in the neutral form: no zeros at the end."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAYS_MIN, _DAYS_MAX = date.min.toordinal() - _EPOCH_DAY, date.max.toordinal() - _EPOCH_DAY
_NS: Final = 1_000_000_000
_MOMENT: Final = re.compile(
    r"([+-]?\d{4,})-(\d\d)-(\d\d)[T ](\d\d:\d\d)(:\d\d)?(?:\.(\d+))?\s*(Z|[+-]\d\d(?::?\d\d)?(?::?\d\d)?)?"
)
_INFINITE_DAYS: Final = {2_147_483_647: "infinity", -2_147_483_648: "-infinity"}
_INFINITE_MOMENTS: Final = {9_223_372_036_825_200_000: "infinity", -9_223_372_036_832_400_000: "-infinity"}
"""As Debezium's connector for PostgreSQL writes them, whatever the unit."""
_INFINITE: Final = frozenset({"infinity", "-infinity"})


def date_of(days: int) -> str:
    """Return the date of a day counted from 1970-01-01; beyond 9999 with a sign, as `types.Kind` says."""
    if days in _INFINITE_DAYS:
        return _INFINITE_DAYS[days]
    if _DAYS_MIN <= days <= _DAYS_MAX:
        return date.fromordinal(days + _EPOCH_DAY).isoformat()
    eras, rest = divmod(days + _EPOCH_DAY - 1, 146_097)
    inner = date.fromordinal(rest + 1)
    year = inner.year + 400 * eras
    sign = "-" if year < 0 else "+" if year > date.max.year else ""
    return f"{sign}{abs(year):04d}{inner.isoformat()[4:]}"


def clock_of(number: int, unit_ns: int) -> str:
    """Return the time that many units after midnight; MySQL's may be negative, or longer than a day."""
    sign, number = ("-", -number) if number < 0 else ("", number)
    seconds, part = divmod(number * unit_ns, _NS)
    return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{_fraction(part)}"


def moment_of(number: int, unit_ns: int) -> str:
    """Return the date and time that many units after 1970, without a zone."""
    days, rest = divmod(number * unit_ns, 86_400 * _NS)
    return f"{date_of(days)}T{clock_of(rest, 1)}"


def clocks(unit_ns: int) -> Callable[[int], str]:
    """Return `clock_of` for units of that many nanoseconds."""
    return lambda number: clock_of(number, unit_ns)


def moments(unit_ns: int, zone: str = "") -> Callable[[int], str]:
    """Return `moment_of` for units of that many nanoseconds, with a zone behind it."""
    return lambda number: _INFINITE_MOMENTS.get(number) or moment_of(number, unit_ns) + zone


def duration_of(micros: int) -> str:
    """Return an ISO 8601 duration of microseconds."""
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    seconds, part = divmod(micros * 1000, _NS)
    return f"PT{sign}{seconds}{_fraction(part)}S"


def trimmed(text: str) -> str:
    """Return a time of day without zeros at the end of its fraction."""
    head, dot, rest = text.partition(".")
    if not dot:
        return text
    digits = len(rest) - len(rest.lstrip("0123456789"))
    kept = rest[:digits].rstrip("0")
    return head + (f".{kept}" if kept else "") + rest[digits:]


def local_moment(text: str) -> str:
    """Return a date and time without a zone in the neutral form. Raises ValueError when it is none."""
    if text in _INFINITE:
        return text
    day, clock, fraction, _ = _parts(text)
    return f"{day}T{clock}{fraction}"


def zoned_moment(text: str) -> str:
    """Return a date and time in UTC; one without a zone is taken as UTC. Raises ValueError when it is none."""
    if text in _INFINITE:
        return text
    day, clock, fraction, zone = _parts(text)
    offset_s = _offset_s(zone)
    if not offset_s:
        return f"{day}T{clock}{fraction}Z"
    seconds = sum(int(part) * unit for part, unit in zip(clock.split(":"), (3600, 60, 1), strict=True)) - offset_s
    days, seconds = divmod(seconds, 86_400)
    moved = date_of(_days(day) + days) if days else day
    return f"{moved}T{clock_of(seconds, _NS)}{fraction}Z"


def zoned_clock(text: str) -> str:
    """Return a time of day with its zone, as `23:59:59.5+02:00`; Z is written as +00:00."""
    plain = trimmed(text)
    return plain[:-1] + "+00:00" if plain.endswith("Z") else plain


def _parts(text: str) -> tuple[str, str, str, str]:
    found = _MOMENT.fullmatch(text)
    if found is None:
        msg = "not a date with a time"
        raise ValueError(msg)
    year, month, day, minutes, seconds, fraction, zone = found.groups()
    digits = (fraction or "").rstrip("0")
    return f"{year}-{month}-{day}", minutes + (seconds or ":00"), f".{digits}" if digits else "", zone or ""


def _offset_s(zone: str) -> int:
    if zone in {"", "Z"}:
        return 0
    digits = zone[1:].replace(":", "").ljust(6, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:])
    return -seconds if zone[0] == "-" else seconds


def _days(day: str) -> int:
    """Return the days since 1970 of an ISO date of any year."""
    sign = -1 if day.startswith("-") else 1
    year, month, number = day.lstrip("+-").split("-")
    eras, within = divmod(sign * int(year) - 1, 400)
    return date(within + 1, int(month), int(number)).toordinal() + eras * 146_097 - _EPOCH_DAY


def _fraction(part_ns: int) -> str:
    return f".{part_ns:09d}".rstrip("0") if part_ns else ""
