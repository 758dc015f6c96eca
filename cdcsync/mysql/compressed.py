"""Events inside compressed ones: MariaDB's queries and rows under `log_bin_compress`, MySQL's TRANSACTION_PAYLOAD.

MariaDB: `query_event_uncompress` and `row_log_event_uncompress` in log_event.cc. MySQL 8.0.20: "Transaction payload
event" in the internals manual (libbinlogevents, codecs/binary.cpp and zstd_dec.cpp).
"""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Final

from cdcsync.mysql.table_map import fault, lenenc

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER: Final = 19
"""Bytes before an event's body."""
_TYPE, _SIZE = 4, 9
"""Where in it type (1 byte) and size of the event (4) stand."""
EVENT_BYTES_MAX: Final = 1 << 30
"""The largest event that a server takes (slave_max_allowed_packet)."""
CHUNK_BYTES: Final = 1 << 20
"""Of a payload that is unpacked at once."""
PLAIN: Final = {165: 2, 166: 23, 167: 24, 168: 25, 169: 30, 170: 31, 171: 32}
"""MariaDB's compressed events, and what each is when it is not."""
_TWO_BITMAPS: Final = frozenset({24, 31})
_SECOND_VERSION: Final = frozenset({30, 31, 32})
TRANSACTION_PAYLOAD: Final = 40
_END, _PAYLOAD_SIZE, _COMPRESSION, _UNCOMPRESSED_SIZE = range(4)
_ZSTD, _NONE = 0, 255


def query(event: bytes, end: int) -> bytes:
    """Return MariaDB's compressed QUERY event as the plain one, header included, without checksum.

    `event` is the whole one, `end` before its checksum. Raises Fatal when it cannot be unpacked.
    """
    schema = event[HEADER + 8]
    status = int.from_bytes(event[HEADER + 11 : HEADER + 13], "little")
    return _plain(event, HEADER + 13 + status + schema + 1, end)


def rows(event: bytes, end: int) -> bytes:
    """Return a compressed event that changes rows as the plain one, as `query` does."""
    at = HEADER + 8
    plain = PLAIN[event[_TYPE]]
    try:
        if plain in _SECOND_VERSION:
            at += int.from_bytes(event[at : at + 2], "little")
        count, at = lenenc(event, at)
    except IndexError:
        raise fault("a compressed event", "it is cut off") from None
    return _plain(event, at + (count + 7) // 8 * (2 if plain in _TWO_BITMAPS else 1), end)


def _plain(event: bytes, at: int, end: int) -> bytes:
    """Return the event whose compressed part begins at `at`."""
    try:
        body = _unpacked(event[at:end])
    except (IndexError, ValueError, zlib.error) as error:
        raise fault("a compressed event", f"it cannot be unpacked ({type(error).__name__})") from None
    plain = bytearray(event[:at] + body)
    plain[_TYPE] = PLAIN[event[_TYPE]]
    plain[_SIZE : _SIZE + 4] = len(plain).to_bytes(4, "little")
    return bytes(plain)


def _unpacked(raw: bytes) -> bytes:
    """Return what `binlog_buf_compress` packed: 0x80, method (0: zlib) and size of the length in the first byte."""
    size = raw[0] & 7
    if raw[0] & 0xF8 != 0x80 or not size:  # noqa: PLR2004  the mark, and method 0
        raise ValueError(raw[0])
    length = int.from_bytes(raw[1 : 1 + size], "big")
    if length > EVENT_BYTES_MAX:
        raise ValueError(length)
    unpacker = zlib.decompressobj()
    body = unpacker.decompress(raw[1 + size :], length or 1)
    if len(body) != length or not unpacker.eof or unpacker.unused_data:
        raise ValueError(length)
    return body


def payload(event: bytes, end: int) -> Iterator[bytes]:
    """Yield the events inside a TRANSACTION_PAYLOAD, each whole and without checksum.

    Memory holds the largest of them and a chunk, whatever the transaction's size. Raises Fatal for what cannot be
    unpacked, before the event that it would spoil.
    """
    try:
        yield from _split(event, end)
    except (IndexError, ValueError, ZstdError, EOFError) as error:
        raise fault("a compressed transaction", f"it cannot be unpacked ({type(error).__name__})") from None


def _split(event: bytes, end: int) -> Iterator[bytes]:
    at, fields = _fields(event)
    if fields.get(_COMPRESSION, _ZSTD) not in {_ZSTD, _NONE}:
        raise fault("a compressed transaction", f"compression {fields[_COMPRESSION]} is not known")
    if fields.get(_PAYLOAD_SIZE, end - at) != end - at:
        raise ValueError(end)
    chunks = _raw(event, at, end) if fields.get(_COMPRESSION) == _NONE else _chunks(event, at, end)
    held = bytearray()
    total = 0
    for chunk in chunks:
        held += chunk
        total += len(chunk)
        start = 0
        while len(held) - start >= HEADER:
            size = int.from_bytes(held[start + _SIZE : start + _SIZE + 4], "little")
            if not HEADER <= size <= EVENT_BYTES_MAX or held[start + _TYPE] == TRANSACTION_PAYLOAD:
                raise ValueError(size)
            if len(held) - start < size:
                break
            yield bytes(held[start : start + size])
            start += size
        del held[:start]
    if held or total != fields.get(_UNCOMPRESSED_SIZE, total):
        raise EOFError(total)


def _fields(event: bytes) -> tuple[int, dict[int, int]]:
    """Return where the payload begins, and the numbers that stand before it."""
    at = HEADER
    fields: dict[int, int] = {}
    while True:
        kind, at = lenenc(event, at)
        if kind == _END:
            return at, fields
        if kind > _UNCOMPRESSED_SIZE:
            raise fault("a compressed transaction", f"field {kind} is not known")
        size, at = lenenc(event, at)
        fields[kind] = lenenc(event[at : at + size], 0)[0]
        at += size


def _raw(event: bytes, at: int, end: int) -> Iterator[bytes]:
    for start in range(at, end, CHUNK_BYTES):
        yield event[start : min(start + CHUNK_BYTES, end)]


def _chunks(event: bytes, at: int, end: int) -> Iterator[bytes]:
    """Yield what the payload's frames, one after the other, hold."""
    rest = event[at:end]
    while rest:
        unpacker = ZstdDecompressor()
        yield unpacker.decompress(rest, CHUNK_BYTES)
        while not unpacker.eof:
            if unpacker.needs_input:
                raise EOFError(len(rest))
            yield unpacker.decompress(b"", CHUNK_BYTES)
        rest = unpacker.unused_data
