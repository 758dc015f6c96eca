"""Durations, sizes and times as a configuration or a command writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import AwareDatetime, BeforeValidator, ByteSize

SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:$|[T ]\d)")
_PART: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def duration(value: object) -> object:
    """Take "2h", "1h 30m", "500ms", and a plain number of seconds. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    if not isinstance(value, str):
        return value
    total, end = 0.0, 0
    while end < len(value):
        part = _PART.match(value, end)
        if part is None or part[2] not in SECONDS:
            break
        total += float(part[1]) * SECONDS[part[2]]
        end = part.end()
    if not value or end < len(value):
        msg = "not a duration; write 500ms, 30s, 10m, 2h or 1d"
        raise ValueError(msg)
    return timedelta(seconds=total)


Duration = Annotated[timedelta, BeforeValidator(duration)]
"""A timedelta, written as "2h" or as seconds."""


def _zoned(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        msg = f"not a time: {value!r}; write it with its zone, as 2026-11-24T08:00:00Z"
        raise ValueError(msg) from None


Moment = Annotated[AwareDatetime, BeforeValidator(_zoned)]
"""A time with its zone, in ISO 8601."""

Size = ByteSize
"""Bytes, written as "10GB", "16MiB" or a number."""


def is_moment(text: str) -> bool:
    """Return whether a word begins as a time does that `moment` takes."""
    return _DAY.match(text) is not None


def moment(text: str) -> int:
    """Return microseconds since 1970 UTC of an ISO 8601 time, taken as UTC where it names no zone. Raises ValueError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        msg = "not a time; write 2026-11-24T10:00:00Z, or with an offset as +01:00"
        raise ValueError(msg) from error
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def first_word(value: object) -> object:
    """Return the word of a choice that is written as `word` or as `{word: ..}`; None where it is neither."""
    if isinstance(value, dict):
        return next(iter(value), None)
    return value if isinstance(value, str) else None
