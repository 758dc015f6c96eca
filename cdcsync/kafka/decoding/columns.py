"""Columns as a file declares them, and how their values are read out of JSON that carries no schema."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import UNCHANGED
from cdcsync.kafka.decoding import temporal
from cdcsync.kafka.decoding.numbers import Number
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Row, Table, Value

    Converter = Callable[[Any], Value]

TEXT: Final = Type(Kind.TEXT)
_DECLARED: Final = re.compile(
    r"\s*(?P<name>[a-z ]+?)\s*(?:\((?P<limits>.*)\)\s*(?P<after>[a-z ]*?))?\s*(?P<array>(?:\[\])*)\s*", re.IGNORECASE
)
_BESIDE: Final = frozenset({"unsigned", "signed", "zerofill"})
"""Words of a declaration that are not of the type's name."""
_LABEL: Final = re.compile(r"'((?:[^']|'')*)'")
_UNITS_NS: Final = (1_000_000, 1_000, 1)
"""Of a time that is a number: milliseconds up to three digits of fraction, microseconds up to six, nanoseconds."""


def _integer(bits: int) -> Type:
    return Type(Kind.INTEGER, bits=bits)


_NAMES: Final[Mapping[str, Type]] = {
    "boolean": Type(Kind.BOOLEAN), "bool": Type(Kind.BOOLEAN),
    "tinyint": _integer(8), "smallint": _integer(16), "mediumint": _integer(24), "int": _integer(32),
    "integer": _integer(32), "bigint": _integer(64), "year": _integer(16),
    "float": Type(Kind.FLOAT, bits=32), "real": Type(Kind.FLOAT, bits=32), "double": Type(Kind.FLOAT, bits=64),
    "double precision": Type(Kind.FLOAT, bits=64), "decimal": Type(Kind.DECIMAL), "numeric": Type(Kind.DECIMAL),
    "text": TEXT, "varchar": TEXT, "character varying": TEXT, "char": Type(Kind.TEXT, fixed=True),
    "character": Type(Kind.TEXT, fixed=True), "tinytext": TEXT, "mediumtext": TEXT, "longtext": TEXT,
    "bytes": Type(Kind.BYTES), "bytea": Type(Kind.BYTES), "blob": Type(Kind.BYTES), "tinyblob": Type(Kind.BYTES),
    "mediumblob": Type(Kind.BYTES), "longblob": Type(Kind.BYTES), "binary": Type(Kind.BYTES),
    "varbinary": Type(Kind.BYTES), "date": Type(Kind.DATE), "time": Type(Kind.TIME, precision=6),
    "timetz": Type(Kind.TIMETZ, precision=6), "timestamp": Type(Kind.TIMESTAMP, precision=6),
    "datetime": Type(Kind.TIMESTAMP, precision=6), "timestamptz": Type(Kind.TIMESTAMPTZ, precision=6),
    "interval": Type(Kind.INTERVAL, precision=6), "uuid": Type(Kind.UUID), "json": Type(Kind.JSON),
    "jsonb": Type(Kind.JSON), "bit": Type(Kind.BIT, length=1, fixed=True), "enum": Type(Kind.ENUM),
    "set": Type(Kind.SET),
}  # fmt: skip
_TIMES: Final = frozenset({Kind.TIME, Kind.TIMETZ, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
_LENGTHS: Final = frozenset({Kind.TEXT, Kind.BYTES, Kind.BIT})


def declared(text: str) -> Type:
    """Return the type that a declaration names, in SQL's words: `bigint`, `decimal(10,2)`, `timestamp(3)`, `text[]`.

    MySQL's own are taken as well: `bigint unsigned`, `enum('a','b')`. Raises ValueError when it is none.
    """
    found = _DECLARED.fullmatch(text)
    words = f"{found['name']} {found['after'] or ''}".lower().split() if found is not None else []
    name = " ".join(word for word in words if word not in _BESIDE)
    if found is None or name not in _NAMES:
        msg = f"no type is called {text!r}; write one such as bigint, decimal(10,2), text, timestamptz, json, text[]"
        raise ValueError(msg)
    element = _limited(_NAMES[name], (found["limits"] or "").strip(), words)
    return Type(Kind.ARRAY, element=element) if found["array"] else element


def _limited(kind: Type, limits: str, words: Sequence[str]) -> Type:
    values: dict[str, Any] = {name: getattr(kind, name) for name in ("bits", "fixed", "length", "precision")}
    if "unsigned" in words:
        values["unsigned"] = True
    if kind.kind in {Kind.ENUM, Kind.SET}:
        values["labels"] = tuple(label.replace("''", "'") for label in _LABEL.findall(limits))
    elif limits and kind.kind is Kind.DECIMAL:
        precision, _, scale = limits.partition(",")
        values |= {"precision": int(precision), "scale": int(scale or 0)}
    elif limits and kind.kind in _TIMES:
        values["precision"] = int(limits)
    elif limits and kind.kind in _LENGTHS:
        values["length"] = int(limits)
    return Type(kind.kind, **values)


@dataclass(frozen=True, slots=True)
class How:
    """How JSON without a schema writes what it has no form for, by Debezium's names."""

    binary: str = "base64"
    """`bytes` and `base64`, `base64-url-safe`, `hex`, or `latin-1`, which Canal takes."""
    decimals: str = "string"
    """`string` and `double`, or `precise`: the base64 of the unscaled number."""


class Layout:
    """How the rows of one table version are read out of objects of JSON."""

    __slots__ = ("_absent", "_converters", "_names", "table")

    def __init__(self, table: Table, converters: Mapping[int, Converter], absent: Value = None) -> None:
        """Take converters by index; `absent` is what stands for a column that an object does not have."""
        self.table = table
        self._names = [column.name for column in table.columns]
        self._converters = [(at, self._names[at], convert) for at, convert in sorted(converters.items())]
        self._absent = absent

    def row(self, fields: Mapping[str, Any]) -> Row:
        """Return the row. Raises ValueError naming the column whose value is none of its type, without the value."""
        row = list(fields.values()) if list(fields) == self._names else self._picked(fields)
        for at, name, convert in self._converters:
            value = row[at]
            if value is None or value is UNCHANGED:
                continue
            try:
                row[at] = convert(value)
            except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
                msg = f"the value of {name} is no {self.table.columns[at].type.kind.value}"
                raise ValueError(msg) from error
        return tuple(row)

    def _picked(self, fields: Mapping[str, Any]) -> list[Value]:
        return [fields.get(name, self._absent) for name in self._names]


def plain_converter(kind: Type, how: How) -> Converter | None:
    """Return what turns a value of JSON into one of that type; None where it is one already.

    Numbers and strings are taken for most types, as producers differ.
    """
    if kind.kind is Kind.BYTES:
        return _BINARY[how.binary]
    if kind.kind is Kind.DECIMAL and how.decimals == "precise":
        return partial(_precise, kind.scale or 0)
    if kind.kind is Kind.INTEGER and kind.unsigned:
        return partial(_unsigned, 1 << kind.bits)
    if kind.kind is Kind.ARRAY and kind.element is not None:
        return partial(_elements, plain_converter(kind.element, how))
    if kind.kind in _TIMES:
        return _time_converter(kind)
    if kind.kind is Kind.BIT:
        return partial(bits_of_number, kind.length or 1)
    return _CONVERTERS.get(kind.kind)


def _time_converter(kind: Type) -> Converter:
    unit_ns = _UNITS_NS[min(2, max(0, (kind.precision if kind.precision is not None else 6) - 1) // 3)]
    if kind.kind is Kind.TIME:
        of_number, of_text = temporal.clocks(unit_ns), temporal.trimmed
    elif kind.kind is Kind.TIMETZ:
        of_number, of_text = temporal.clocks(unit_ns), temporal.zoned_clock
    elif kind.kind is Kind.TIMESTAMP:
        of_number, of_text = temporal.moments(unit_ns), temporal.local_moment
    else:
        of_number, of_text = temporal.moments(unit_ns, "Z"), temporal.zoned_moment

    def convert(value: Any) -> str:
        return of_text(value) if isinstance(value, str) else of_number(int(value))

    return convert


def text_of(value: Any) -> str:
    """Return what stands in a column of text: strings as they are, everything else as its JSON."""
    return value if type(value) is str else json_text(value)


def json_text(value: Any) -> str:
    """Return a value as JSON text."""
    return orjson.dumps(value, default=_exactly, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()


def _exactly(value: Any) -> Any:
    if isinstance(value, Number):
        return orjson.Fragment(str(value))
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError


def base64_bytes(value: Any) -> bytes:
    """Return the bytes of base64. Raises ValueError."""
    try:
        return b64decode(value, validate=True)
    except NotBase64 as error:
        msg = "not base64"
        raise ValueError(msg) from error


def url_safe_bytes(value: Any) -> bytes:
    """Return the bytes of base64 for URLs. Raises ValueError."""
    return base64_bytes(value.translate(_URL_SAFE))


def unscaled(scale: int, value: Any) -> str:
    """Return a decimal of its unscaled value, big-endian two's complement: bytes, or their base64."""
    raw = value if isinstance(value, bytes) else base64_bytes(value)
    return scaled(int.from_bytes(raw, "big", signed=True), scale)


def scaled(number: int, scale: int) -> str:
    """Return number * 10^-scale in plain notation, its scale kept."""
    if scale <= 0:
        return str(number * 10**-scale)
    sign, digits = ("-", str(-number)) if number < 0 else ("", str(number))
    digits = digits.rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def _precise(scale: int, value: Any) -> str:
    """Return a decimal as `precise` writes it: base64, or an object with the value's own scale; a number is one too."""
    if isinstance(value, dict):
        return unscaled(int(value["scale"]), value["value"])
    if type(value) is str:
        return unscaled(scale, value)
    return _decimal(value)


def _unsigned(modulus: int, value: Any) -> int:
    """Return an unsigned integer, which `long` writes as a signed one."""
    number = _whole(value)
    return number + modulus if number < 0 else number


def bits_of_number(length: int, value: Any) -> str:
    """Return a BIT of a number, of its digits, or of a boolean."""
    if isinstance(value, str) and len(value) == length and not value.strip("01"):
        return value
    return f"{int(value):0{length}b}"


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}[value.lower()]
    if value in {0, 1}:
        return bool(value)
    raise ValueError


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError
    return number


def _decimal(value: Any) -> str:
    from decimal import Decimal  # noqa: PLC0415  only tables that have some

    text = str(value) if not isinstance(value, float) else repr(value)
    if text in {"NaN", "Infinity", "-Infinity"}:
        return text
    number = Decimal(text)
    return text if "e" not in text.lower() else f"{number:f}"


def _day(value: Any) -> str:
    return value[:10] if isinstance(value, str) else temporal.date_of(int(value))


def _json(value: Any) -> str:
    """Return JSON text: a string that is JSON is it, anything else is written as JSON."""
    if type(value) is str:
        orjson.loads(value)
        return value
    return json_text(value)


def _interval(value: Any) -> str:
    return value if isinstance(value, str) else temporal.duration_of(int(value))


def _set(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split(",")) if value else ()
    return tuple(value)


def _elements(convert: Converter | None, value: Any) -> Value:
    if not isinstance(value, list):
        raise TypeError
    return tuple(
        None
        if each is None
        else _elements(convert, each)
        if isinstance(each, list)
        else convert(each)
        if convert
        else each
        for each in value
    )


_URL_SAFE: Final = str.maketrans("-_", "+/")
_BINARY: Final[Mapping[str, Converter]] = {
    "bytes": base64_bytes,
    "base64": base64_bytes,
    "base64-url-safe": url_safe_bytes,
    "hex": bytes.fromhex,
    "latin-1": lambda value: str(value).encode("latin-1"),
}
_CONVERTERS: Final[Mapping[Kind, Converter]] = {
    Kind.BOOLEAN: _boolean,
    Kind.INTEGER: _whole,
    Kind.FLOAT: float,
    Kind.DECIMAL: _decimal,
    Kind.TEXT: text_of,
    Kind.DATE: _day,
    Kind.INTERVAL: _interval,
    Kind.UUID: str.lower,
    Kind.JSON: _json,
    Kind.ENUM: text_of,
    Kind.SET: _set,
    Kind.OPAQUE: text_of,
}
