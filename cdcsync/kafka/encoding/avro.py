"""Debezium's envelope and flat rows in Avro, with the schemas that Confluent's AvroConverter makes of Kafka Connect's.

Source: Confluent's `AvroData` (connect.name, connect.type, decimal) and "Wire format": 0, the schema's id in four bytes.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from fastavro import parse_schema, schemaless_writer
from fastavro.validation import validate

from cdcsync.change import Operation
from cdcsync.evolution import Mode
from cdcsync.kafka.config import Deletes, Format
from cdcsync.kafka.encoding.debezium import OPS, completed, source_of
from cdcsync.kafka.encoding.flat import FlatTable
from cdcsync.kafka.encoding.following import followed, row_of
from cdcsync.kafka.encoding.modes import Unfit
from cdcsync.kafka.encoding.rows import Rows
from cdcsync.kafka.encoding.schemas import envelope_schema, key_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.change import Change, Row, Table, Transaction
    from cdcsync.evolution import Follows
    from cdcsync.kafka.config import KafkaSink
    from cdcsync.kafka.encoding.records import Encoded, Sender
    from cdcsync.kafka.registry import Registry

_PLAIN: Final = {
    "int8": "int",
    "int16": "int",
    "int32": "int",
    "int64": "long",
    "float": "float",
    "double": "double",
    "boolean": "boolean",
    "string": "string",
    "bytes": "bytes",
}
_NARROW: Final = frozenset({"int8", "int16"})
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"


def avro_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Avro schema of a Kafka Connect struct."""
    made = _type(schema, set())
    return made if isinstance(made, dict) else {"type": made}


def field_name(name: str) -> str:
    """Return a column's name in the letters that Avro has."""
    return re.sub(r"^(?=\d)|[^A-Za-z0-9_]", "_", name)


def _type(schema: Mapping[str, Any], seen: set[str]) -> Any:
    kind, name = str(schema["type"]), str(schema.get("name", ""))
    if kind == "struct":
        return _record(schema, seen)
    made: dict[str, Any] = _array(schema, seen) if kind == "array" else {"type": _PLAIN[kind]}
    if kind in _NARROW:
        made["connect.type"] = kind
    parameters = dict(schema.get("parameters", {}))
    if name == _DECIMAL:
        precision = int(parameters.get("connect.decimal.precision", 64))
        made |= {"scale": int(parameters["scale"]), "precision": precision, "logicalType": "decimal"}
    if name:
        made |= {"connect.version": schema.get("version", 1), "connect.name": name}
    if parameters:
        made["connect.parameters"] = parameters
    return made if len(made) > 1 else made["type"]


def _array(schema: Mapping[str, Any], seen: set[str]) -> dict[str, Any]:
    return {"type": "array", "items": _optional(schema["items"], seen)}


def _record(schema: Mapping[str, Any], seen: set[str]) -> Any:
    full = str(schema.get("name") or "Record")
    if full in seen:
        return full
    seen.add(full)
    namespace, _, name = full.rpartition(".")
    fields = []
    for each in schema["fields"]:
        inner = _optional(each, seen)
        field = {"name": field_name(str(each["field"])), "type": inner}
        fields.append(field | ({"default": None} if each.get("optional") else {}))
    made: dict[str, Any] = {"type": "record", "name": name, "fields": fields, "connect.name": full}
    return made | ({"namespace": namespace} if namespace else {})


def _optional(schema: Mapping[str, Any], seen: set[str]) -> Any:
    made = _type(schema, seen)
    return ["null", made] if schema.get("optional") else made


class Writer:
    """Writes objects of one schema, which the registry has under an id."""

    def __init__(self, registry: Registry, topic: str, schema: Mapping[str, Any], follows: Follows | None) -> None:
        """`follows` is what a value's entry says; None for a key, whose schema is taken as it is."""
        avro = avro_of(schema)
        subject = subject_of(registry, topic, avro, key=follows is None)
        number = registry.known(subject, orjson.dumps(avro).decode())
        self._bounded = False
        """Whether the schema is not that of the rows alone."""
        if number is None:
            self._bounded = follows is not None and follow(registry, subject, avro, follows)
            number = registry.register(subject, orjson.dumps(avro).decode())
        self._head = b"\0" + number.to_bytes(4, "big")
        self._schema = parse_schema(avro)

    def write(self, fields: Mapping[str, Any]) -> bytes:
        """Return the message. Raises Unfit where a value does not fit a schema that did not follow its table."""
        out = io.BytesIO()
        out.write(self._head)
        if self._bounded and not validate(fields, self._schema, raise_errors=False):
            raise Unfit("a value does not fit the schema that its topic goes on with (`schema_changes`)")
        schemaless_writer(out, self._schema, fields)
        return out.getvalue()


