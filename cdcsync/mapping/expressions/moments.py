"""Dates, times and intervals at run time: canonical text in, canonical text out."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cdcsync.mapping.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  all of it is UTC or has no zone
DAY_US: Final = 86_400_000_000
INFINITIES: Final = ("infinity", "-infinity")


class Span(NamedTuple):
    """An interval: its three parts do not turn into each other."""

    months: int
    days: int
    us: int


def read(text: str) -> datetime:
    """Return the moment of a canonical date or timestamp. Raises Failure outside of the years 1 to 9999."""
    try:
        return datetime.fromisoformat(text[:-1] if text[-1] == "Z" else text)
    except ValueError as error:
        raise Failure("the date is infinite, or outside of the years 1 to 9999") from error


def write(moment: datetime) -> str:
    """Return a moment's canonical text without a zone."""
    text = moment.isoformat()
    return text.rstrip("0") if moment.microsecond else text


def microseconds(moment: datetime) -> int:
    """Return microseconds since 1970."""
    past = moment - EPOCH
    return (past.days * 86400 + past.seconds) * 1_000_000 + past.microseconds


def from_microseconds(value: int) -> datetime:
    """Return the moment so many microseconds after 1970."""
    return EPOCH + timedelta(microseconds=value)


def order(text: str) -> tuple[int, int, str]:
    """Return what orders dates and timestamps of one kind, years beyond 1 to 9999 and infinities included."""
    first = text[0]
    if "0" <= first < ":":
        return 0, 0, text.rstrip("Z")
    if text in INFINITIES:
        return (3, 0, "") if first == "i" else (-3, 0, "")
    year, _, rest = text[1:].partition("-")
    return (1, int(year), rest.rstrip("Z")) if first == "+" else (-1, -int(year), rest.rstrip("Z"))


_MOMENT: Final = re.compile(
    r"\s*(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,12}))?)?)?"
    r"\s*(Z|UTC|[+-]\d{2}(?::?\d{2})?)?\s*",
    re.ASCII | re.IGNORECASE,
)
_CLOCK: Final = re.compile(r"\s*(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,12}))?)?\s*", re.ASCII)


def date_of_text(text: str) -> str:
    """Return the date that a text is."""
    if text.strip().lower() in INFINITIES:
        return text.strip().lower()
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise Failure("the text is no date")
    return write(_built(found))[:10]


def _built(found: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    try:
        made = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001  its zone is added by the caller
        return made + timedelta(microseconds=_fraction(found[7]))
    except (ValueError, OverflowError) as error:
        raise Failure("there is no such day or time") from error


def _fraction(digits: str | None) -> int:
    """Return microseconds of the digits after the point, rounded."""
    return (int(digits.ljust(7, "0")[:7]) + 5) // 10 if digits else 0


def timestamp_of_text(text: str) -> str:
    """Return the timestamp without zone that a text is; a zone in it is not looked at, as in PostgreSQL."""
    if text.strip().lower() in INFINITIES:
        return text.strip().lower()
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise Failure("the text is no timestamp")
    return write(_built(found))


def timestamptz_of_text(text: str) -> str:
    """Return the moment that a text is; without a zone it is in UTC."""
    if text.strip().lower() in INFINITIES:
        return text.strip().lower()
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise Failure("the text is no timestamp")
    made, zone = _built(found), (found[8] or "Z").upper()
    if zone not in ("Z", "UTC"):
        away = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:].lstrip(":") or 0))
        made = made - away if zone[0] == "+" else made + away
    return write(made) + "Z"


def time_of_text(text: str) -> str:
    """Return the time of day that a text is."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise Failure("the text is no time")
    try:
        made = time(int(found[1]), int(found[2]), int(found[3] or 0), min(_fraction(found[4]), 999_999))
    except ValueError as error:
        raise Failure("there is no such time") from error
    text = made.isoformat()
    return text.rstrip("0") if made.microsecond else text


def midnight(text: str) -> str:
    """Return the timestamp at which a date begins."""
    return text if text in INFINITIES else f"{text}T00:00:00"


def zoned(text: str) -> str:
    """Return a timestamp as one in UTC."""
    return text if text in INFINITIES else f"{text}Z"


def unzoned(text: str) -> str:
    """Return a moment as a timestamp in UTC without its zone."""
    return text.removesuffix("Z")


def day(text: str) -> str:
    """Return a timestamp's date."""
    return text.partition("T")[0]


def clock(text: str) -> str:
    """Return a timestamp's time of day."""
    if text in INFINITIES:
        raise Failure("an infinite timestamp has no time of day")
    return text.partition("T")[2].removesuffix("Z")


