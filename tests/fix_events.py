"""Binlog events built by the protocol's documentation, for tests without a server."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cdcsync.mysql.config import ZeroDates
from cdcsync.mysql.rows import RowsDecoder
from cdcsync.mysql.table_map import MYSQL, parse
from cdcsync.mysql.types import described, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.mysql.types import Hints

HEADER = 19


def event(kind: int, body: bytes) -> bytes:
    """An event without a checksum."""
    return struct.pack("<IBIIIH", 1_700_000_000, kind, 1, HEADER + len(body), 0, 0) + body


def packed(number: int) -> bytes:
    """A length-encoded integer."""
    if number < 0xFB:
        return bytes([number])
    if number < 1 << 16:
        return b"\xfc" + number.to_bytes(2, "little")
    return b"\xfd" + number.to_bytes(3, "little") if number < 1 << 24 else b"\xfe" + number.to_bytes(8, "little")


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return packed(len(raw)) + raw


def bitmap(bits: Sequence[bool], *, high_first: bool = False) -> bytes:
    made = bytearray((len(bits) + 7) // 8)
    for index, bit in enumerate(bits):
        made[index >> 3] |= (128 >> (index & 7) if high_first else 1 << (index & 7)) * bit
    return bytes(made)


def field(kind: int, raw: bytes) -> bytes:
    """A field of the optional metadata."""
    return bytes([kind]) + packed(len(raw)) + raw


def table_map(columns: Sequence[tuple[int, bytes]], optional: bytes = b"", *, table_id: int = 7) -> bytes:
    """A TABLE_MAP event of shop.t, from each column's type and metadata."""
    metas = b"".join(meta for _, meta in columns)
    body = table_id.to_bytes(6, "little") + b"\x01\0" + b"\4shop\0" + b"\1t\0" + packed(len(columns))
    body += bytes(code for code, _ in columns) + packed(len(metas)) + metas
    return event(19, body + bitmap([True] * len(columns)) + optional)


def names(*listed: str) -> bytes:
    return field(4, b"".join(map(string, listed)))


def rows(kind: int, count: int, *images: bytes, bitmaps: Sequence[bytes] = (), flags: int = 1) -> bytes:
    """An event of rows of the table with number 7, each image with its null bits."""
    body = (7).to_bytes(6, "little") + struct.pack("<H", flags)
    if kind >= 30:
        body += b"\2\0"
    full = bitmap([True] * count)
    shown = bitmaps or ([full, full] if kind in {24, 31, 39} else [full])
    return event(kind, body + packed(count) + b"".join(shown) + b"".join(images))


def decoder(mapped: bytes, *, hints: Hints | None = None, zero_dates: ZeroDates = ZeroDates.STOP) -> RowsDecoder:
    layout = described(parse(mapped, HEADER, len(mapped), MYSQL), hints)
    return RowsDecoder(layout, table_of(layout), zero_dates)
