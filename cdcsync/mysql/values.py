"""How each column's bytes in a row become a value: a code for the loop in `rows`, a width, and a reader for the rare ones."""

from __future__ import annotations

import ipaddress
import struct
import uuid
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from cdcsync.mysql import table_map as log
from cdcsync.mysql.binary_json import json_text
from cdcsync.mysql.charsets import BINARY, UTF8, text_decoder
from cdcsync.mysql.temporal import (
    HIRES_BYTES,
    Dates,
    datetime_reader,
    hires_datetime_reader,
    hires_time_reader,
    hires_timestamp_reader,
    read_time,
    time2_reader,
    timestamp_reader,
)
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Value
    from cdcsync.mysql.table_map import Layout
    from cdcsync.types import Type

    Reader = Callable[[bytes], Value]

TEXT, INT32, UINT32, INT64, UINT64, DATETIME2, TIMESTAMP2, DECIMAL, DATE, INT8, UINT8 = range(1, 12)
INT16, UINT16, INT24, UINT24, DOUBLE, BYTES, SIZED, FIXED, JSON = range(12, 21)
"""Codes that `rows` has as literals. SIZED: a length of `width` bytes, then what the reader takes; FIXED: `width` bytes."""

_DIGITS_INLINE: Final = 18
"""Decimals of up to so many digits fit into 64 bits."""
_DECIMAL_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes that so many digits take (`dig2bytes` in decimal.c)."""
_EWKB_SRID: Final = 0x20000000
_INTEGERS: Final = {
    log.TINY: (INT8, UINT8, 1),
    log.SHORT: (INT16, UINT16, 2),
    log.INT24: (INT24, UINT24, 3),
    log.LONG: (INT32, UINT32, 4),
    log.LONGLONG: (INT64, UINT64, 8),
}


class Plan(NamedTuple):
    """How one column is read."""

    code: int
    width: int
    reader: Reader | None = None


def plan_of(layout: Layout, index: int, kind: Type | None, dates: Dates) -> Plan:
    """Return how a column is read; without its type, only how long it is."""
    code, meta = layout.type_codes[index], layout.metas[index]
    if code in _INTEGERS:
        signed, unsigned, width = _INTEGERS[code]
        return Plan(unsigned if kind is not None and kind.unsigned else signed, width)
    if code in _FRACTIONAL:
        where, width = _FRACTIONAL[code]
        return Plan(where, width + (meta + 1) // 2)
    if code == log.DATE:
        return Plan(DATE, 3)
    if code == log.DECIMAL:
        return _decimal(meta & 0xFF, meta >> 8)
    if code == log.DOUBLE:
        return Plan(DOUBLE, 8)
    if code == log.JSON:
        return Plan(JSON, meta, json_text)
    if code in log.CHARACTER:
        return _string(layout, index, kind)
    if code in {log.GEOMETRY, log.VECTOR}:
        return Plan(SIZED, meta, ewkb) if code == log.GEOMETRY else Plan(BYTES, meta)
    return _fixed(code, meta, kind, dates)


_FRACTIONAL: Final = {log.DATETIME2: (DATETIME2, 5), log.TIMESTAMP2: (TIMESTAMP2, 4)}


def _fixed(code: int, meta: int, kind: Type | None, dates: Dates) -> Plan:
    """Return how one of the rarer types of one width is read."""
    labels = kind.labels if kind is not None else ()
    if code == log.TIME2:
        return Plan(FIXED, 3 + (meta + 1) // 2, time2_reader(meta))
    if code == log.BIT:
        bits = (meta >> 8) * 8 + (meta & 0xFF)
        return Plan(FIXED, (bits + 7) // 8, bit_reader(bits))
    if code in {log.ENUM, log.SET}:
        return Plan(FIXED, meta, _enum(labels) if code == log.ENUM else _set(labels))
    if code in {log.FLOAT, log.YEAR}:
        return Plan(FIXED, 4, read_single) if code == log.FLOAT else Plan(FIXED, 1, _read_year)
    name = {log.TIME: "time", log.DATETIME: "datetime", log.TIMESTAMP: "timestamp"}[code]
    return Plan(FIXED, HIRES_BYTES[name][meta], _old_reader(name, meta, dates))


def _old_reader(name: str, precision: int, dates: Dates) -> Reader:
    """Return what reads times from before 5.6, and those that MariaDB still writes that way."""
    if not precision:
        return {"time": read_time, "datetime": datetime_reader(dates), "timestamp": timestamp_reader(dates)}[name]
    if name == "time":
        return hires_time_reader(precision)
    return (hires_datetime_reader if name == "datetime" else hires_timestamp_reader)(precision, dates)


def _string(layout: Layout, index: int, kind: Type | None) -> Plan:
    """Return how text and bytes are read: after their length."""
    code, meta = layout.type_codes[index], layout.metas[index]
    width = meta if code in {log.BLOB, log.BLOB_COMPRESSED} else (1 if meta < 256 else 2)  # noqa: PLR2004  one byte
    if kind is None:
        return Plan(BYTES, width)
    charset = layout.charsets[index]
    if code in {log.BLOB_COMPRESSED, log.VARCHAR_COMPRESSED}:
        read: Reader = bytes if charset == BINARY else text_decoder(charset)
        return Plan(SIZED, width, lambda raw: read(uncompressed(raw)))
    if kind.kind is Kind.UUID:
        return Plan(SIZED, width, lambda raw: str(uuid.UUID(bytes=raw.ljust(16, b"\0"))))
    if kind.kind is Kind.OPAQUE:
        return Plan(SIZED, width, _address_reader(meta))
    if charset == BINARY:
        return Plan(SIZED, width, _padded(meta)) if code == log.STRING else Plan(BYTES, width)
    return Plan(TEXT, width) if charset in UTF8 else Plan(SIZED, width, text_decoder(charset))


def _padded(length: int) -> Reader:
    """BINARY(n) is logged without the zero bytes at its end."""
    return lambda raw: raw.ljust(length, b"\0")


def _address_reader(length: int) -> Reader:
    """Return what reads MariaDB's INET4 and INET6, as the server writes them."""
    if length == 4:  # noqa: PLR2004  of an INET4
        return lambda raw: str(ipaddress.IPv4Address(raw.ljust(4, b"\0")))
    return lambda raw: inet6_text(raw.ljust(16, b"\0"))


