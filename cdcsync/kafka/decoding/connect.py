"""Kafka Connect's schemas, as JsonConverter and Debezium write them: columns, and what reads their values.

Sources: `org.apache.kafka.connect.json.JsonConverter`; Debezium's documentation of the MySQL and PostgreSQL
connectors, "Data type mappings", for the names of the semantic types.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from cdcsync.change import Column, Table
from cdcsync.kafka.decoding import temporal
from cdcsync.kafka.decoding.columns import (
    How,
    Layout,
    base64_bytes,
    declared,
    json_text,
    plain_converter,
    unscaled,
)
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Value

    Converter = Callable[[Any], Value]
    Meaning = tuple[Type, Converter | None]
    Schema = Mapping[str, Any]

_MS: Final = 1_000_000
_US: Final = 1_000
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_EWKB_SRID: Final = 0x20000000
_SOURCE_TYPE: Final = "__debezium.source.column.type"
_SOURCE_LENGTH: Final = "__debezium.source.column.length"
_SOURCE_SCALE: Final = "__debezium.source.column.scale"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else base64_bytes(value)


def _variable_decimal(value: Any) -> str:
    return unscaled(int(value["scale"]), value["value"])


def bits(length: int, value: Any) -> str:
    """Return a BIT of Debezium's little-endian bytes."""
    raw = _bytes(value)
    number = int.from_bytes(raw, "little")
    return f"{number:0{length or 8 * len(raw)}b}"


def _geometry(value: Any) -> bytes:
    """Return EWKB of `{wkb, srid}`."""
    wkb = _bytes(value["wkb"])
    srid = value.get("srid")
    order: Literal["little", "big"] = "little" if wkb[:1] == b"\x01" else "big"
    kind = int.from_bytes(wkb[1:5], order)
    if not srid or kind & _EWKB_SRID:
        return wkb
    return wkb[:1] + (kind | _EWKB_SRID).to_bytes(4, order) + int(srid).to_bytes(4, order) + wkb[5:]


def _labels(value: Any) -> tuple[str, ...]:
    return tuple(value.split(",")) if value else ()


def _number(value: Any) -> float:
    return float(value)


_INTEGERS: Final[Mapping[str, int]] = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
_NAMED: Final[Mapping[str, Meaning]] = {
    "io.debezium.data.VariableScaleDecimal": (Type(Kind.DECIMAL), _variable_decimal),
    "io.debezium.time.Date": (Type(Kind.DATE), temporal.date_of),
    "org.apache.kafka.connect.data.Date": (Type(Kind.DATE), temporal.date_of),
    "io.debezium.time.Time": (Type(Kind.TIME, precision=3), temporal.clocks(_MS)),
    "org.apache.kafka.connect.data.Time": (Type(Kind.TIME, precision=3), temporal.clocks(_MS)),
    "io.debezium.time.MicroTime": (Type(Kind.TIME, precision=6), temporal.clocks(_US)),
    "io.debezium.time.NanoTime": (Type(Kind.TIME, precision=9), temporal.clocks(1)),
    "io.debezium.time.ZonedTime": (Type(Kind.TIMETZ, precision=6), temporal.zoned_clock),
    "io.debezium.time.Timestamp": (Type(Kind.TIMESTAMP, precision=3), temporal.moments(_MS)),
    "org.apache.kafka.connect.data.Timestamp": (Type(Kind.TIMESTAMP, precision=3), temporal.moments(_MS)),
    "io.debezium.time.MicroTimestamp": (Type(Kind.TIMESTAMP, precision=6), temporal.moments(_US)),
    "io.debezium.time.NanoTimestamp": (Type(Kind.TIMESTAMP, precision=9), temporal.moments(1)),
    "io.debezium.time.ZonedTimestamp": (Type(Kind.TIMESTAMPTZ, precision=6), temporal.zoned_moment),
    "io.debezium.time.IsoDate": (Type(Kind.DATE), _text),
    "io.debezium.time.IsoTime": (Type(Kind.TIME, precision=6), temporal.trimmed),
    "io.debezium.time.IsoTimestamp": (Type(Kind.TIMESTAMP, precision=6), temporal.local_moment),
    "io.debezium.time.Interval": (Type(Kind.INTERVAL, precision=6), _text),
    "io.debezium.time.MicroDuration": (Type(Kind.INTERVAL, precision=6), temporal.duration_of),
    "io.debezium.time.Year": (Type(Kind.INTEGER, bits=16), None),
    "io.debezium.data.Json": (Type(Kind.JSON), _text),
    "io.debezium.data.Xml": (Type(Kind.TEXT), None),
    "io.debezium.data.Uuid": (Type(Kind.UUID), _text),
    "io.debezium.data.geometry.Geometry": (Type(Kind.GEOMETRY), _geometry),
    "io.debezium.data.geometry.Geography": (Type(Kind.GEOMETRY), _geometry),
    "io.debezium.data.geometry.Point": (Type(Kind.GEOMETRY), _geometry),
    "timestamp-millis": (Type(Kind.TIMESTAMPTZ, precision=3), temporal.moments(_MS, "Z")),
    "timestamp-micros": (Type(Kind.TIMESTAMPTZ, precision=6), temporal.moments(_US, "Z")),
    "timestamp-nanos": (Type(Kind.TIMESTAMPTZ, precision=9), temporal.moments(1, "Z")),
    "io.debezium.data.Ltree": (Type(Kind.OPAQUE, name="ltree"), None),
}
"""By the schema's name, whatever its plain type; Avro's own instants by their logical type."""
_OTHERS: Final[Mapping[str, Meaning]] = {
    "boolean": (Type(Kind.BOOLEAN), None),
    "float": (Type(Kind.FLOAT, bits=32), _number),
    "float32": (Type(Kind.FLOAT, bits=32), _number),
    "double": (Type(Kind.FLOAT, bits=64), _number),
    "float64": (Type(Kind.FLOAT, bits=64), _number),
    "string": (Type(Kind.TEXT), None),
    "bytes": (Type(Kind.BYTES), _bytes),
    "struct": (Type(Kind.JSON), json_text),
    "map": (Type(Kind.JSON), json_text),
}


