"""Dates and times of MySQL's binary forms, and of its text, in the neutral form: fractions without trailing zeros."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Final

from cdcsync.errors import Fatal
from cdcsync.mysql.config import ZeroDates

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Value

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_COMMON_YEAR: Final = 2001
"""Stands for year 0, which Python does not have, and which MySQL takes for a common one."""
KEPT_MAX: Final = 20_000
"""Texts of dates that a table's decoder keeps."""


class ZeroDate(ValueError):  # noqa: N818  a finding that the decoder turns into its verdict
    """A date that no calendar has, where the pipeline is to stop at it."""


def no_calendar(where: str) -> Fatal:
    """Return the verdict on such a date."""
    msg = f"{where} holds a date that no calendar has"
    return Fatal(msg, hint="`zero_dates: null` or `zero_dates: text` in the source's section lets it through")


class Dates:
    """Makes the text of dates; those that no calendar has become what the policy says."""

    def __init__(self, policy: ZeroDates) -> None:
        self._policy = policy

    def text(self, year: int, month: int, day: int) -> str | None:
        """Return ISO 8601, or None for NULL. Raises ZeroDate."""
        try:
            date(year or _COMMON_YEAR, month, day)
        except ValueError:
            if self._policy is ZeroDates.STOP:
                raise ZeroDate from None
            if self._policy is ZeroDates.NULL:
                return None
        return f"{year:04d}-{month:02d}-{day:02d}"

    def of_packed(self, packed: int) -> str | None:
        """Return the date of year << 9 | month << 5 | day."""
        return self.text(packed >> 9, packed >> 5 & 15, packed & 31)

    def of_joined(self, joined: int) -> str | None:
        """Return the date of (year * 13 + month) << 5 | day."""
        year, month = divmod(joined >> 5, 13)
        return self.text(year, month, joined & 31)

    def checked(self, text: str) -> str | None:
        """Return what a date that begins with YYYY-MM-DD becomes."""
        found = self.text(int(text[:4]), int(text[5:7]), int(text[8:10]))
        return None if found is None else text


def of_day(day: int) -> str:
    """Return the date of a day counted from 1970-01-01."""
    return date.fromordinal(day + _EPOCH_DAY).isoformat()


def clock(packed: int) -> str:
    """Return the time of hour << 12 | minute << 6 | second."""
    return f"{packed >> 12:02d}:{packed >> 6 & 63:02d}:{packed & 63:02d}"


def fraction(number: int, digits: int) -> str:
    """Return a fraction with its point; empty when it is 0."""
    return f".{number:0{digits}d}".rstrip("0") if number else ""


def time2_reader(precision: int) -> Callable[[bytes], str]:
    """Return what reads TIME since 5.6: 3 bytes of time and up to 3 of a fraction, big-endian, 0x800000 being zero."""
    shift = (precision + 1) // 2 * 8
    digits = shift // 4
    zero = 0x800000 << shift

    def read(raw: bytes) -> str:
        packed = int.from_bytes(raw, "big") - zero
        sign, packed = ("-", -packed) if packed < 0 else ("", packed)
        return sign + clock(packed >> shift) + fraction(packed & (1 << shift) - 1, digits)

    return read


def read_time(raw: bytes) -> str:
    """Return a TIME from before 5.6: HHMMSS as a signed number."""
    packed = int.from_bytes(raw, "little", signed=True)
    sign, packed = ("-", -packed) if packed < 0 else ("", packed)
    return f"{sign}{packed // 10_000:02d}:{packed // 100 % 100:02d}:{packed % 100:02d}"


def datetime_reader(dates: Dates) -> Callable[[bytes], str | None]:
    """Return what reads DATETIME from before 5.6: YYYYMMDDHHMMSS as a number."""

    def read(raw: bytes) -> str | None:
        day, time = divmod(int.from_bytes(raw, "little"), 1_000_000)
        found = dates.text(day // 10_000, day // 100 % 100, day % 100)
        return found and f"{found}T{time // 10_000:02d}:{time // 100 % 100:02d}:{time % 100:02d}"

    return read


def timestamp_reader(dates: Dates) -> Callable[[bytes], str | None]:
    """Return what reads TIMESTAMP from before 5.6: seconds, little-endian."""

    def read(raw: bytes) -> str | None:
        seconds = int.from_bytes(raw, "little")
        if not seconds:
            found = dates.text(0, 0, 0)
            return found and f"{found}T00:00:00Z"
        day, second = divmod(seconds, 86_400)
        return f"{of_day(day)}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"

    return read


_TIME_SECONDS: Final = 839 * 3600
"""One more than the longest TIME."""
HIRES_BYTES: Final = {
    "time": (3, 4, 4, 5, 5, 5, 6),
    "datetime": (8, 6, 6, 7, 7, 7, 8),
    "timestamp": (4, 5, 5, 6, 6, 7, 7),
}
"""By precision, what MariaDB's columns take under mysql56_temporal_format=OFF (field.cc); its log does not say it."""


def hires_time_reader(precision: int) -> Callable[[bytes], str]:
    """Return what reads such a TIME(n): the number of 10^-n seconds since -839 hours, big-endian."""
    unit = 10**precision

    def read(raw: bytes) -> str:
        number = int.from_bytes(raw, "big") - _TIME_SECONDS * unit
        sign, number = ("-", -number) if number < 0 else ("", number)
        return sign + _of_units(number, precision)

    return read


def hires_datetime_reader(precision: int, dates: Dates) -> Callable[[bytes], str | None]:
    """Return what reads such a DATETIME(n): 10^-n seconds, days of 24 hours, months of 32 days, years of 13 months."""

    def read(raw: bytes) -> str | None:
        joined, number = divmod(int.from_bytes(raw, "big"), 86_400 * 10**precision)
        found = dates.of_joined(joined)
        return found and f"{found}T{_of_units(number, precision)}"

    return read


def hires_timestamp_reader(precision: int, dates: Dates) -> Callable[[bytes], str | None]:
    """Return what reads such a TIMESTAMP(n): seconds, 4 bytes, and the fraction, big-endian."""

    def read(raw: bytes) -> str | None:
        seconds, part = int.from_bytes(raw[:4], "big"), int.from_bytes(raw[4:], "big")
        day, second = divmod(seconds, 86_400)
        found = of_day(day) if seconds or part else dates.text(0, 0, 0)
        return found and f"{found}T{_of_units(second * 10**precision + part, precision)}Z"

    return read


def _of_units(number: int, precision: int) -> str:
    seconds, part = divmod(number, 10**precision)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction(part, precision)}"


def trimmed(text: str) -> str:
    """Return a time without zeros at the end of its fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def moment_parser(dates: Dates, zone: str) -> Callable[[str], Value]:
    """Return what reads DATETIME ("" as zone), or TIMESTAMP in a session in UTC ("Z"), as a SELECT shows it."""

    def parse(text: str) -> str | None:
        found = dates.checked(text)
        return found and f"{text[:10]}T{trimmed(text[11:])}{zone}"

    return parse
