"""Messages as Debezium, Maxwell and Canal document them become changes; what is none of a format is named."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from cdcsync.change import UNCHANGED, Change, Message, Operation, SchemaChange
from cdcsync.kafka.decoding import Reading, decoder_of
from cdcsync.kafka.decoding.columns import declared
from cdcsync.kafka.decoding.connect import meaning
from cdcsync.kafka.decoding.layouts import Declared
from cdcsync.kafka.decoding.records import Decoded, Malformed, Record
from cdcsync.types import Kind, Type

CUSTOMERS = {
    "type": "struct",
    "optional": True,
    "name": "mysql-server-1.inventory.customers.Value",
    "field": "after",
    "fields": [
        {"type": "int32", "optional": False, "field": "id"},
        {"type": "string", "optional": False, "field": "first_name"},
        {"type": "string", "optional": False, "field": "last_name"},
        {"type": "string", "optional": False, "field": "email"},
    ],
}
ENVELOPE = {
    "type": "struct",
    "optional": False,
    "name": "mysql-server-1.inventory.customers.Envelope",
    "fields": [{**CUSTOMERS, "field": "before"}, CUSTOMERS, {"type": "string", "optional": False, "field": "op"}],
}
KEY_SCHEMA = {
    "type": "struct",
    "name": "mysql-server-1.inventory.customers.Key",
    "optional": False,
    "fields": [{"field": "id", "type": "int32", "optional": False}],
}
MYSQL = {
    "version": "3.3.1.Final",
    "connector": "mysql",
    "db": "inventory",
    "table": "customers",
    "ts_ms": 1465491411815,
}
POSTGRES = {"connector": "postgresql", "db": "postgres", "schema": "public", "table": "customers", "txId": 555}
ANNE = {"id": 1004, "first_name": "Anne", "last_name": "Kretchmar", "email": "annek@noanswer.org"}


def record(value: Any, key: Any = None, topic: str = "server.inventory.customers") -> Record:
    def raw(each: Any) -> bytes | None:
        return each if each is None or isinstance(each, bytes) else json.dumps(each, separators=(",", ":")).encode()

    return Record(topic, 3, 42, 1_700_000_000_000_000, raw(key), raw(value))


def decode(value: Any, key: Any = None, reading: Reading | None = None, topic: str = "inventory.customers") -> Decoded:
    return decoder_of(reading or Reading()).decode(record(value, key, topic))


def only(decoded: Decoded) -> Change:
    (item,) = decoded.items
    assert isinstance(item, Change)
    return item


def test_a_debezium_create_with_its_schema_is_a_typed_insert() -> None:
    envelope = {"op": "c", "ts_ms": 1465491411816, "before": None, "after": ANNE, "source": MYSQL}

    got = decode({"schema": ENVELOPE, "payload": envelope}, {"schema": KEY_SCHEMA, "payload": {"id": 1004}})

    change = only(got)
    assert (change.operation, change.before, change.after) == (Operation.INSERT, None, tuple(ANNE.values()))
    assert change.table.qualified == "inventory.customers"
    assert change.table.key == ("id",)
    assert [column.type.kind for column in change.table.columns] == [Kind.INTEGER, Kind.TEXT, Kind.TEXT, Kind.TEXT]
    assert got.time_us == 1465491411815000


def test_messages_of_one_schema_share_their_table_whatever_their_rows_hold() -> None:
    decoder = decoder_of(Reading())
    tables = set()
    for at in range(3):
        row = {**ANNE, "id": at, "email": '"payload":{"schema":'}
        envelope = {"op": "c", "before": None, "after": row, "source": MYSQL}
        change = only(decoder.decode(record({"schema": ENVELOPE, "payload": envelope}, {"id": at})))
        assert change.after == tuple(row.values())
        tables.add(id(change.table))

    assert len(tables) == 1


def test_an_update_whose_row_before_was_not_carried_knows_its_key() -> None:
    row = {**ANNE, "email": "new"}

    change = only(decode({"op": "u", "before": None, "after": row, "source": POSTGRES}, {"id": 1004}))

    assert change.operation is Operation.UPDATE
    assert change.before == ("1004", UNCHANGED, UNCHANGED, UNCHANGED)
    assert change.table.qualified == "public.customers"


def test_a_delete_of_which_postgres_logged_the_key_knows_nothing_else() -> None:
    before = {"id": 1004, "first_name": None, "last_name": None, "email": None}

    change = only(decode({"op": "d", "before": before, "after": None, "source": POSTGRES}, {"id": 1004}))

    assert change.operation is Operation.DELETE
    assert (change.before, change.after) == (("1004", UNCHANGED, UNCHANGED, UNCHANGED), None)


def test_a_whole_row_before_is_kept() -> None:
    old = {**ANNE, "email": None}

    change = only(decode({"op": "u", "before": old, "after": ANNE, "source": MYSQL}, {"id": 1004}))

    assert change.before == ("1004", "Anne", "Kretchmar", None)


def test_an_unavailable_value_is_unchanged_and_no_text() -> None:
    row = {**ANNE, "email": "__debezium_unavailable_value"}

    change = only(decode({"op": "u", "before": None, "after": row, "source": POSTGRES}, {"id": 1004}))

    assert change.after is not None
    assert change.after[3] is UNCHANGED


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ({"type": "bytes"}, b64encode(b"__debezium_unavailable_value").decode()),
        ({"type": "array", "items": {"type": "string"}}, ["__debezium_unavailable_value"]),
        ({"type": "string", "name": "io.debezium.data.Json"}, "__debezium_unavailable_value"),
    ],
)
def test_an_unavailable_value_has_a_form_for_each_type(kind: dict[str, Any], value: Any) -> None:
    after = {"type": "struct", "field": "after", "fields": [{"type": "int32", "field": "id"}, {**kind, "field": "v"}]}
    envelope = {"op": "u", "before": None, "after": {"id": 1, "v": value}, "source": POSTGRES}

    change = only(decode({"schema": {"type": "struct", "fields": [after]}, "payload": envelope}, {"id": 1}))

    assert change.after == (1, UNCHANGED)


def test_a_snapshot_read_a_truncate_and_a_message_are_told_apart() -> None:
    assert only(decode({"op": "r", "before": None, "after": ANNE, "source": MYSQL}, {"id": 1})).operation == "read"
    truncate = only(decode({"op": "t", "source": POSTGRES}))
    assert (truncate.operation, truncate.before, truncate.after) == (Operation.TRUNCATE, None, None)
    block = {"prefix": "foo", "content": b64encode(b"hello").decode()}
    assert decode({"op": "m", "message": block, "source": POSTGRES}).items == (Message("foo", b"hello", True),)


def test_a_tombstone_of_debezium_is_nothing_and_of_a_flat_topic_a_delete() -> None:
    assert decode(None, {"id": 1}).items == ()

    change = only(decode(None, {"id": 1}, Reading("flat")))

    assert (change.operation, change.table.key, change.before) == (Operation.DELETE, ("id",), ("1",))


def test_a_new_column_is_a_schema_change_before_its_row_and_told_once() -> None:
    decoder = decoder_of(Reading())
    wider = {**ANNE, "phone": "1"}

    def items(row: dict[str, Any]) -> list[str]:
        got = decoder.decode(record({"op": "c", "before": None, "after": row, "source": MYSQL}, {"id": 1}))
        return [type(item).__name__ for item in got.items]

    assert [items(ANNE), items(wider), items(ANNE), items(wider)] == [
        ["Change"],
        ["SchemaChange", "Change"],
        ["Change"],
        ["Change"],
    ]


@pytest.mark.parametrize(
    ("schema", "value", "kind", "want"),
    [
        ({"type": "int32", "name": "io.debezium.time.Date"}, 20780, Kind.DATE, "2026-11-23"),
        (
            {"type": "int64", "name": "io.debezium.time.MicroTimestamp"},
            1500000,
            Kind.TIMESTAMP,
            "1970-01-01T00:00:01.5",
        ),
        ({"type": "int64", "name": "io.debezium.time.Timestamp"}, -1, Kind.TIMESTAMP, "1969-12-31T23:59:59.999"),
        ({"type": "int64", "name": "io.debezium.time.MicroTime"}, -3600000000, Kind.TIME, "-01:00:00"),
        (
            {"type": "string", "name": "io.debezium.time.ZonedTimestamp"},
            "2026-11-23T10:00:00.500000Z",
            Kind.TIMESTAMPTZ,
            "2026-11-23T10:00:00.5Z",
        ),
        (
            {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}},
            "AeJA",
            Kind.DECIMAL,
            "1234.56",
        ),
        (
            {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal"},
            {"scale": 1, "value": b64encode(b"\xff").decode()},
            Kind.DECIMAL,
            "-0.1",
        ),
        (
            {"type": "bytes", "name": "io.debezium.data.Bits", "parameters": {"length": "10"}},
            "AQI=",
            Kind.BIT,
            "1000000001",
        ),
        (
            {"type": "string", "name": "io.debezium.data.EnumSet", "parameters": {"allowed": "a,b"}},
            "a,b",
            Kind.SET,
            ("a", "b"),
        ),
        ({"type": "string", "name": "io.debezium.data.Json"}, '{"a": 1}', Kind.JSON, '{"a": 1}'),
        ({"type": "bytes"}, "AP8=", Kind.BYTES, b"\x00\xff"),
        ({"type": "array", "items": {"type": "int32"}}, [1, None], Kind.ARRAY, (1, None)),
        (
            {"type": "struct", "name": "io.debezium.data.geometry.Geometry"},
            {"wkb": b64encode(bytes.fromhex("0101000000000000000000f03f0000000000000040")).decode(), "srid": 4326},
            Kind.GEOMETRY,
            bytes.fromhex("0101000020e6100000000000000000f03f0000000000000040"),
        ),
    ],
)
def test_values_of_a_connect_schema_have_their_neutral_form(schema: Any, value: Any, kind: Kind, want: Any) -> None:
    found, convert = meaning(schema)

    assert found.kind is kind
    assert (convert(value) if convert is not None else value) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("bigint unsigned", Type(Kind.INTEGER, bits=64, unsigned=True)),
        ("decimal(10, 2)", Type(Kind.DECIMAL, precision=10, scale=2)),
        ("varchar(20)", Type(Kind.TEXT, length=20)),
        ("timestamp(3)", Type(Kind.TIMESTAMP, precision=3)),
        ("double precision", Type(Kind.FLOAT, bits=64)),
        ("enum('a','it''s')", Type(Kind.ENUM, labels=("a", "it's"))),
        ("text[]", Type(Kind.ARRAY, element=Type(Kind.TEXT))),
    ],
)
def test_a_declared_type_is_in_sql_s_words(text: str, want: Type) -> None:
    assert declared(text) == want


def test_a_type_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="no type is called 'bigitn'"):
        declared("bigitn")


def test_declared_columns_take_numbers_and_texts() -> None:
    columns = {"id": "bigint", "price": "decimal(10,2)", "at": "timestamp(3)", "ok": "boolean", "doc": "json"}
    reading = Reading("flat", {"shop.orders": Declared(columns, ("id",))})
    row = b'{"id":1,"price":12345678901234567.10,"at":1500,"ok":"true","doc":{"a":1.10},"extra":1}'

    change = only(decode(row, b"1", reading, "shop.orders"))

    assert change.after == (1, "12345678901234567.10", "1970-01-01T00:00:01.5", True, '{"a":1.10}')
    assert change.operation is Operation.UPDATE
    assert change.before == (1, UNCHANGED, UNCHANGED, UNCHANGED, UNCHANGED)
    assert only(decode(None, b"1", reading, "shop.orders")).operation is Operation.DELETE


def test_a_flat_row_says_by_its_fields_what_was_done() -> None:
    row = {"id": 1, "v": "x", "__op": "d", "__deleted": "true", "__source_ts_ms": 1000}

    got = decode(row, {"id": 1}, Reading("flat"))

    change = only(got)
    assert (change.operation, change.before) == (Operation.DELETE, ("1", UNCHANGED))
    assert got.time_us == 1_000_000


MAXWELL = {"database": "test", "table": "maxwell", "type": "update", "ts": 1449786341, "xid": 940786, "commit": True}


def test_an_update_of_maxwell_has_its_row_before() -> None:
    message = {**MAXWELL, "data": {"id": 1, "daemon": "Firebus! Firebus!"}, "old": {"daemon": "Stanislaw Lem"}}

    got = decode(message, {"database": "test", "table": "maxwell", "pk.id": 1}, Reading("maxwell"))

    change = only(got)
    assert change.table.qualified == "test.maxwell"
    assert change.table.key == ("id",)
    assert (change.before, change.after) == (("1", "Stanislaw Lem"), ("1", "Firebus! Firebus!"))
    assert (got.transaction, got.time_us) == ("940786", 1449786341000000)


def test_maxwell_s_numbers_keep_their_digits() -> None:
    raw = json.dumps({**MAXWELL, "type": "insert"}).encode()[:-1] + b',"data":{"n":1.10,"j":{"x":2.50}}}'

    assert only(decode(raw, None, Reading("maxwell"))).after == ("1.10", '{"x":2.50}')


CANAL = {
    "data": [{"id": "111", "name": "10M", "price": "1.20", "raw": "\u00ff"}],
    "database": "inventory",
    "es": 1589373560000,
    "id": 9,
    "isDdl": False,
    "mysqlType": {"id": "bigint unsigned", "name": "varchar(255)", "price": "decimal(10,2)", "raw": "blob"},
    "old": [{"name": "old"}],
    "pkNames": ["id"],
    "sql": "",
    "sqlType": {"id": -5, "name": 12},
    "table": "products",
    "ts": 1589373560798,
    "type": "UPDATE",
}


def test_canal_s_strings_get_mysql_s_types() -> None:
    got = decode(CANAL, None, Reading("canal"))

    change = only(got)
    assert change.table.columns[0].type == Type(Kind.INTEGER, bits=64, unsigned=True)
    assert change.after == (111, "10M", "1.20", b"\xff")
    assert change.before == (111, "old", "1.20", b"\xff")
    assert got.time_us == 1589373560000000


def test_every_row_of_a_message_of_canal_is_a_change_and_a_statement_none() -> None:
    several = {**CANAL, "type": "INSERT", "data": [{"id": "1"}] * 3, "old": None}

    assert len(decode(several, None, Reading("canal")).items) == 3
    assert not decode({**CANAL, "type": "ALTER", "isDdl": True, "data": None}, None, Reading("canal")).items


def test_a_text_is_a_row_that_its_place_names() -> None:
    change = only(decode(b"to be", b"k", Reading("text"), "words"))

    assert change.operation is Operation.INSERT
    assert change.after == (3, 42, "2023-11-14T22:13:20Z", "k", "to be")
    assert (change.table.name, change.table.key) == ("words", ("_partition", "_offset"))


def test_a_json_value_is_one_column_or_those_that_are_declared() -> None:
    whole = only(decode(b'{"a": 1}', None, Reading("json"), "events"))
    declared_ = Reading("json", {"events": Declared({"a": "bigint", "b": "text"})})
    apart = only(decode(b'{"a": 1}', None, declared_, "events"))

    assert whole.after is not None
    assert apart.after is not None
    assert whole.after[4:] == ('{"a": 1}',)
    assert apart.after[4:] == (1, None)


@pytest.mark.parametrize(
    ("form", "value", "what"),
    [
        ("debezium", b"not json", "it is not JSON"),
        ("debezium", {"id": 1}, "no `op`"),
        ("debezium", {"op": "x", "source": MYSQL, "after": ANNE}, "its operation 'x'"),
        ("debezium", {"op": "c", "after": ANNE}, "names no table"),
        ("debezium", {"op": "c", "after": None, "source": MYSQL}, "`after`"),
        ("debezium", [1], "no JSON object"),
        ("flat", b"[1]", "no JSON object"),
        ("flat", None, "neither a value nor a key"),
        ("maxwell", {"type": "insert", "data": {}}, "no `table`"),
        ("maxwell", {**MAXWELL, "type": "upsert"}, "no `type`"),
        ("canal", {**CANAL, "type": "UPSERT"}, "no `type`"),
        ("json", b"{", "it is not JSON"),
        ("text", b"\xff", "not UTF-8"),
    ],
)
def test_a_message_that_is_not_what_its_format_says_is_named_without_its_values(
    form: str, value: Any, what: str
) -> None:
    with pytest.raises(Malformed, match=what) as caught:
        decode(value, None, Reading(form))

    assert "Anne" not in str(caught.value)


def test_a_value_that_is_not_of_its_declared_type_names_its_column_alone() -> None:
    reading = Reading("flat", {"t": Declared({"id": "bigint", "n": "decimal"}, ("id",))})

    with pytest.raises(Malformed, match=r"^the value of n is no decimal$"):
        decode({"id": 1, "n": "secret"}, {"id": 1}, reading, "t")


def test_a_schema_change_carries_both_versions() -> None:
    decoder = decoder_of(Reading("maxwell"))
    decoder.decode(record({**MAXWELL, "type": "insert", "data": {"id": 1}}))

    got = decoder.decode(record({**MAXWELL, "type": "insert", "data": {"id": 1, "x": 2}}))

    change = got.items[0]
    assert isinstance(change, SchemaChange)
    assert change.old is not None
    assert change.new is not None
    assert [column.name for column in change.new.columns] == ["id", "x"]
