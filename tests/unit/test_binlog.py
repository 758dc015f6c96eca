"""The frame of a binlog's events, from bytes built by the protocol's documentation."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest

from cdcsync.errors import Fatal
from cdcsync.mysql import binlog
from cdcsync.mysql.binlog import Framing


def event(kind: int, body: bytes, following: int = 0, *, flags: int = 0, checksum: bool = True, at: int = 100) -> bytes:
    """An event of server 7; `following` is where the next one begins."""
    size = binlog.HEADER + len(body) + 4 * checksum
    data = struct.pack("<IBIIIH", at, kind, 7, size, following & 0xFFFFFFFF, flags) + body
    return data + struct.pack("<I", zlib.crc32(data)) if checksum else data


def description(following: int = 124, algorithm: int = 1, *, in_use: bool = False) -> bytes:
    body = struct.pack("<H50sIB", 4, b"8.0.15", 0, 19) + bytes(40) + bytes([algorithm])
    made = event(binlog.FORMAT_DESCRIPTION, body, following)
    return made[:17] + b"\1" + made[18:] if in_use else made


def rotate(file: str, offset: int = 4, *, artificial: bool = True, checksum: bool = True, following: int = 0) -> bytes:
    body = struct.pack("<Q", offset) + file.encode()
    return event(binlog.ROTATE, body, following, flags=0x20 * artificial, checksum=checksum)


def opened(algorithm: int = 1) -> Framing:
    framing = Framing()
    framing.take(rotate("binlog.000007"))
    framing.take(description(algorithm=algorithm))
    return framing


def test_the_first_events_of_a_dump_say_which_file_and_whether_there_are_checksums() -> None:
    framing = Framing()

    kinds = [framing.take(each) for each in (rotate("binlog.000007"), description())]

    assert kinds == [binlog.ROTATE, binlog.FORMAT_DESCRIPTION]
    assert (framing.file, framing.offset, framing.born, framing.checksummed) == ("binlog.000007", 124, 100, True)


def test_a_log_without_checksums_is_read() -> None:
    framing = Framing()
    framing.take(rotate("binlog.000007", checksum=False))
    framing.take(description(algorithm=0))

    framing.take(event(binlog.XID, bytes(8), 151, checksum=False))

    assert (framing.began, framing.offset, framing.end) == (124, 151, 27)


def test_a_file_that_is_still_written_to_has_the_checksum_of_one_that_is_closed() -> None:
    framing = Framing()
    framing.take(rotate("binlog.000007"))

    assert framing.take(description(in_use=True)) == binlog.FORMAT_DESCRIPTION


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:10], "truncated"),
        (lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:], "does not match its checksum"),
    ],
)
def test_an_event_that_came_torn_stops_with_its_place(damage: Any, fault: str) -> None:
    framing = opened()

    with pytest.raises(Fatal, match=f"after binlog.000007:124 .*{fault}"):
        framing.take(damage(event(binlog.XID, bytes(8), 155)))

    assert framing.offset == 124


def test_a_format_that_nobody_knows_stops() -> None:
    framing = Framing()
    framing.take(rotate("binlog.000007"))

    with pytest.raises(Fatal, match="checksums of a kind that is not known: 9"):
        framing.take(description(algorithm=9))


def test_offsets_go_on_past_four_gigabytes() -> None:
    framing = opened()
    framing.offset = (1 << 32) - 10

    framing.take(event(binlog.XID, bytes(8), (1 << 32) + 21))

    assert (framing.began, framing.offset) == ((1 << 32) - 10, (1 << 32) + 21)


def test_an_event_that_does_not_say_where_it_ends_is_as_long_as_it_is() -> None:
    framing = opened()

    framing.take(event(binlog.XID, bytes(8)))

    assert (framing.began, framing.offset) == (124, 155)


def test_the_next_file_begins_where_a_rotation_says() -> None:
    framing = opened()
    framing.take(rotate("binlog.000008", artificial=False, following=160))
    framing.take(rotate("binlog.000008"))
    framing.take(description())

    assert (framing.file, framing.offset) == ("binlog.000008", 124)


def test_a_heartbeat_moves_within_its_file_alone() -> None:
    framing = opened()
    framing.take(event(binlog.HEARTBEAT, b"binlog.000009", 900))
    assert framing.offset == 124

    framing.take(event(binlog.HEARTBEAT, b"binlog.000007", 900))

    assert framing.offset == 900


def statement(text: bytes, *, database: bytes = b"shop", status: bytes = b"") -> bytes:
    head = struct.pack("<IIBHH", 1, 0, len(database), 0, len(status))
    return event(binlog.QUERY, head + status + database + b"\0" + text)


def test_a_statement_is_read_with_its_database_and_its_session() -> None:
    status = (
        b"\0" + bytes(4) + b"\1" + struct.pack("<Q", 4 | 1 << 20) + b"\6\3std" + b"\4" + struct.pack("<HHH", 8, 8, 8)
    )
    raw = statement("DROP TABLE é".encode("cp1252"), status=status)

    got = binlog.query(raw, binlog.HEADER, len(raw) - 4)

    assert got == binlog.Query("DROP TABLE é", "shop", ansi_quotes=True, no_escapes=True, error=0)


def test_an_xa_transaction_is_named_as_statements_name_it() -> None:
    raw = event(binlog.XA_PREPARE, struct.pack("<BIII", 1, 1, 2, 1) + b"x1b")

    assert binlog.prepare(raw, binlog.HEADER) == binlog.Prepare("X'7831',X'62',1", one_phase=True)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (binlog.GTID_TAGGED, "tagged GTIDs are not read"),
        (binlog.START_ENCRYPTION, "encrypted logs are not read"),
        (99, "a type that is not known, 99, at binlog.000007:4, in u:1"),
    ],
)
def test_what_is_not_read_is_refused_by_name(kind: int, said: str) -> None:
    assert said in str(binlog.refused(kind, "binlog.000007:4", "u:1"))
