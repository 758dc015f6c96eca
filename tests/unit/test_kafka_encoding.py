"""Changes as records: names and values as the documentation of Debezium, Maxwell and Canal has them."""

from __future__ import annotations

from base64 import b64decode
from decimal import Decimal
from typing import Any

import orjson
import pytest

from cdcsync.change import UNCHANGED, Change, Column, Operation, Table, Transaction, pack_version
from cdcsync.kafka.config import KafkaSink
from cdcsync.kafka.encoding.modes import Modes, Unfit
from cdcsync.kafka.encoding.records import Encoded, Sender
from cdcsync.kafka.encoding.rows import Partial
from cdcsync.kafka.encoding.tables import encoder_of
from cdcsync.kafka.encoding.values import form_of
from cdcsync.kafka.murmur2 import murmur2, partition_of
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

INTEGER = Type(Kind.INTEGER, bits=32)
TEXT = Type(Kind.TEXT)
USERS = Table(
    "shop",
    "users",
    (
        Column("id", INTEGER, nullable=False),
        Column("name", TEXT),
        Column("paid", Type(Kind.DECIMAL, precision=10, scale=2)),
    ),
    ("id",),
)
SENDER = Sender.of("orders", "0.1.0", "postgres:77/shopdb")
NOW_US = 1_700_000_000_123_456


def transaction(*items: Change, of: str = "571") -> Transaction:
    at = MemoryPosition(1, 1)
    return Transaction(of, 1_600_000_000_654_321, at, pack_version(1, 4711), items, range(len(items)))


def encoded(change: Change, **section: Any) -> list[Encoded]:
    config = KafkaSink.model_validate({"brokers": ["k"], **section})
    return encoder_of(change.table, config, SENDER).encode(change, transaction(change), NOW_US)


def insert(*row: Any, table: Table = USERS) -> Change:
    return Change(table, Operation.INSERT, None, row)


def update(before: tuple[Any, ...], after: tuple[Any, ...], table: Table = USERS) -> Change:
    return Change(table, Operation.UPDATE, before, after)


def delete(*row: Any, table: Table = USERS) -> Change:
    return Change(table, Operation.DELETE, row, None)


def value(records: list[Encoded], at: int = 0) -> Any:
    found = records[at][1]
    return None if found is None else orjson.loads(found)


def test_debeziums_envelope_has_all_that_its_documentation_names() -> None:
    records = encoded(insert(1, "ann", "12.50"))

    assert records[0][0] == b'{"id":1}'
    got = value(records)
    assert got == {
        "before": None,
        "after": {"id": 1, "name": "ann", "paid": "BOI="},
        "source": {
            "version": "0.1.0",
            "connector": "postgresql",
            "name": "orders",
            "ts_ms": 1_600_000_000_654,
            "snapshot": "false",
            "db": "shopdb",
            "sequence": None,
            "ts_us": 1_600_000_000_654_321,
            "ts_ns": 1_600_000_000_654_321_000,
            "schema": "shop",
            "table": "users",
            "txId": 571,
            "lsn": 4711,
            "xmin": None,
        },
        "transaction": None,
        "op": "c",
        "ts_ms": NOW_US // 1000,
        "ts_us": NOW_US,
        "ts_ns": NOW_US * 1000,
    }
    assert Decimal(int.from_bytes(b64decode("BOI="), "big")).scaleb(-2) == Decimal("12.50")


def test_a_delete_is_followed_by_a_tombstone_unless_those_are_off() -> None:
    gone = delete(1, UNCHANGED, UNCHANGED)

    records = encoded(gone)

    assert [key for key, _ in records] == [b'{"id":1}'] * 2
    assert value(records)["before"] == {"id": 1, "name": None, "paid": None}
    assert (value(records)["after"], value(records)["op"], records[1][1]) == (None, "d", None)
    assert len(encoded(gone, tombstones=False)) == 1


def test_an_update_has_the_row_before_where_the_log_had_it() -> None:
    whole = value(encoded(update((1, "ann", "1.00"), (1, "bob", "1.00"))))
    by_key = value(encoded(update((1, UNCHANGED, UNCHANGED), (1, "bob", "1.00"))))

    assert (whole["before"]["name"], whole["after"]["name"], whole["op"]) == ("ann", "bob", "u")
    assert by_key["before"] is None


def test_a_value_that_was_not_logged_is_debeziums_placeholder() -> None:
    got = value(encoded(update((1, UNCHANGED, UNCHANGED), (1, UNCHANGED, "1.00"))))

    assert got["after"]["name"] == "__debezium_unavailable_value"