def spaced(text: str) -> str:
    """Return a timestamp as PostgreSQL and DuckDB write it."""
    return text.replace("T", " ", 1)


_UNITS: Final = {
    "microsecond": (0, 0, 1), "millisecond": (0, 0, 1000), "second": (0, 0, 1_000_000),
    "minute": (0, 0, 60_000_000), "hour": (0, 0, 3_600_000_000), "day": (0, 1, 0), "week": (0, 7, 0),
    "month": (1, 0, 0), "quarter": (3, 0, 0), "year": (12, 0, 0), "decade": (120, 0, 0), "century": (1200, 0, 0),
}  # fmt: skip
_SHORT: Final = {"us": "microsecond", "ms": "millisecond", "s": "second", "sec": "second", "min": "minute", "h": "hour",
                 "hr": "hour", "d": "day", "w": "week", "mon": "month", "y": "year", "yr": "year", "centurie": "century"}  # fmt: skip
_PART: Final = re.compile(r"\s*([+-]?\d+)(?:\.(\d+))?\s*([a-z]+)", re.ASCII | re.IGNORECASE)
_HOURS: Final = re.compile(r"\s*([+-]?)(\d+):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?\s*$", re.ASCII)
_ISO: Final = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)W)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d{1,6}))?S)?)?",
    re.ASCII,
)


def interval_of_text(text: str) -> Span:
    """Return the interval that a text is: `1 day 02:00`, `3 hours`, or ISO 8601."""
    if text.startswith("P"):
        return interval_of_iso(text)
    months = days = us = at = 0
    while at < len(text.rstrip()):
        found = _PART.match(text, at)
        if found is None:
            hours = _HOURS.match(text, at)
            if hours is None:
                raise Failure("the text is no interval")
            sign = -1 if hours[1] == "-" else 1
            us += sign * _clock_us(hours[2], hours[3], hours[4], hours[5])
            break
        unit = _unit(found[3].lower())
        if unit is None or (found[2] and unit[2] == 0):
            raise Failure("the text is no interval")
        number = int(found[1])
        months, days, us = months + number * unit[0], days + number * unit[1], us + number * unit[2]
        if found[2]:
            part = round(int(found[2]) * unit[2] / 10 ** len(found[2]))
            us += -part if found[1][0] == "-" else part
        at = found.end()
    return Span(months, days, us)


def _unit(word: str) -> tuple[int, int, int] | None:
    single = word.removesuffix("s") or word
    return (
        _UNITS.get(word) or _UNITS.get(_SHORT.get(word, "")) or _UNITS.get(single) or _UNITS.get(_SHORT.get(single, ""))
    )


def _clock_us(hours: str, minutes: str, seconds: str | None, fraction: str | None) -> int:
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds or 0)
    return whole * 1_000_000 + int((fraction or "").ljust(6, "0"))


def interval_of_iso(text: str) -> Span:
    """Return the interval of a canonical text."""
    found = _ISO.fullmatch(text)
    if found is None:
        raise Failure("the interval is not in a form that can be computed with")
    years, months, weeks, days, hours, minutes, sign, seconds, fraction = found.groups(default="")
    us = int(seconds or 0) * 1_000_000 + int((fraction or "").ljust(6, "0"))
    us = (-us if sign else us) + (int(hours or 0) * 60 + int(minutes or 0)) * 60_000_000
    return Span(int(years or 0) * 12 + int(months or 0), int(weeks or 0) * 7 + int(days or 0), us)


def iso_interval(span: Span) -> str:
    """Return an interval's canonical text, as PostgreSQL writes ISO 8601."""
    years, months = _cut(span.months, 12)
    hours, rest = _cut(span.us, 3_600_000_000)
    minutes, rest = _cut(rest, 60_000_000)
    big = "".join(f"{value}{letter}" for value, letter in ((years, "Y"), (months, "M"), (span.days, "D")) if value)
    small = "".join(f"{value}{letter}" for value, letter in ((hours, "H"), (minutes, "M")) if value)
    if rest:
        seconds, fraction = divmod(abs(rest), 1_000_000)
        small += f"{'-' if rest < 0 else ''}{seconds}{f'.{fraction:06d}'.rstrip('0') if fraction else ''}S"
    if not big and not small:
        return "PT0S"
    return f"P{big}{'T' + small if small else ''}"


def _cut(value: int, by: int) -> tuple[int, int]:
    """Return quotient and rest, both with the sign of the value."""
    quotient, rest = divmod(abs(value), by)
    return (quotient, rest) if value >= 0 else (-quotient, -rest)


