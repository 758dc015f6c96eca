"""Values as Debezium writes them, by type and handling mode, and the Kafka Connect schema that says so.

Source: Debezium's documentation of the PostgreSQL and MySQL connectors, "Data type mappings".
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cdcsync.kafka.encoding import temporal
from cdcsync.kafka.encoding.modes import Binary, Decimals, Intervals, Modes, Times, Unfit, Unsigned
from cdcsync.types import BoundedArray, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdcsync.change import Column, Value
    from cdcsync.types import Type

    Converter = Callable[[Value], Any]

LONG_MAX: Final = (1 << 63) - 1
MS_DIGITS: Final = 3
US_DIGITS: Final = 6
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"


@dataclass(frozen=True, slots=True)
class Form:
    """How the values of one type are written."""

    type: str
    """Kafka Connect's: int8 to int64, float, double, boolean, string, bytes, array, struct."""
    convert: Converter | None = None
    """None: the value is written as it is."""
    name: str = ""
    """The semantic type."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    items: Form | None = None
    """Of an array."""
    fields: tuple[tuple[str, Form], ...] = ()
    """Of a struct."""
    placeholder: Any = None
    """What says that the log did not carry the value; None: nothing can."""

    def schema(self, *, optional: bool, field_name: str = "") -> dict[str, Any]:
        """Return it as JsonConverter writes a schema."""
        made: dict[str, Any] = {"type": self.type}
        if self.items is not None:
            made["items"] = self.items.schema(optional=True)
        if self.fields:
            made["fields"] = [inner.schema(optional=False, field_name=name) for name, inner in self.fields]
        made["optional"] = optional
        if self.name:
            made |= {"name": self.name, "version": 1}
        if self.parameters:
            made["parameters"] = dict(self.parameters)
        if field_name:
            made["field"] = field_name
        return made


def form_of(column: Column, modes: Modes) -> Form:
    """Return how the values of a column are written."""
    made = _form(column.type, modes)
    if column.type.kind in {Kind.DATE, Kind.TIMESTAMP} and made.convert is not None:
        return Form(made.type, partial(_zero_date, made.convert, column.nullable), made.name)
    return made


def _zero_date(convert: Converter, nullable: bool, value: Value) -> Any:  # noqa: FBT001  positional under `partial`
    """Return null for a date that is none, 0 where the column has no null: as Debezium does with MySQL's zero dates."""
    try:
        return convert(value)
    except Unfit:
        return None if nullable else 0


def _form(kind: Type, modes: Modes) -> Form:
    special = _SPECIAL.get(kind.kind)
    if special is not None:
        return special(kind, modes)
    return Form("string", placeholder=modes.unavailable, name=_NAMES.get(kind.kind, ""))


def _integer(kind: Type, modes: Modes) -> Form:
    if kind.unsigned and kind.bits == 64:  # noqa: PLR2004  BIGINT UNSIGNED
        if modes.unsigned is Unsigned.PRECISE:
            convert = partial(_unsigned, raw=modes.raw)
            return Form("bytes", convert, _DECIMAL, {"scale": "0", "connect.decimal.precision": "20"})
        return Form("int64", _bounded if modes.schemas else None)
    width = kind.bits * 2 if kind.unsigned and kind.bits != 24 else kind.bits  # noqa: PLR2004  MEDIUMINT
    return Form(f"int{min(64, max(16, 32 if width == 24 else width))}")  # noqa: PLR2004


def _bounded(value: int) -> int:
    if value > LONG_MAX:
        raise Unfit("it is above 2^63-1: set `bigint_unsigned_handling_mode: precise`")
    return value


def _unsigned(value: int, *, raw: bool) -> Any:
    return _unscaled(value, raw=raw)


def _unscaled(number: int, *, raw: bool) -> Any:
    made = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    return made if raw else b64encode(made).decode("ascii")


def _float(kind: Type, modes: Modes) -> Form:
    single = kind.bits == 32  # noqa: PLR2004  bits
    return Form("float" if single else "double", None if modes.raw else _finite)