def subject_of(registry: Registry, topic: str, avro: Mapping[str, Any], *, key: bool) -> str:
    """Return the subject under which a schema is registered."""
    full = f"{avro['namespace']}.{avro['name']}" if avro.get("namespace") else str(avro["name"])
    return registry.config.subjects.of(topic, full, key=key)


def follow(registry: Registry, subject: str, avro: dict[str, Any], follows: Follows) -> bool:
    """Change a value's schema as its entry says, by the latest that is there; return whether something is there."""
    latest = registry.latest(subject)
    if latest is None:
        return False
    if follows.mode is Mode.STOP:
        return False
    row_of(avro)["fields"] = followed(subject, avro, orjson.loads(latest), follows)
    return True


class AvroTable:
    """Writes the changes of one table version; its schemas fit their subjects, or making it raised Fatal."""

    def __init__(
        self, table: Table, config: KafkaSink, sender: Sender, registry: Registry, topic: str, follows: Follows
    ) -> None:
        modes = replace(config.modes, raw=True, schemas=True)
        self._rows = Rows.of(table, modes)
        self._table = table
        self._sender = sender
        self._envelope = config.format is Format.DEBEZIUM
        self._tombstones = config.tombstones
        self._deletes = config.delete_tombstone_handling_mode
        self._flat = FlatTable(table, config, sender)
        value = envelope_schema(self._rows, sender) if self._envelope else self._flat.value_schema(self._rows)
        self._value = Writer(registry, topic, value, follows)
        self._key: Writer | None = None
        if self._rows.key_at and not self._rows.text_key:
            self._key = Writer(registry, topic, key_schema(self._rows, sender), None)

    def encode(self, change: Change, transaction: Transaction, now_us: int) -> list[Encoded]:
        """Return the records of one change, in order. Raises Partial, Unfit."""
        _, operation, before, after = change
        if after is None:
            return self._deleted(operation, before, transaction, now_us)
        gone: list[Encoded] = []
        moved = before is not None and self._rows.key_differs(before, after)
        whole = after if before is None else completed(before, after)
        if moved:
            gone = self._deleted(Operation.DELETE, before, transaction, now_us)
            operation, before = Operation.INSERT, None
        if not self._envelope:
            added = self._flat.added(operation, transaction, now_us)
            return [*gone, (self._keyed(after), self._value.write(_named(self._rows.full(whole)) | added))]
        row = self._rows.full(whole) if moved else self._rows.object(whole)
        was = None if before is None or self._rows.carries_key_alone(before) else self._rows.known(before)
        return [*gone, (self._keyed(after), self._event(operation, was, row, transaction, now_us))]

    def _deleted(
        self, operation: Operation, before: Row | None, transaction: Transaction, now_us: int
    ) -> list[Encoded]:
        if operation is Operation.TRUNCATE or before is None:
            if not self._envelope:
                raise Unfit("flat rows cannot say that a table was emptied: map `truncate: ignore`")
            return [(None, self._event(operation, None, None, transaction, now_us))]
        key = self._keyed(before)
        made: list[Encoded] = []
        if self._envelope:
            made.append((key, self._event(operation, self._known(before), None, transaction, now_us)))
        elif self._deletes in {Deletes.REWRITE, Deletes.REWRITE_WITH_TOMBSTONE}:
            added = self._flat.added(operation, transaction, now_us)
            made.append((key, self._value.write(_named(self._known(before)) | added)))
        tomb = self._tombstones if self._envelope else "tombstone" in self._deletes
        return [*made, (key, None)] if tomb and key is not None else made

    def _known(self, before: Row) -> dict[str, Any]:
        """Return the row before; a column that is never null and was not logged is its type's zero, as Debezium has it."""
        made = self._rows.known(before)
        for column, form in self._rows.columns:
            if made[column.name] is None and not column.nullable:
                made[column.name] = _ZEROS.get(form.type)
        return made

    def _event(
        self,
        operation: Operation,
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
        transaction: Transaction,
        now_us: int,
    ) -> bytes:
        return self._value.write(
            {
                "before": None if before is None else _named(before),
                "after": None if after is None else _named(after),
                "source": source_of(self._sender, self._table, transaction, operation),
                "transaction": None,
                "op": OPS[operation],
                "ts_ms": now_us // 1000,
                "ts_us": now_us,
                "ts_ns": now_us * 1000,
            }
        )

    def _keyed(self, row: Row) -> bytes | None:
        if self._key is None:
            return self._rows.key_bytes(row)
        return self._key.write(_named(self._rows.key_object(row)))


_ZEROS: Final = {
    "int8": 0, "int16": 0, "int32": 0, "int64": 0, "float": 0.0, "double": 0.0, "boolean": False, "string": "",
    "bytes": b"", "array": [],
}  # fmt: skip


def _named(fields: dict[str, Any]) -> dict[str, Any]:
    return {field_name(name): value for name, value in fields.items()}
