"""Answers to a SELECT: the decoder of packets says what the plain one says, however the socket cuts them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cdcsync.change import Column, Table
from cdcsync.errors import Fatal
from cdcsync.mysql.config import ZeroDates
from cdcsync.mysql.copied import Answers
from cdcsync.mysql.errors import MysqlError, number_of
from cdcsync.mysql.select import SelectedRows
from cdcsync.types import Kind, Type

BINARY, UTF8 = 63, 45
FIELDS = (
    (Column("a", Type(Kind.INTEGER)), 8, BINARY),
    (Column("b", Type(Kind.TEXT)), 253, UTF8),
    (Column("c", Type(Kind.DECIMAL)), 246, BINARY),
    (Column("d", Type(Kind.TIMESTAMPTZ)), 7, BINARY),
    (Column("e", Type(Kind.BYTES)), 252, BINARY),
    (Column("f", Type(Kind.FLOAT)), 5, BINARY),
    (Column("g", Type(Kind.DATE)), 10, BINARY),
    (Column("h", Type(Kind.TIMESTAMP)), 12, BINARY),
    (Column("i", Type(Kind.SET)), 254, UTF8),
    (Column("j", Type(Kind.JSON)), 245, BINARY),
)
TABLE = Table("s", "t", tuple(column for column, _, _ in FIELDS), ("a",))
ROWS: list[tuple[str | bytes | None, ...]] = [
    ("1", "x", "0012.50", "2026-11-24 08:00:00", b"\0\xff", "1.5", "2026-11-24", "0001-01-01 00:00:00.000000", "p,q", "[]"),
    ("-7", "", "-0.5", "2026-11-24 08:00:00.120000", b"", "1e-7", "1000-01-01", "2026-01-01 10:00:00.000001", "", '{"a": 1}'),
    (None, None, None, None, None, None, None, None, None, None),
    ("18446744073709551615", "é\U0001f600" * 90, "0", "2026-11-24 08:00:00", b"x" * 70_000, "0", "2026-11-24", None, "p", '"é"'),
    ("-9223372036854775808", "\xfe", "000", None, b"\xfe", "-0", None, None, None, None),
]  # fmt: skip
ENDED = b"\xfe\0\0\x02\0"


def sized(value: bytes) -> bytes:
    size = len(value)
    if size < 251:
        return bytes([size]) + value
    return (b"\xfc" + size.to_bytes(2, "little") if size < 1 << 16 else b"\xfd" + size.to_bytes(3, "little")) + value


def packets(*payloads: bytes) -> bytes:
    """Frame payloads as a server does; the largest are continued."""
    out = b""
    for payload in payloads:
        rest = payload
        while True:
            part, rest = rest[:0xFFFFFF], rest[0xFFFFFF:]
            out += len(part).to_bytes(3, "little") + b"\0" + part
            if len(part) < 0xFFFFFF:
                break
    return out


def head(fields: Any = FIELDS) -> list[bytes]:
    described = [
        b"".join(sized(word) for word in (b"def", b"s", b"t", b"t", b"n" * 300, b"n"))
        + b"\x0c"
        + struct.pack("<HIBHB", charset, 0, code, 0, 0)
        + bytes(2)
        for _, code, charset in fields
    ]
    return [bytes([len(fields)]), *described, ENDED]


def packed(row: tuple[str | bytes | None, ...]) -> bytes:
    return b"".join(
        b"\xfb" if value is None else sized(value.encode() if isinstance(value, str) else value) for value in row
    )


@pytest.mark.parametrize("piece", [1, 7, 4096, 1 << 20])
def test_rows_are_those_of_the_plain_decoder_however_they_come(piece: int) -> None:
    data = packets(*head(), *map(packed, ROWS), ENDED)
    answers, rows = Answers(TABLE), list[Any]()

    ends = [answers.take(data[at : at + piece], rows) for at in range(0, len(data), piece)]

    assert repr(rows) == repr([SelectedRows(TABLE).row(row) for row in ROWS])
    assert ends == [False] * (len(ends) - 1) + [True]


def test_a_row_of_many_packets_is_one_row() -> None:
    table = Table("s", "t", (Column("e", Type(Kind.BYTES)),))
    value = bytes(0xFFFFFF + 5)
    row = b"\xfe" + len(value).to_bytes(8, "little") + value
    rows: list[Any] = []

    assert Answers(table).take(packets(*head(FIELDS[4:5]), row, b"\x01x", ENDED), rows)

    assert rows == [(value,), (b"x",)]


@pytest.mark.parametrize("before", [0, 1])
def test_an_error_of_the_server_is_raised_as_the_clients(before: int) -> None:
    error = b"\xff" + (3024).to_bytes(2, "little") + b"#HY000Query execution was interrupted"
    data = packets(*[*head(), packed(ROWS[0])][: before * 99], error)

    with pytest.raises(MysqlError, match="interrupted") as raised:
        Answers(TABLE).take(data, [])

    assert number_of(raised.value) == 3024


@pytest.mark.parametrize("row", [b"\x01a", b"\x05ab", packed((*ROWS[2], None)), packed(ROWS[2][:-1])])
def test_a_row_that_is_not_whole_is_told(row: bytes) -> None:
    with pytest.raises(MysqlError):
        Answers(TABLE).take(packets(*head(), row), [])


@pytest.mark.parametrize(("at", "value"), [(3, "0000-00-00 00:00:00"), (6, "2026-02-30"), (7, "2026-00-01 00:00:00")])
def test_a_date_that_no_calendar_has_is_judged_as_configured(at: int, value: str) -> None:
    row = (*ROWS[0][:at], value, *ROWS[0][at + 1 :])
    data = packets(*head(), packed(row), ENDED)

    with pytest.raises(Fatal, match=f"s.t, column {'abcdefghij'[at]}"):
        Answers(TABLE).take(data, [])
    for policy in (ZeroDates.NULL, ZeroDates.TEXT):
        rows: list[Any] = []
        Answers(TABLE, policy).take(data, rows)
        assert rows == [SelectedRows(TABLE, policy).row(row)]