def _finite(value: float) -> float | str:
    if value - value == 0:
        return value
    if value != value:  # noqa: PLR0124  only NaN is not itself
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _decimal(kind: Type, modes: Modes) -> Form:
    if modes.decimals is Decimals.STRING:
        return Form("string", placeholder=modes.unavailable)
    if modes.decimals is Decimals.DOUBLE:
        return Form("double", float if modes.raw else _double)
    if kind.precision is None:
        fields = (("scale", Form("int32")), ("value", Form("bytes")))
        return Form("struct", partial(_variable, raw=modes.raw), "io.debezium.data.VariableScaleDecimal", fields=fields)
    scale = kind.scale or 0
    parameters = {"scale": str(scale), "connect.decimal.precision": str(kind.precision)}
    return Form("bytes", partial(_precise, scale, raw=modes.raw), _DECIMAL, parameters)


def _double(value: str) -> float | str:
    return _finite(float(value))


def _precise(scale: int, value: str, *, raw: bool) -> Any:
    number, digits = _digits(value)
    if digits > scale:
        raise Unfit("it has more digits than its column: set `decimal_handling_mode: string`")
    return _unscaled(number * 10 ** (scale - digits), raw=raw)


def _variable(value: str, *, raw: bool) -> dict[str, Any]:
    number, digits = _digits(value)
    return {"scale": digits, "value": _unscaled(number, raw=raw)}


def _digits(value: str) -> tuple[int, int]:
    """Return the unscaled number and its scale."""
    whole, _, fraction = value.partition(".")
    try:
        return int(whole + fraction), len(fraction)
    except ValueError:
        raise Unfit("it is no number: set `decimal_handling_mode: string`") from None


def _bytes(_kind: Type, modes: Modes) -> Form:
    unavailable = modes.unavailable.encode()
    if modes.binary is Binary.BYTES:
        if modes.raw:
            return Form("bytes", placeholder=unavailable)
        return Form("bytes", _base64, placeholder=_base64(unavailable))
    convert = _BINARY[modes.binary]
    return Form("string", convert, placeholder=convert(unavailable))


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _url_safe(value: bytes) -> str:
    return urlsafe_b64encode(value).decode("ascii")


_BINARY: Final[Mapping[Binary, Converter]] = {
    Binary.HEX: bytes.hex,
    Binary.BASE64: _base64,
    Binary.BASE64_URL_SAFE: _url_safe,
}


def _bit(kind: Type, modes: Modes) -> Form:
    if kind.length == 1 and kind.fixed:
        return Form("boolean", "1".__eq__)
    length = kind.length
    parameters = {"length": str(length if length is not None else 2147483647)}
    return Form("bytes", partial(_bits, raw=modes.raw), "io.debezium.data.Bits", parameters)


