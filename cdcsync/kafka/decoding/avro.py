"""Messages in Avro as Confluent's serialisers frame them: their schema is one of Kafka Connect's, their values plain.

Sources: Confluent's "Wire format" (0, the schema's id in four bytes, Avro's binary form) and `AvroData` (connect.name,
connect.type, connect.parameters); Avro's specification, "Logical types".
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import SchemaParseException, UnknownType

from cdcsync.kafka.decoding.opening import Json, Opened
from cdcsync.kafka.decoding.records import Malformed, Unregistered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdcsync.kafka.registry import Registered

_HEAD: Final = 5
"""Bytes before the row: 0 and the schema's id."""
_PLAIN: Final = {"int": "int32", "long": "int64", "float": "float32", "double": "float64", "boolean": "boolean"}
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_LOGICAL: Final = {
    "date": "org.apache.kafka.connect.data.Date",
    "time-millis": "org.apache.kafka.connect.data.Time",
    "time-micros": "io.debezium.time.MicroTime",
    "local-timestamp-millis": "io.debezium.time.Timestamp",
    "local-timestamp-micros": "io.debezium.time.MicroTimestamp",
    "local-timestamp-nanos": "io.debezium.time.NanoTimestamp",
    "timestamp-millis": "timestamp-millis",
    "timestamp-micros": "timestamp-micros",
    "timestamp-nanos": "timestamp-nanos",
    "uuid": "io.debezium.data.Uuid",
}
"""What a schema means that has Avro's own types alone, by the names that Kafka Connect's have."""
_BROKEN: Final = (EOFError, ValueError, IndexError, TypeError, KeyError, OverflowError, MemoryError, RecursionError)


class Schemas(Protocol):
    """Where schemas are looked up."""

    def by_id(self, number: int) -> Registered | None:
        """Return the schema of an id, None where there is none. Raises Transient, Fatal."""
        ...


class _Known(NamedTuple):
    parsed: Any
    connect: Mapping[str, Any]


class Avro:
    """Opens values: each schema is looked up once."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._known: dict[bytes, _Known] = {}

    def open(self, data: bytes) -> Opened:
        """Return the row and its schema. Raises Malformed, Unregistered; Transient and Fatal as the registry does."""
        found = self._known.get(data[:_HEAD]) or self._looked_up(data)
        source = io.BytesIO(data)
        source.seek(_HEAD)
        try:
            payload = schemaless_reader(source, found.parsed, None)
        except _BROKEN as error:
            msg = f"it is not what schema {_number(data)} says"
            raise Malformed(msg) from error
        if source.tell() != len(data):
            msg = f"it goes on where schema {_number(data)} ends"
            raise Malformed(msg)
        return Opened(payload, found.connect)

    def keys(self) -> Keys:
        """Return what opens the keys beside these values."""
        return Keys(self)

    def _looked_up(self, data: bytes) -> _Known:
        if len(data) < _HEAD or data[0]:
            raise Malformed("it is not Avro: it does not begin with the id of a schema")
        number = _number(data)
        found = self._schemas.by_id(number)
        if found is None:
            msg = f"the registry has no schema {number}: it was written with another one"
            raise Unregistered(msg)
        if found.kind != "AVRO":
            msg = f"schema {number} is {found.kind}, and not Avro"
            raise Malformed(msg)
        try:
            known = self._known[data[:_HEAD]] = _known(found)
        except (*_BROKEN, SchemaParseException, UnknownType) as error:
            msg = f"schema {number} is none that can be read: {type(error).__name__}"
            raise Malformed(msg) from error
        return known


class Keys:
    """Opens keys: in Avro, or as JSON where their sender has them so."""

    def __init__(self, avro: Avro) -> None:
        self._avro = avro
        self._json = Json()

    def open(self, data: bytes) -> Opened:
        """Return the key and its schema; JSON does not begin with a zero."""
        return self._avro.open(data) if data[:1] == b"\0" else self._json.open(data)


def _number(data: bytes) -> int:
    return int.from_bytes(data[1:_HEAD], "big")


def _known(found: Registered) -> _Known:
    named: dict[str, Any] = {}
    connect = _Connect()
    for text in found.others:
        other = _plain(orjson.loads(text))
        parse_schema(other, named)
        connect.of(other)
    schema = _plain(orjson.loads(found.text))
    return _Known(parse_schema(schema, named), connect.of(schema))


def _plain(schema: Any) -> Any:
    """Return the schema with its logical types under another name: values are read as they were written."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _plain(each) if name in {"type", "items", "values"} else each for name, each in schema.items()}
    if isinstance(schema.get("fields"), list):
        made["fields"] = [_plain(each) for each in schema["fields"]]
    if "logicalType" in made:
        made["logical"] = made.pop("logicalType")
    return made