def meaning(schema: Schema) -> Meaning:
    """Return the neutral type of a field's schema, and what reads its value. Raises ValueError for an unknown type."""
    name, plain = schema.get("name", ""), str(schema.get("type"))
    parameters: Mapping[str, str] = schema.get("parameters") or {}
    if name == _DECIMAL:
        scale = int(parameters.get("scale", 0))
        precision = parameters.get("connect.decimal.precision")
        kind = Type(Kind.DECIMAL, precision=int(precision), scale=scale) if precision else Type(Kind.DECIMAL)
        return kind, partial(unscaled, scale)
    if name == "io.debezium.data.Bits":
        length = int(parameters.get("length", 0))
        return Type(Kind.BIT, length=length or None, fixed=True), partial(bits, length)
    if name in {"io.debezium.data.Enum", "io.debezium.data.EnumSet"}:
        allowed = _labels(parameters.get("allowed"))
        if name.endswith("Set"):
            return Type(Kind.SET, labels=allowed), _labels
        return Type(Kind.ENUM, labels=allowed), None
    if name in _NAMED:
        return _NAMED[name]
    if plain in _INTEGERS:
        return Type(Kind.INTEGER, bits=_INTEGERS[plain]), None
    if plain == "array":
        element, convert = meaning(schema["items"])
        return Type(Kind.ARRAY, element=element), partial(_elements, convert)
    if plain in _OTHERS:
        return _as_declared(_OTHERS[plain], parameters)
    msg = f"a schema has the type {plain!r}, which Kafka Connect does not have"
    raise ValueError(msg)


def _as_declared(found: Meaning, parameters: Mapping[str, str]) -> Meaning:
    """Return a text as its source declares it, where `column.propagate.source.type` says so."""
    source, length = parameters.get(_SOURCE_TYPE, "").lower(), parameters.get(_SOURCE_LENGTH)
    if found[0].kind is Kind.TEXT and length and source in {"varchar", "char", "character varying", "bpchar"}:
        return Type(Kind.TEXT, length=int(length), fixed=source in {"char", "bpchar"}), found[1]
    return found


def _elements(convert: Converter | None, value: Any) -> Value:
    if not isinstance(value, list):
        raise TypeError
    return tuple(None if each is None else convert(each) if convert is not None else each for each in value)


def fields_of(schema: Schema) -> list[Schema]:
    """Return a struct's fields. Raises ValueError when it is no struct."""
    fields = schema.get("fields")
    if schema.get("type") != "struct" or not isinstance(fields, list):
        msg = "its schema is no struct with fields"
        raise ValueError(msg)
    return fields


def layout_of(schema: Schema, place: tuple[str, str], key: Sequence[str], absent: Value) -> Layout:
    """Return how the rows of a struct are read. Raises ValueError."""
    columns: list[Column] = []
    converters: dict[int, Converter] = {}
    for at, field in enumerate(fields_of(schema)):
        kind, convert = meaning(field)
        name = str(field.get("field", ""))
        optional = bool(field.get("optional")) and name not in key
        columns.append(Column(name, kind, nullable=optional))
        if convert is not None:
            converters[at] = convert
    here = {column.name for column in columns}
    table = Table(*place, tuple(columns), tuple(name for name in key if name in here))
    return Layout(table, converters, absent)


def layout_declared(
    columns: Mapping[str, str],
    place: tuple[str, str],
    key: Sequence[str],
    absent: Value,
    how: How,
) -> Layout:
    """Return how rows are read whose columns a file declares; raises ValueError naming a type that there is not."""
    made = [Column(name, declared(text), nullable=name not in key) for name, text in columns.items()]
    converters = {
        at: convert for at, column in enumerate(made) if (convert := plain_converter(column.type, how)) is not None
    }
    return Layout(Table(*place, tuple(made), tuple(key)), converters, absent)
