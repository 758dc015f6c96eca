"""Messages in Avro, written by fastavro with the schemas that others make, become changes; what is none is named."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer

from cdcsync.change import UNCHANGED, Change, Operation, SchemaChange
from cdcsync.kafka.decoding import Reading, decoder_of
from cdcsync.kafka.decoding.avro import Avro
from cdcsync.kafka.decoding.records import Decoder, Malformed, Record, Unregistered
from cdcsync.kafka.registry import Registered
from cdcsync.types import Kind

KEY = {
    "type": "record",
    "name": "Key",
    "namespace": "server.inventory.customers",
    "fields": [{"name": "id", "type": "int"}],
    "connect.name": "server.inventory.customers.Key",
}
VALUE = {
    "type": "record",
    "name": "Value",
    "fields": [
        {"name": "id", "type": "int"},
        {"name": "first_name", "type": "string"},
        {
            "name": "credit",
            "type": [
                "null",
                {
                    "type": "bytes",
                    "scale": 2,
                    "precision": 10,
                    "connect.version": 1,
                    "connect.parameters": {"scale": "2", "connect.decimal.precision": "10"},
                    "connect.name": "org.apache.kafka.connect.data.Decimal",
                    "logicalType": "decimal",
                },
            ],
            "default": None,
        },
        {
            "name": "born",
            "type": ["null", {"type": "int", "connect.version": 1, "connect.name": "io.debezium.time.Date"}],
            "default": None,
        },
        {"name": "rank", "type": ["null", {"type": "int", "connect.type": "int16"}], "default": None},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
    "connect.name": "server.inventory.customers.Value",
}
ENVELOPE = {
    "type": "record",
    "name": "Envelope",
    "namespace": "server.inventory.customers",
    "fields": [
        {"name": "before", "type": ["null", VALUE], "default": None},
        {"name": "after", "type": ["null", "Value"], "default": None},
        {
            "name": "source",
            "type": {
                "type": "record",
                "name": "Source",
                "namespace": "io.debezium.connector.mysql",
                "fields": [
                    {"name": "db", "type": "string"},
                    {"name": "table", "type": ["null", "string"], "default": None},
                    {"name": "ts_ms", "type": "long"},
                ],
            },
        },
        {"name": "op", "type": "string"},
    ],
    "connect.name": "server.inventory.customers.Envelope",
}
SOURCE = {"db": "inventory", "table": "customers", "ts_ms": 1465491411815}
ANNE = {
    "id": 1004,
    "first_name": "Anne",
    "credit": b"\xff\x85",
    "born": 19_000,
    "rank": 7,
    "note": "__debezium_unavailable_value",
}


class Shelf:
    """Schemas by number, and how often each was asked for."""

    def __init__(self, *schemas: Any, kind: str = "AVRO", others: tuple[str, ...] = ()) -> None:
        self.schemas = schemas
        self.kind = kind
        self.others = others
        self.asked: list[int] = []

    def by_id(self, number: int) -> Registered | None:
        self.asked.append(number)
        if number >= len(self.schemas):
            return None
        return Registered(json.dumps(self.schemas[number]), self.kind, self.others)


def written(number: int, schema: Any, value: Any, named: dict[str, Any] | None = None) -> bytes:
    out = io.BytesIO()
    out.write(b"\0" + number.to_bytes(4, "big"))
    schemaless_writer(out, parse_schema(schema, named or {}), value)
    return out.getvalue()


def decoder(shelf: Shelf, form: str = "debezium") -> Decoder:
    return decoder_of(Reading(form, avro=Avro(shelf)))


def record(value: bytes | None, key: bytes | None = None) -> Record:
    return Record("inventory.customers", 3, 42, 1_700_000_000_000_000, key, value)


def only(items: Any) -> Change:
    (item,) = items
    assert isinstance(item, Change)
    return item


def event(op: str, before: Any, after: Any) -> bytes:
    return written(1, ENVELOPE, {"before": before, "after": after, "source": SOURCE, "op": op})


def test_debezium_s_envelope_is_typed_by_its_schema_which_is_asked_for_once() -> None:
    shelf = Shelf(KEY, ENVELOPE)
    reading = decoder(shelf)
    key = written(0, KEY, {"id": 1004})

    changes = [only(reading.decode(record(event("c", None, ANNE), key)).items) for _ in range(3)]

    change = changes[0]
    assert (change.operation, change.before) == (Operation.INSERT, None)
    assert change.after == (1004, "Anne", "-1.23", "2022-01-08", 7, UNCHANGED)
    assert change.table.qualified == "inventory.customers"
    assert change.table.key == ("id",)
    kinds = [column.type.kind for column in change.table.columns]
    assert kinds == [Kind.INTEGER, Kind.TEXT, Kind.DECIMAL, Kind.DATE, Kind.INTEGER, Kind.TEXT]
    assert (change.table.columns[2].type.precision, change.table.columns[4].type.bits) == (10, 16)
    assert sorted(shelf.asked) == [0, 1]


def test_a_new_version_of_the_schema_is_a_schema_change_before_its_row() -> None:
    wider = json.loads(json.dumps(ENVELOPE))
    wider["fields"][0]["type"][1]["fields"].append({"name": "city", "type": ["null", "string"], "default": None})
    reading = decoder(Shelf(KEY, ENVELOPE, wider))
    key = written(0, KEY, {"id": 1004})
    reading.decode(record(event("c", None, ANNE), key))

    row = {"before": None, "after": {**ANNE, "city": "Bern"}, "source": SOURCE, "op": "u"}
    got = reading.decode(record(written(2, wider, row), key)).items

    told, change = got
    assert isinstance(told, SchemaChange)
    assert isinstance(change, Change)
    assert change.table is told.new
    assert change.table.columns[-1].name == "city"
    assert change.after is not None
    assert change.after[-1] == "Bern"


@pytest.mark.parametrize("key", [b'{"id": 1004}', written(0, KEY, {"id": 1004})])
def test_a_key_may_be_json_beside_a_value_in_avro(key: bytes) -> None:
    change = only(decoder(Shelf(KEY, ENVELOPE)).decode(record(event("c", None, ANNE), key)).items)

    assert change.table.key == ("id",)


def logical(kind: str, logical_type: str, **rest: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": logical_type, **rest}


@pytest.mark.parametrize(
    ("schema", "value", "kind", "want"),
    [
        ("boolean", True, Kind.BOOLEAN, True),
        ("long", 1 << 62, Kind.INTEGER, 1 << 62),
        ("double", 0.1, Kind.FLOAT, 0.1),
        ("bytes", b"\x00\xff", Kind.BYTES, b"\x00\xff"),
        (logical("bytes", "decimal", precision=9, scale=3), Decimal("-12.340"), Kind.DECIMAL, "-12.340"),
        (
            logical("fixed", "decimal", name="D", size=4, precision=9, scale=2),
            Decimal("0.05"),
            Kind.DECIMAL,
            "0.05",
        ),
        (logical("int", "date"), 19_000, Kind.DATE, "2022-01-08"),
        (logical("int", "time-millis"), 3_723_500, Kind.TIME, "01:02:03.5"),
        (logical("long", "time-micros"), 3_723_500_001, Kind.TIME, "01:02:03.500001"),
        (logical("long", "timestamp-millis"), 1_000, Kind.TIMESTAMPTZ, "1970-01-01T00:00:01Z"),
        (logical("long", "timestamp-micros"), 1_000_001, Kind.TIMESTAMPTZ, "1970-01-01T00:00:01.000001Z"),
        (logical("long", "local-timestamp-micros"), 1_000_001, Kind.TIMESTAMP, "1970-01-01T00:00:01.000001"),
        (
            logical("string", "uuid"),
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            Kind.UUID,
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
        (logical("string", "of-somebody-else"), "x", Kind.TEXT, "x"),
        ({"type": "enum", "name": "E", "symbols": ["red", "green"]}, "green", Kind.ENUM, "green"),
        ({"type": "array", "items": ["null", "int"]}, [1, None], Kind.ARRAY, (1, None)),
        ({"type": "map", "values": "int"}, {"a": 1}, Kind.JSON, '{"a":1}'),
        (
            {"type": "record", "name": "In", "fields": [{"name": "raw", "type": "bytes"}]},
            {"raw": b"\x01"},
            Kind.JSON,
            '{"raw":"AQ=="}',
        ),
        (["null", "int", "string"], "seven", Kind.JSON, '"seven"'),
    ],
)
def test_avro_s_own_types_have_their_neutral_form(schema: Any, value: Any, kind: Kind, want: Any) -> None:
    row = {"type": "record", "name": "Row", "fields": [{"name": "id", "type": "int"}, {"name": "v", "type": schema}]}

    got = only(decoder(Shelf(row), "flat").decode(record(written(0, row, {"id": 1, "v": value}), b'{"id":1}')).items)

    assert got.table.columns[1].type.kind is kind
    assert got.after == (1, want)


def test_a_schema_may_refer_to_others() -> None:
    inner = {"type": "enum", "name": "shop.Colour", "symbols": ["red", "green"]}
    outer = {
        "type": "record",
        "name": "shop.Row",
        "fields": [{"name": "id", "type": "int"}, {"name": "c", "type": "Colour"}],
    }
    named: dict[str, Any] = {}
    parse_schema(inner, named)
    value = written(0, outer, {"id": 1, "c": "red"}, named)

    got = only(decoder(Shelf(outer, others=(json.dumps(inner),)), "flat").decode(record(value, b'{"id":1}')).items)

    assert got.after == (1, "red")
    assert got.table.columns[1].type.labels == ("red", "green")


def test_a_flat_row_without_a_value_is_deleted_by_its_key_in_avro() -> None:
    got = only(decoder(Shelf(KEY), "flat").decode(record(None, written(0, KEY, {"id": 7}))).items)

    assert (got.operation, got.before) == (Operation.DELETE, (7,))


WHOLE = event("c", None, ANNE)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"op":"c"}', "it is not Avro"),
        (b"\0\0\0", "it is not Avro"),
        (WHOLE[:-2], "it is not what schema 1 says"),
        (WHOLE + b"\0", "it goes on where schema 1 ends"),
        (b"\0\0\0\0\x01" + b"\xff" * 20, "it is not what schema 1 says"),
        (b"\0\0\0\0\x09" + WHOLE[5:], "the registry has no schema 9"),
    ],
)
def test_a_value_that_is_none_is_named_without_what_it_holds(value: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason) as caught:
        decoder(Shelf(KEY, ENVELOPE)).decode(record(value, b'{"id":1004}'))

    assert "Anne" not in str(caught.value)


@pytest.mark.parametrize(
    ("shelf", "reason"),
    [
        (Shelf(KEY, ENVELOPE, kind="PROTOBUF"), "schema 1 is PROTOBUF, and not Avro"),
        (Shelf(KEY, {"type": "nothing"}), "schema 1 is none that can be read"),
        (Shelf(KEY, {"type": "record", "name": "R"}), "schema 1 is none that can be read"),
    ],
)
def test_a_schema_that_is_none_is_named(shelf: Shelf, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decoder(shelf).decode(record(WHOLE, b'{"id":1004}'))


def test_a_key_whose_schema_is_not_there_is_not_taken_for_a_text() -> None:
    row = {"type": "record", "name": "Row", "fields": [{"name": "id", "type": "int"}]}

    with pytest.raises(Unregistered, match="no schema 9"):
        decoder(Shelf(row), "flat").decode(record(written(0, row, {"id": 1}), b"\0\0\0\0\x09\x02"))