def test_a_number_that_was_not_logged_has_no_placeholder() -> None:
    with pytest.raises(Partial, match="did not carry paid"):
        encoded(update((1, UNCHANGED, UNCHANGED), (1, "x", UNCHANGED)))


def test_a_key_that_moves_is_a_delete_and_a_create() -> None:
    records = encoded(update((1, "ann", "1.00"), (2, "ann", "1.00")))

    assert [key for key, _ in records] == [b'{"id":1}', b'{"id":1}', b'{"id":2}']
    assert [value(records, at) and value(records, at)["op"] for at in range(3)] == ["d", None, "c"]


def test_a_truncate_is_an_event_without_a_key() -> None:
    records = encoded(Change(USERS, Operation.TRUNCATE, None, None))

    assert records[0][0] is None
    assert value(records)["op"] == "t"


def test_a_schema_goes_with_each_record_where_asked() -> None:
    key, _ = encoded(insert(1, "ann", "12.50"), schemas=True)[0]
    got = value(encoded(insert(1, "ann", "12.50"), schemas=True))

    assert got["payload"]["after"]["name"] == "ann"
    after = next(field for field in got["schema"]["fields"] if field["field"] == "after")
    assert [(field["field"], field["type"], field["optional"]) for field in after["fields"]] == [
        ("id", "int32", False),
        ("name", "string", True),
        ("paid", "bytes", True),
    ]
    assert after["fields"][2]["parameters"] == {"scale": "2", "connect.decimal.precision": "10"}
    assert orjson.loads(key or b"")["payload"] == {"id": 1}


def test_a_flat_row_is_the_row_and_its_delete_a_tombstone() -> None:
    assert encoded(insert(1, "ann", None), format="flat") == [(b'{"id":1}', b'{"id":1,"name":"ann","paid":null}')]
    assert encoded(delete(1, UNCHANGED, UNCHANGED), format="flat") == [(b'{"id":1}', None)]


def test_a_flat_row_has_what_is_asked_to_be_added() -> None:
    section = {"format": "flat", "add_fields": ["op", "table", "lsn", "source.ts_ms"]}

    got = value(encoded(insert(1, "ann", None), **section))

    added = {name: got[name] for name in got if name.startswith("__")}
    assert added == {"__op": "c", "__table": "users", "__lsn": 4711, "__source_ts_ms": 1_600_000_000_654}


def test_a_flat_delete_is_rewritten_where_asked() -> None:
    records = encoded(delete(1, "ann", "1.00"), format="flat", delete_tombstone_handling_mode="rewrite-with-tombstone")

    assert value(records)["__deleted"] == "true"
    assert value(records)["name"] == "ann"
    assert records[1] == (b'{"id":1}', None)


def test_a_flat_row_wants_all_values() -> None:
    with pytest.raises(Partial, match="did not carry name"):
        encoded(update((1, UNCHANGED, UNCHANGED), (1, UNCHANGED, "1.00")), format="flat")


def test_maxwells_message_has_data_and_what_was_old() -> None:
    key, _ = encoded(update((1, "ann", "1.00"), (1, "bob", "1.00")), format="maxwell")[0]
    got = value(encoded(update((1, "ann", "1.00"), (1, "bob", "1.00")), format="maxwell"))

    assert got == {
        "database": "shop",
        "table": "users",
        "type": "update",
        "ts": 1_600_000_000,
        "xid": 571,
        "commit": True,
        "data": {"id": 1, "name": "bob", "paid": 1.00},
        "old": {"name": "ann"},
    }
    assert orjson.loads(key or b"") == {"database": "shop", "table": "users", "pk.id": 1}


def test_canals_message_has_strings_and_types() -> None:
    got = value(encoded(update((1, "ann", "1.00"), (1, "bob", "1.00")), format="canal"))

    assert got["data"] == [{"id": "1", "name": "bob", "paid": "1.00"}]
    assert got["old"] == [{"name": "ann"}]
    assert got["mysqlType"] == {"id": "int", "name": "text", "paid": "decimal(10,2)"}
    assert (got["pkNames"], got["type"], got["isDdl"], got["es"]) == (["id"], "UPDATE", False, 1_600_000_000_654)


