"""How values are written, in Debezium's words: its handling modes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

PLACEHOLDER: Final = "__debezium_unavailable_value"


class Unfit(ValueError):  # noqa: N818  a finding about one value
    """The mode cannot say this value; the text says which mode can."""


class Decimals(enum.StrEnum):
    """`decimal.handling.mode`."""

    PRECISE = "precise"
    """The unscaled number's bytes, base64 in JSON."""
    DOUBLE = "double"
    """A number, rounded to a double."""
    STRING = "string"


class Times(enum.StrEnum):
    """`time.precision.mode`."""

    ADAPTIVE = "adaptive"
    """Milliseconds up to three digits of a fraction, else microseconds or nanoseconds."""
    ADAPTIVE_TIME_MICROSECONDS = "adaptive_time_microseconds"
    """As adaptive, a time of day always in microseconds."""
    CONNECT = "connect"
    """Kafka Connect's own Date, Time and Timestamp: milliseconds."""


class Binary(enum.StrEnum):
    """`binary.handling.mode`."""

    BYTES = "bytes"
    """base64 in JSON."""
    BASE64 = "base64"
    BASE64_URL_SAFE = "base64-url-safe"
    HEX = "hex"


class Unsigned(enum.StrEnum):
    """`bigint.unsigned.handling.mode`."""

    LONG = "long"
    """A number; above 2^63-1 only JSON without schema has room for it."""
    PRECISE = "precise"


class Intervals(enum.StrEnum):
    """`interval.handling.mode`."""

    NUMERIC = "numeric"
    """Microseconds; a month is 30.4375 days."""
    STRING = "string"
    """ISO 8601, all parts: `P1Y2M3DT4H5M6.7S`."""


@dataclass(frozen=True, slots=True)
class Modes:
    """All of them."""

    decimals: Decimals = Decimals.PRECISE
    times: Times = Times.ADAPTIVE
    binary: Binary = Binary.BYTES
    unsigned: Unsigned = Unsigned.LONG
    intervals: Intervals = Intervals.NUMERIC
    unavailable: str = PLACEHOLDER
    """What stands for a value that the log did not carry."""
    schemas: bool = False
    """Whether the values go with a schema, which bounds them."""
    raw: bool = False
    """Whether bytes stay bytes: in Avro."""
