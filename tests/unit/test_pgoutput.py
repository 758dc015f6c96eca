"""pgoutput messages, built from the protocol's documentation."""

from __future__ import annotations

import struct

import pytest

from cdcsync.change import UNCHANGED, Change, Column, Message, Operation, SchemaChange, Table
from cdcsync.errors import Fatal
from cdcsync.postgres.pgoutput import POSTGRES_EPOCH_US, Begin, Commit, Decoder, Relation
from cdcsync.postgres.types import column_type

HEAD = b"w" + struct.pack(">QQQ", 0x16B374D848, 0, 0)
BODY = len(HEAD)


def describe(relation: Relation) -> tuple[Table, bool]:
    columns = tuple(Column(each.name, column_type(each.type, each.modifier, {})) for each in relation.columns)
    key = tuple(each.name for each in relation.columns if each.is_key)
    return Table(relation.schema, relation.name, columns, key), relation.name != "unwanted"


def relation(
    oid: int = 7, name: str = "t", columns: tuple[tuple[int, str, int], ...] = ((1, "id", 23), (0, "x", 25))
) -> bytes:
    body = b"R" + struct.pack(">I", oid) + b"public\0" + name.encode() + b"\0d" + struct.pack(">H", len(columns))
    for flag, column, kind in columns:
        body += bytes([flag]) + column.encode() + b"\0" + struct.pack(">Ii", kind, -1)
    return HEAD + body


def tuple_data(*values: str | bytes | None) -> bytes:
    body = struct.pack(">H", len(values))
    for value in values:
        if value is None:
            body += b"n"
        elif isinstance(value, bytes):
            body += value
        else:
            body += b"t" + struct.pack(">I", len(value.encode())) + value.encode()
    return body


def message(tag: bytes, body: bytes, oid: int = 7) -> bytes:
    return HEAD + tag + struct.pack(">I", oid) + body


@pytest.fixture
def decoder() -> Decoder:
    made = Decoder(describe)
    made.decode(relation(), BODY)
    return made


def test_rows_of_every_kind(decoder: Decoder) -> None:
    insert = decoder.decode(message(b"I", b"N" + tuple_data("1", "é" * 300)), BODY)
    plain = decoder.decode(message(b"U", b"N" + tuple_data("1", b"u")), BODY)
    keyed = decoder.decode(message(b"U", b"K" + tuple_data("1", None) + b"N" + tuple_data("2", None)), BODY)
    full = decoder.decode(message(b"U", b"O" + tuple_data("1", "old") + b"N" + tuple_data("1", b"u")), BODY)
    gone = decoder.decode(message(b"D", b"K" + tuple_data("1", None)), BODY)

    assert type(insert) is Change
    assert insert[1:] == (Operation.INSERT, None, (1, "é" * 300))
    assert plain[1:] == (Operation.UPDATE, (1, UNCHANGED), (1, UNCHANGED))
    assert keyed[1:] == (Operation.UPDATE, (1, UNCHANGED), (2, None))
    assert full[1:] == (Operation.UPDATE, (1, "old"), (1, "old"))
    assert gone[1:] == (Operation.DELETE, (1, UNCHANGED), None)


def test_begin_commit_message_and_truncate(decoder: Decoder) -> None:
    begin = decoder.decode(HEAD + b"B" + struct.pack(">QqI", 100, 5, 9), BODY)
    commit = decoder.decode(HEAD + b"C\0" + struct.pack(">QQq", 100, 140, 5), BODY)
    emitted = decoder.decode(HEAD + b"M\1" + struct.pack(">Q", 90) + b"p\0" + struct.pack(">I", 2) + b"\0\1", BODY)
    truncate = decoder.decode(HEAD + b"T" + struct.pack(">IBI", 1, 0, 7), BODY)

    assert begin == Begin(100, POSTGRES_EPOCH_US + 5, 9)
    assert commit == Commit(140)
    assert emitted == Message("p", b"\0\1", transactional=True)
    assert [(each.table.name, each.operation) for each in truncate] == [("t", Operation.TRUNCATE)]


def test_a_relation_sent_again_is_no_change_and_a_new_layout_is_one(decoder: Decoder) -> None:
    assert decoder.decode(relation(), BODY) is None

    change = decoder.decode(relation(columns=((1, "id", 20),)), BODY)

    assert type(change) is SchemaChange
    assert [len(table.columns) for table in (change.old, change.new) if table] == [2, 1]


def test_rows_of_a_table_that_nobody_wants_are_not_decoded(decoder: Decoder) -> None:
    decoder.decode(relation(8, "unwanted"), BODY)

    assert decoder.decode(message(b"I", b"N" + tuple_data("not a number", "x"), oid=8), BODY) is None


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"?",
        HEAD + b"S" + bytes(8),
        message(b"I", b"N" + tuple_data("1")),
        message(b"I", b"N" + tuple_data("1", b"b\0\0\0\1x")),
        message(b"I", b"N" + tuple_data("1", b"t\0\0\0\1\xff")),
        message(b"I", b"N" + tuple_data("1", "cut off"))[:-3],
        message(b"I", b"N" + tuple_data("1", "x"), oid=99),
    ],
    ids=["unknown", "streamed", "columns", "binary", "encoding", "short", "relation"],
)
def test_what_is_not_known_stops_with_its_place_and_no_value(decoder: Decoder, body: bytes) -> None:
    with pytest.raises(Fatal, match=r"at 16/B374D848") as caught:
        decoder.decode(body, BODY)

    assert "cut o" not in str(caught.value)