def _bits(value: str, *, raw: bool) -> Any:
    """Return the bits as little-endian bytes."""
    made = int(value or "0", 2).to_bytes((len(value) + 7) // 8, "little")
    return made if raw else _base64(made)


def _date(_kind: Type, modes: Modes) -> Form:
    connect = modes.times is Times.CONNECT
    return Form("int32", temporal.days, "org.apache.kafka.connect.data.Date" if connect else "io.debezium.time.Date")


def _time(kind: Type, modes: Modes) -> Form:
    digits = US_DIGITS if kind.precision is None else kind.precision
    if modes.times is Times.CONNECT:
        return Form("int32", temporal.clock_ms, "org.apache.kafka.connect.data.Time")
    if digits > US_DIGITS:
        return Form("int64", temporal.clock_ns, "io.debezium.time.NanoTime")
    if digits > MS_DIGITS or modes.times is Times.ADAPTIVE_TIME_MICROSECONDS:
        return Form("int64", temporal.clock_us, "io.debezium.time.MicroTime")
    return Form("int32", temporal.clock_ms, "io.debezium.time.Time")


def _timestamp(kind: Type, modes: Modes) -> Form:
    digits = US_DIGITS if kind.precision is None else kind.precision
    if modes.times is Times.CONNECT:
        return Form("int64", temporal.moment_ms, "org.apache.kafka.connect.data.Timestamp")
    if digits > US_DIGITS:
        return Form("int64", temporal.moment_ns, "io.debezium.time.NanoTimestamp")
    if digits > MS_DIGITS:
        return Form("int64", temporal.moment_us, "io.debezium.time.MicroTimestamp")
    return Form("int64", temporal.moment_ms, "io.debezium.time.Timestamp")


def _timetz(_kind: Type, _modes: Modes) -> Form:
    return Form("string", None, "io.debezium.time.ZonedTime")


def _interval(_kind: Type, modes: Modes) -> Form:
    if modes.intervals is Intervals.STRING:
        return Form("string", temporal.duration_text, "io.debezium.time.Interval")
    return Form("int64", temporal.duration_us, "io.debezium.time.MicroDuration")


def _enum(kind: Type, modes: Modes) -> Form:
    allowed = {"allowed": ",".join(kind.labels)} if kind.labels else {}
    return Form("string", None, "io.debezium.data.Enum", allowed, placeholder=modes.unavailable)


def _set(kind: Type, modes: Modes) -> Form:
    allowed = {"allowed": ",".join(kind.labels)} if kind.labels else {}
    return Form("string", ",".join, "io.debezium.data.EnumSet", allowed, placeholder=modes.unavailable)


def _array(kind: Type, modes: Modes) -> Form:
    inner = _form(kind.element, modes) if kind.element is not None else Form("string")
    placeholder = None if inner.placeholder is None else [inner.placeholder]
    return Form("array", partial(_list, inner.convert, not modes.schemas), items=inner, placeholder=placeholder)


def _list(convert: Converter | None, nested: bool, values: tuple[Value, ...]) -> list[Any]:  # noqa: FBT001  positional under `partial`
    if type(values) is BoundedArray:
        raise Unfit("its lower bounds are not 1, which an array of Kafka Connect's has not")
    if not nested and any(isinstance(value, tuple) for value in values):
        raise Unfit("it has more than one dimension, which the schema of an array cannot say")
    return [
        _list(convert, nested, value)
        if isinstance(value, tuple)
        else (value if value is None or convert is None else convert(value))
        for value in values
    ]


def _geometry(_kind: Type, modes: Modes) -> Form:
    fields = (("wkb", Form("bytes")), ("srid", Form("int32")))
    return Form("struct", partial(_wkb, raw=modes.raw), "io.debezium.data.geometry.Geometry", fields=fields)


def _wkb(value: bytes, *, raw: bool) -> dict[str, Any]:
    """Return plain WKB and the SRID of EWKB (PostGIS, "ewkb_readable")."""
    little = value[:1] == b"\x01"
    kind = int.from_bytes(value[1:5], "little" if little else "big")
    srid = None
    if kind & 0x20000000:
        srid = int.from_bytes(value[5:9], "little" if little else "big")
        value = value[:1] + (kind & ~0x20000000).to_bytes(4, "little" if little else "big") + value[9:]
    return {"wkb": value if raw else _base64(value), "srid": srid}


_SPECIAL: Final[dict[Kind, Callable[[Type, Modes], Form]]] = {
    Kind.BOOLEAN: lambda _kind, _modes: Form("boolean"),
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.DECIMAL: _decimal,
    Kind.BYTES: _bytes,
    Kind.BIT: _bit,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMETZ: _timetz,
    Kind.INTERVAL: _interval,
    Kind.ENUM: _enum,
    Kind.SET: _set,
    Kind.ARRAY: _array,
    Kind.GEOMETRY: _geometry,
}
_NAMES: Final = {
    Kind.TIMESTAMPTZ: "io.debezium.time.ZonedTimestamp",
    Kind.UUID: "io.debezium.data.Uuid",
    Kind.JSON: "io.debezium.data.Json",
}
