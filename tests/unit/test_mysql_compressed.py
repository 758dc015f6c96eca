"""Compressed events: MariaDB's as its servers write them, MySQL's TRANSACTION_PAYLOAD built by its documentation."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from backports import zstd
from fix_events import HEADER, event, packed, rows
from hypothesis import given
from hypothesis import strategies as st

from cdcsync.errors import Fatal
from cdcsync.mysql import compressed

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENTS = [event(2, b"q" * 40), event(19, b""), event(30, bytes(200_000)), event(16, b"\1" * 8)]


def pack(raw: bytes) -> bytes:
    """`binlog_buf_compress`."""
    size = max(1, (len(raw).bit_length() + 7) // 8)
    return bytes([0x80 | size]) + len(raw).to_bytes(size, "big") + zlib.compress(raw)


def payload(
    packed_events: bytes, *, compression: int = 0, size: int | None = None, length: int | None = None, more: bytes = b""
) -> bytes:
    """A TRANSACTION_PAYLOAD event."""
    body = b"\1" + number(len(packed_events) if size is None else size) + b"\2" + number(compression)
    if length is not None:
        body += b"\3" + number(length)
    return event(40, body + more + b"\0" + packed_events)


def number(value: int) -> bytes:
    raw = packed(value)
    return packed(len(raw)) + raw


def unpacked(data: bytes) -> list[bytes]:
    return list(compressed.payload(data, len(data)))


@pytest.mark.parametrize(("kind", "plain"), [(166, 23), (167, 24), (168, 25), (169, 30), (170, 31), (171, 32)])
def test_compressed_rows_are_the_plain_event(kind: int, plain: int) -> None:
    want = rows(plain, 3, b"some rows")
    at = len(want) - len(b"some rows")
    data = bytes([*want[:4], kind, *want[5:at]]) + pack(b"some rows") + b"CRC4"

    got = compressed.rows(data, len(data) - 4)

    assert got == want


def test_a_compressed_query_is_the_plain_event() -> None:
    head = struct.pack("<IIBHH", 1, 2, 4, 0, 5) + b"stats" + b"shop\0"
    data = event(165, head + pack(b"ALTER TABLE t"))

    assert compressed.query(data, len(data)) == event(2, head + b"ALTER TABLE t")


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"\x80",
        b"\x91\x05" + zlib.compress(b"hello"),
        b"\x81\x04" + zlib.compress(b"hello"),
        b"\x81\x06" + zlib.compress(b"hello"),
        pack(b"hello")[:-1],
        pack(b"hello") + b"x",
        b"\x84\xff\xff\xff\xff" + zlib.compress(b"hello"),
    ],
    ids=["empty", "no size", "method", "shorter", "longer", "cut off", "more", "huge"],
)
def test_a_compressed_event_that_is_spoilt_stops(spoilt: bytes) -> None:
    data = bytes([*rows(23, 3)[:4], 166, *rows(23, 3)[5:]]) + spoilt

    with pytest.raises(Fatal, match="a compressed event: it cannot be unpacked"):
        compressed.rows(data, len(data))


def frames(pieces: Sequence[bytes]) -> bytes:
    return b"".join([zstd.compress(piece) for piece in pieces])


def test_the_events_of_a_payload_in_one_frame_and_in_several() -> None:
    whole = b"".join(EVENTS)

    for data in (
        payload(frames([whole]), length=len(whole)),
        payload(frames([whole[:30], whole[30:31], b"", whole[31:]])),
        payload(whole, compression=255, length=len(whole)),
    ):
        assert unpacked(data) == EVENTS


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20), st.data())
def test_events_come_out_wherever_frames_are_cut(bodies: list[bytes], data: st.DataObject) -> None:
    want = [event(2, body) for body in bodies]
    whole = b"".join(want)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    assert unpacked(payload(frames(pieces))) == want


def test_a_large_payload_is_unpacked_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "CHUNK_BYTES", 1000)
    whole = b"".join(EVENTS)
    data = payload(frames([whole]))

    stream = compressed.payload(data, len(data))

    assert next(stream) == EVENTS[0]
    assert list(stream) == EVENTS[1:]


WHOLE = b"".join(EVENTS)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (payload(frames([WHOLE])[:-8]), "cannot be unpacked"),
        (payload(b"no frame at all"), "cannot be unpacked"),
        (payload(frames([WHOLE]), size=5), "cannot be unpacked"),
        (payload(frames([WHOLE]), length=len(WHOLE) + 1), "cannot be unpacked"),
        (payload(frames([WHOLE[:-1]])), "cannot be unpacked"),
        (payload(frames([WHOLE + b"x"])), "cannot be unpacked"),
        (payload(frames([payload(frames([WHOLE]))])), "cannot be unpacked"),
        (payload(frames([struct.pack("<IBIIIH", 0, 2, 1, 5, 0, 0)])), "cannot be unpacked"),
        (payload(frames([WHOLE]), compression=7), "compression 7 is not known"),
        (payload(frames([WHOLE]), more=b"\x09\1\1"), "field 9 is not known"),
        (event(40, b"\1\1"), "cannot be unpacked"),
    ],
    ids=[
        "cut off",
        "no zstd",
        "size",
        "length",
        "short event",
        "rest",
        "nested",
        "tiny event",
        "method",
        "field",
        "head",
    ],
)
def test_a_payload_that_is_spoilt_or_unknown_stops(data: bytes, told: str) -> None:
    with pytest.raises(Fatal, match=f"a compressed transaction: .*{told}"):
        unpacked(data)


def test_the_header_of_an_event_is_as_long_as_the_tests_say() -> None:
    assert compressed.HEADER == HEADER