def inet6_text(raw: bytes) -> str:
    """Return an IPv6 address as MariaDB writes it: the first longest run of zeros is "::", if of one group alone."""
    groups = [int.from_bytes(raw[at : at + 2], "big") for at in range(0, 16, 2)]
    runs = [next((end for end in range(start, 8) if groups[end]), 8) - start for start in range(8)]
    longest = max(runs)
    if not longest:
        return ":".join([f"{group:x}" for group in groups])
    start = runs.index(longest)
    head = ":".join([f"{group:x}" for group in groups[:start]])
    tail = ":".join([f"{group:x}" for group in groups[start + longest :]])
    if start == 0 and (longest == 6 or (longest == 5 and groups[5] == 0xFFFF)):  # noqa: PLR2004  an IPv4 address
        tail = ("ffff:" if groups[5] else "") + str(ipaddress.IPv4Address(raw[12:]))
    return f"{head}::{tail}"


def uncompressed(raw: bytes) -> bytes:
    """Return the value of a column that MariaDB compresses itself (field_comp.cc).

    The first byte: 0 for a value as it is; else 8 in its upper half (zlib), 8 in its lower half for a stream without
    head, and the size of the length that follows. Raises ValueError.
    """
    if not raw or raw[0] == 0:
        return raw[1:]
    size = raw[0] & 7
    if raw[0] >> 4 != 8:  # noqa: PLR2004  zlib
        raise ValueError(raw[0])
    length = int.from_bytes(raw[1 : 1 + size], "big")
    try:
        value = zlib.decompress(raw[1 + size :], -15 if raw[0] & 8 else 15, length)
    except zlib.error:
        raise ValueError(length) from None
    if len(value) != length:
        raise ValueError(length)
    return value


