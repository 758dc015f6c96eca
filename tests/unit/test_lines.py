"""Lines of JSON: every kind of value, and rows back from them."""

from __future__ import annotations

import math

import orjson
import pytest

from cdcsync.change import (
    UNCHANGED,
    Change,
    Column,
    CopyStart,
    Message,
    Operation,
    Row,
    SchemaChange,
    Table,
    Transaction,
)
from cdcsync.lines import Lines, decode_row, encode_key, encode_row
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

_INTEGER = Type(Kind.INTEGER, bits=64)
_TEXT = Type(Kind.TEXT)
TABLE = Table(
    "shop",
    "orders",
    (
        Column("id", _INTEGER),
        Column("total", Type(Kind.DECIMAL)),
        Column("photo", Type(Kind.BYTES)),
        Column("weight", Type(Kind.FLOAT, bits=64)),
        Column("extra", Type(Kind.JSON)),
        Column("tags", Type(Kind.ARRAY, element=Type(Kind.BYTES))),
    ),
    ("id",),
)
ROW: Row = (1 << 62, "12.50", b"\x00\xff", math.inf, '{"a" :\n1e400}', ((b"\x01", None), (b"", b"\x02")))


def lines_of(*items: object) -> list[dict[str, object]]:
    transaction = Transaction("77", 1_700_000_000_000_000, MemoryPosition(1, 5), 9, items, range(len(items)))  # type: ignore[arg-type]
    text = Lines().encode(transaction)
    assert text.endswith(b"\n")
    return [orjson.loads(line) for line in text.splitlines()]


def test_every_kind_of_value_is_written_as_documented() -> None:
    row: Row = (*ROW[:4], '{"a" :\n1}', *ROW[5:])

    (got,) = lines_of(Change(TABLE, Operation.INSERT, None, row))

    assert got == {
        "table": "shop.orders",
        "operation": "insert",
        "key": {"id": 1 << 62},
        "before": None,
        "after": {
            "id": 1 << 62,
            "total": "12.50",
            "photo": "AP8=",
            "weight": "Infinity",
            "extra": {"a": 1},
            "tags": [["AQ==", None], ["", "Ag=="]],
        },
        "unchanged": [],
        "commit_time": "2023-11-14T22:13:20.000000Z",
        "transaction": "77",
        "position": "1:5:0",
        "version": 9,
    }


def test_a_column_that_the_log_did_not_carry_is_named_and_absent() -> None:
    before: Row = (1, *[UNCHANGED] * 5)
    after: Row = (1, "2", UNCHANGED, None, UNCHANGED, None)

    (got,) = lines_of(Change(TABLE, Operation.UPDATE, before, after))

    assert got["before"] == {"id": 1}
    assert got["after"] == {"id": 1, "total": "2", "weight": None, "tags": None}
    assert got["unchanged"] == ["photo", "extra"]


def test_an_update_that_moves_the_key_shows_both_keys() -> None:
    rest: Row = (None,) * 5

    (got,) = lines_of(Change(TABLE, Operation.UPDATE, (1, *[UNCHANGED] * 5), (2, *rest)))

    assert got["before"] == {"id": 1}
    assert got["key"] == {"id": 2}


def test_deletes_truncates_and_other_items_have_lines() -> None:
    got = lines_of(
        Change(TABLE, Operation.DELETE, (1, *[UNCHANGED] * 5), None),
        Change(TABLE, Operation.TRUNCATE, None, None),
        CopyStart(TABLE, again=True),
        SchemaChange(None, TABLE, "CREATE"),
        Message("audit", b"\xff", transactional=True),
    )

    assert [each["operation"] for each in got] == ["delete", "truncate", "copy", "schema", "message"]
    assert got[0]["key"] == {"id": 1}
    assert got[1]["key"] is None
    assert got[4]["content"] == "/w=="


@pytest.mark.parametrize("row", [ROW, (1, None, None, -math.inf, None, None), (UNCHANGED, *ROW[1:])])
def test_a_row_comes_back_exactly(row: Row) -> None:
    assert decode_row(TABLE, encode_row(TABLE, row)) == row


def test_nan_comes_back() -> None:
    got = decode_row(TABLE, encode_row(TABLE, (1, "NaN", None, math.nan, None, None)))

    assert math.isnan(got[3])
    assert got[1] == "NaN"


def test_a_key_has_one_text_and_a_keyless_row_none() -> None:
    keyless = Table("shop", "log", TABLE.columns)

    assert encode_key(TABLE, ROW) == encode_key(TABLE, (ROW[0], *[UNCHANGED] * 5))
    assert encode_key(keyless, ROW) is None


def test_a_column_name_that_looks_like_code_is_a_name() -> None:
    names = ("a'b", 'a"b', "{x}", "a\\", "'}); raise SystemExit #", "v0", "missing", "line\nbreak", "é")
    table = Table("", "t", tuple(Column(name, Type(Kind.INTEGER, bits=32)) for name in names), (names[4],))
    row = tuple(range(len(names)))

    got = orjson.loads(encode_row(table, row))

    assert got == dict(zip(names, row, strict=True))
    assert decode_row(table, encode_row(table, row)) == row
    assert encode_row(Table("", "t", ()), ()) == b"{}"


def test_a_text_that_reads_unchanged_is_a_text() -> None:
    table = Table("", "t", (Column("a", Type(Kind.TEXT)), Column("b", Type(Kind.BYTES))))

    assert encode_row(table, ("unchanged", None)) == b'{"a":"unchanged","b":null}'
    assert encode_row(table, (UNCHANGED, b"x")) == b'{"b":"eA=="}'
    assert encode_row(table, ("x", UNCHANGED)) == b'{"a":"x"}'