@pytest.mark.parametrize(
    ("kind", "value", "mode", "want"),
    [
        (Type(Kind.DATE), "2026-11-23", {}, 20_780),
        (Type(Kind.DATE), "1969-12-31", {}, -1),
        (Type(Kind.TIME, precision=3), "23:59:59.5", {}, 86_399_500),
        (Type(Kind.TIME, precision=6), "23:59:59.5", {}, 86_399_500_000),
        (Type(Kind.TIME, precision=0), "-12:00:00", {"times": "adaptive_time_microseconds"}, -43_200_000_000),
        (Type(Kind.TIMESTAMP, precision=3), "2020-02-29T00:00:00.25", {}, 1_582_934_400_250),
        (Type(Kind.TIMESTAMP), "2020-02-29T00:00:00.000001", {}, 1_582_934_400_000_001),
        (Type(Kind.TIMESTAMP), "2020-02-29T00:00:00.25", {"times": "connect"}, 1_582_934_400_250),
        (Type(Kind.TIMESTAMPTZ), "2020-02-29T00:00:00.25Z", {}, "2020-02-29T00:00:00.25Z"),
        (Type(Kind.DECIMAL, precision=5, scale=2), "-1.50", {}, "/2o="),
        (Type(Kind.DECIMAL), "-1.50", {}, {"scale": 2, "value": "/2o="}),
        (Type(Kind.DECIMAL, precision=5, scale=2), "-1.50", {"decimals": "double"}, -1.5),
        (Type(Kind.DECIMAL, precision=5, scale=2), "-1.50", {"decimals": "string"}, "-1.50"),
        (Type(Kind.BYTES), b"\xfb\xff", {}, "+/8="),
        (Type(Kind.BYTES), b"\xfb\xff", {"binary": "base64-url-safe"}, "-_8="),
        (Type(Kind.BYTES), b"\xfb\xff", {"binary": "hex"}, "fbff"),
        (Type(Kind.INTEGER, bits=64, unsigned=True), (1 << 64) - 1, {"unsigned": "precise"}, "AP//////////"),
        (Type(Kind.INTEGER, bits=64, unsigned=True), (1 << 64) - 1, {}, (1 << 64) - 1),
        (Type(Kind.BIT, length=1, fixed=True), "1", {}, True),
        (Type(Kind.BIT, length=9, fixed=True), "100000001", {}, "AQE="),
        (Type(Kind.SET), ("a", "b"), {}, "a,b"),
        (Type(Kind.INTERVAL), "P1Y2M3DT4H5M6.7S", {"intervals": "string"}, "P1Y2M3DT4H5M6.7S"),
        (Type(Kind.INTERVAL), "P1DT-1S", {}, 86_399_000_000),
    ],
)
def test_a_value_is_written_as_its_mode_says(kind: Type, value: Any, mode: dict[str, str], want: Any) -> None:
    names = {
        "decimals": "decimal_handling_mode",
        "times": "time_precision_mode",
        "binary": "binary_handling_mode",
        "unsigned": "bigint_unsigned_handling_mode",
        "intervals": "interval_handling_mode",
    }
    modes = KafkaSink.model_validate({"brokers": ["k"], **{names[name]: word for name, word in mode.items()}}).modes
    form = form_of(Column("c", kind), modes)

    got = value if form.convert is None else form.convert(value)

    assert got == want
    assert type(got) is type(want)


def test_an_unsigned_number_without_room_is_refused_by_name_where_a_schema_bounds_it() -> None:
    table = Table("", "t", (Column("id", Type(Kind.INTEGER, bits=64, unsigned=True)),), ("id",))

    with pytest.raises(Unfit, match=r"column id: .*bigint_unsigned_handling_mode: precise"):
        encoded(insert((1 << 64) - 1, table=table), schemas=True)


def test_a_zero_date_is_null_or_the_epoch_as_debezium_has_it() -> None:
    convert = form_of(Column("c", Type(Kind.DATE)), Modes()).convert
    required = form_of(Column("c", Type(Kind.DATE), nullable=False), Modes()).convert

    assert convert is not None
    assert required is not None
    assert convert("0000-00-00") is None
    assert required("2026-00-00") == 0


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_the_java_clients(data: bytes, want: int) -> None:
    got = murmur2(data)

    assert (got - (1 << 32) if got >= 1 << 31 else got) == want
    assert 0 <= partition_of(data, 7) < 7


def test_a_message_key_is_no_part_of_the_row() -> None:
    columns = (*USERS.columns, Column("_message_key.tenant", TEXT))
    table = Table("shop", "users", columns, ("id",), ("_message_key.tenant",))
    text = Table("shop", "users", (*USERS.columns, Column("_message_key", TEXT)), ("id",), ("_message_key",))

    key, _ = encoded(insert(1, "ann", None, "acme", table=table))[0]
    got = value(encoded(insert(1, "ann", None, "acme", table=table)))

    assert key == b'{"tenant":"acme"}'
    assert got["after"] == {"id": 1, "name": "ann", "paid": None}
    assert encoded(insert(1, "ann", None, "acme", table=text))[0][0] == b"acme"