def _decimal(precision: int, scale: int) -> Plan:
    """DECIMAL: groups of nine digits from the point outwards, big-endian, the sign in the first bit."""
    groups = decimal_groups(precision, scale)
    width = sum(size for size, _ in groups)
    if precision <= _DIGITS_INLINE:
        return Plan(DECIMAL, width)
    return Plan(FIXED, width, decimal_reader(precision, scale))


def decimal_groups(precision: int, scale: int) -> list[tuple[int, int]]:
    """Return bytes and digits of each group."""
    whole, few = divmod(precision - scale, 9)
    parts, rest = divmod(scale, 9)
    digits = [few] * bool(few) + [9] * (whole + parts) + [rest] * bool(rest)
    return [(_DECIMAL_BYTES[count], count) for count in digits]


def decimal_reader(precision: int, scale: int) -> Reader:
    """Return what reads decimals of any size."""
    groups = decimal_groups(precision, scale)
    size = sum(width for width, _ in groups)
    ones = (1 << size * 8) - 1
    sign = 1 << size * 8 - 1

    def read(raw: bytes) -> str:
        packed = int.from_bytes(raw, "big") ^ sign
        negative = bool(packed & sign)
        packed = packed ^ ones if negative else packed
        total, shift = 0, size * 8
        for width, digits in groups:
            shift -= width * 8
            total = total * 10**digits + (packed >> shift & (1 << width * 8) - 1)
        return decimal_text(-total if negative else total, scale)

    return read


def decimal_text(total: int, scale: int) -> str:
    """Return a number of units of the last digit in plain notation."""
    text = f"{abs(total):0{scale + 1}d}"
    return ("-" if total < 0 else "") + (f"{text[:-scale]}.{text[-scale:]}" if scale else text)


_single: Final = struct.Struct("<f")


def read_single(raw: bytes) -> float:
    """Return the shortest number that is the same single."""
    return shortest(_single.unpack(raw)[0])


_NORMAL_MIN: Final = 2.0**-126
"""Singles below it have fewer digits than six."""


def shortest(value: float) -> float:
    """Return the number of the fewest digits that is the same single."""
    packed = _single.pack(value)
    for digits in range(6 if abs(value) >= _NORMAL_MIN else 1, 10):
        short = float(f"{value:.{digits}g}")
        try:
            if _single.pack(short) == packed:
                return short
        except OverflowError:
            continue
    return value


def _read_year(raw: bytes) -> int:
    return raw[0] + 1900 if raw[0] else 0


def bit_reader(bits: int) -> Reader:
    """Return what reads BIT(n), big-endian."""
    return lambda raw: f"{int.from_bytes(raw, 'big'):0{bits}b}"


def _enum(labels: tuple[str, ...]) -> Reader:
    """Return what reads ENUM: 0 is the empty text that stands for a wrong value."""
    known = ("", *labels)
    return lambda raw: known[int.from_bytes(raw, "little")]


def _set(labels: tuple[str, ...]) -> Reader:
    def read(raw: bytes) -> tuple[str, ...]:
        bits = int.from_bytes(raw, "little")
        if bits >> len(labels):
            raise IndexError(bits)
        return tuple([label for place, label in enumerate(labels) if bits >> place & 1])

    return read


def ewkb(raw: bytes) -> bytes:
    """Return the server's own form, SRID and then WKB, as EWKB; one without SRID stays WKB."""
    srid = raw[:4]
    if srid == bytes(4):
        return raw[4:]
    kind = int.from_bytes(raw[5:9], "little") | _EWKB_SRID
    return raw[4:5] + kind.to_bytes(4, "little") + srid + raw[9:]