def shifted(moment: datetime, span: Span) -> datetime:
    """Return the moment an interval later: months first, the day cut to the month's end."""
    try:
        if span.months:
            years, month = divmod(moment.year * 12 + moment.month - 1 + span.months, 12)
            last = calendar.monthrange(years, month + 1)[1]
            moment = moment.replace(year=years, month=month + 1, day=min(moment.day, last))
        return moment + timedelta(days=span.days, microseconds=span.us)
    except (ValueError, OverflowError, calendar.IllegalMonthError) as error:
        raise Failure("the date is out of range") from error


def plus(text: str, span: Span) -> str:
    """Return a timestamp and an interval; an infinite one stays."""
    if text in INFINITIES:
        return text
    made = write(shifted(read(text), span))
    return made + "Z" if text[-1] == "Z" else made


def minus(text: str, span: Span) -> str:
    """Return a timestamp less an interval."""
    return plus(text, Span(-span.months, -span.days, -span.us))


def between(later: str, earlier: str) -> Span:
    """Return the time between two timestamps in days and what is left."""
    days, us = _cut(microseconds(read(later)) - microseconds(read(earlier)), DAY_US)
    return Span(0, days, us)


def plus_days(text: str, days: int) -> str:
    """Return the date so many days later."""
    if text in INFINITIES:
        return text
    return write(shifted(read(text), Span(0, days, 0)))[:10]


def days_between(later: str, earlier: str) -> int:
    """Return the days from one date to another."""
    return (read(later) - read(earlier)).days


def truncated(unit: str) -> Callable[[str], str]:
    """Return what cuts a timestamp to the beginning of its unit."""
    ends = {"year": (4, "-01-01T00:00:00"), "month": (7, "-01T00:00:00"), "day": (10, "T00:00:00"),
            "hour": (13, ":00:00"), "minute": (16, ":00"), "second": (19, "")}  # fmt: skip
    if unit in ends:
        length, rest = ends[unit]

        def cut(text: str) -> str:
            if not "0" <= text[0] < ":":
                if text in INFINITIES:
                    return text
                read(text)
            made = text[:length] + rest
            return made + "Z" if text[-1] == "Z" else made

        return cut

    def moved(text: str) -> str:
        if text in INFINITIES:
            return text
        made = write(_to_begin(read(text), unit))
        return made + "Z" if text[-1] == "Z" else made

    _to_begin(EPOCH, unit)
    return moved


def _to_begin(moment: datetime, unit: str) -> datetime:
    day_begin = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "week":
        return shifted(day_begin, Span(0, -moment.weekday(), 0))
    if unit == "quarter":
        return day_begin.replace(month=(moment.month - 1) // 3 * 3 + 1, day=1)
    if unit == "milliseconds":
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    if unit == "microseconds":
        return moment
    raise ValueError("no such unit; write year, quarter, month, week, day, hour, minute, second, milliseconds")


PARTS: Final[dict[str, Callable[[datetime], Any]]] = {
    "year": lambda at: at.year,
    "month": lambda at: at.month,
    "day": lambda at: at.day,
    "hour": lambda at: at.hour,
    "minute": lambda at: at.minute,
    "quarter": lambda at: (at.month + 2) // 3,
    "week": lambda at: at.isocalendar()[1],
    "isoyear": lambda at: at.isocalendar()[0],
    "dow": lambda at: at.isoweekday() % 7,
    "isodow": lambda at: at.isoweekday(),
    "doy": lambda at: at.timetuple().tm_yday,
    "decade": lambda at: at.year // 10,
    "century": lambda at: (at.year + 99) // 100,
}
"""Whole parts of a moment."""


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo:
    """Return a time zone by its name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("no such time zone; write one as Europe/Berlin") from error


def to_zone(name: str) -> Callable[[str], str]:
    """Return what turns a moment into the wall clock of a zone."""
    there = zone(name)

    def local(text: str) -> str:
        if text in INFINITIES:
            return text
        return write(_in_range(lambda: read(text).replace(tzinfo=UTC).astimezone(there)).replace(tzinfo=None))

    return local


def from_zone(name: str) -> Callable[[str], str]:
    """Return what turns the wall clock of a zone into the moment."""
    there = zone(name)

    def moment(text: str) -> str:
        if text in INFINITIES:
            return text
        return write(_in_range(lambda: read(text).replace(tzinfo=there).astimezone(UTC)).replace(tzinfo=None)) + "Z"

    return moment


def _in_range(make: Callable[[], datetime]) -> datetime:
    try:
        return make()
    except OverflowError as error:
        raise Failure("the date is out of range") from error


def made_date(year: int, month: int, day_of_month: int) -> str:
    """Return the date of its parts."""
    try:
        return date(year, month, day_of_month).isoformat()
    except (ValueError, OverflowError) as error:
        raise Failure("there is no such day") from error