class _Connect:
    """Turns Avro's schemas into Kafka Connect's; one for each message's, as names are its own."""

    def __init__(self) -> None:
        self._named: dict[str, Mapping[str, Any]] = {}

    def of(self, schema: Any, space: str = "") -> dict[str, Any]:
        """Return the schema; `space` is the namespace that names without one are in."""
        if isinstance(schema, list):
            return self._union(schema, space)
        if isinstance(schema, str):
            return self._by_name(schema, space)
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.of(kind, space)
        made = self._of_kind(kind, schema, space)
        parameters = schema.get("connect.parameters")
        name = schema.get("connect.name")
        if isinstance(schema.get("connect.type"), str) and made["type"].startswith("int"):
            made["type"] = schema["connect.type"]
        if name is None and "logical" in schema:
            made |= _logical(schema)
        elif isinstance(name, str):
            made["name"] = name
        if isinstance(parameters, dict):
            made["parameters"] = {**made.get("parameters", {}), **parameters}
        if made.get("name") == _DECIMAL:
            made["parameters"] = _numbers_of(schema) | made.get("parameters", {})
        return made

    def _of_kind(self, kind: str, schema: Mapping[str, Any], space: str) -> dict[str, Any]:
        if kind in {"record", "error"}:
            return self._record(schema, space)
        if kind == "enum":
            labels = {"allowed": ",".join(schema["symbols"])}
            return self._kept(schema, space, {"type": "string", "name": "io.debezium.data.Enum", "parameters": labels})
        if kind == "fixed":
            return self._kept(schema, space, {"type": "bytes"})
        if kind == "array":
            return {"type": "array", "items": self.of(schema["items"], space)}
        if kind == "map":
            return {"type": "map"}
        return self._by_name(kind, space)

    def _record(self, schema: Mapping[str, Any], space: str) -> dict[str, Any]:
        full = _full(schema, space)
        self._named[full] = {"type": "struct", "name": full}
        inner = full.rpartition(".")[0]
        fields = [{**self.of(each["type"], inner), "field": each["name"]} for each in schema["fields"]]
        return self._kept(schema, space, {"type": "struct", "fields": fields, "name": full})

    def _union(self, branches: Sequence[Any], space: str) -> dict[str, Any]:
        """Return an optional schema of one; a value that is of several types is taken as JSON."""
        some = [each for each in branches if each != "null"]
        made = self.of(some[0], space) if len(some) == 1 else {"type": "struct"}
        for each in some if len(some) > 1 else ():
            self.of(each, space)
        return {**made, "optional": len(some) < len(branches)}

    def _by_name(self, name: str, space: str) -> dict[str, Any]:
        if name in _PLAIN:
            return {"type": _PLAIN[name]}
        if name in {"string", "bytes"}:
            return {"type": name}
        if name == "null":
            return {"type": "string", "optional": True}
        return dict(self._named[name if "." in name or not space else f"{space}.{name}"])

    def _kept(self, schema: Mapping[str, Any], space: str, made: dict[str, Any]) -> dict[str, Any]:
        self._named[_full(schema, space)] = made
        return dict(made)


def _full(schema: Mapping[str, Any], space: str) -> str:
    name = str(schema["name"])
    within = str(schema.get("namespace") or space)
    return name if "." in name or not within else f"{within}.{name}"


def _logical(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a logical type adds; one that is not known is its plain type, as Avro has it."""
    logical = schema["logical"]
    if logical == "decimal":
        return {"name": _DECIMAL}
    return {"name": _LOGICAL[logical]} if logical in _LOGICAL else {}


def _numbers_of(schema: Mapping[str, Any]) -> dict[str, str]:
    made = {"scale": str(schema.get("scale", 0))}
    return made | ({"connect.decimal.precision": str(schema["precision"])} if "precision" in schema else {})
