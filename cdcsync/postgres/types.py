"""PostgreSQL's types and the neutral ones, their values in PostgreSQL's text form, and their declarations."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cdcsync.postgres.text import (
    array_reader,
    array_writer,
    read_date,
    read_timestamp,
    read_timestamptz,
    read_timetz,
    write_date,
)
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdcsync.change import Value
    from cdcsync.postgres.catalogue import TypeInfo

SYSTEM: Final = "postgres"
_HEADER: Final = 4
"""Added to the limit in the modifier of character and numeric types (VARHDRSZ)."""
_ANY_PRECISION: Final = 0xFFFF
"""In an interval's modifier: no precision was given (timestamp.h)."""


def _named(kind: Kind, name: str, *, bits: int = 0, unsigned: bool = False, fixed: bool = False) -> Type:
    return Type(kind, bits=bits, unsigned=unsigned, fixed=fixed, name=name, system=SYSTEM)


_NEUTRAL: Final[dict[int, Type]] = {
    16: _named(Kind.BOOLEAN, "boolean"),
    17: _named(Kind.BYTES, "bytea"),
    18: _named(Kind.TEXT, '"char"'),
    19: _named(Kind.TEXT, "name"),
    20: _named(Kind.INTEGER, "bigint", bits=64),
    21: _named(Kind.INTEGER, "smallint", bits=16),
    23: _named(Kind.INTEGER, "integer", bits=32),
    25: _named(Kind.TEXT, "text"),
    26: _named(Kind.INTEGER, "oid", bits=32, unsigned=True),
    114: _named(Kind.JSON, "json"),
    700: _named(Kind.FLOAT, "real", bits=32),
    701: _named(Kind.FLOAT, "double precision", bits=64),
    1042: _named(Kind.TEXT, "character", fixed=True),
    1043: _named(Kind.TEXT, "character varying"),
    1082: _named(Kind.DATE, "date"),
    1083: _named(Kind.TIME, "time"),
    1114: _named(Kind.TIMESTAMP, "timestamp"),
    1184: _named(Kind.TIMESTAMPTZ, "timestamptz"),
    1186: _named(Kind.INTERVAL, "interval"),
    1266: _named(Kind.TIMETZ, "timetz"),
    1560: _named(Kind.BIT, "bit", fixed=True),
    1562: _named(Kind.BIT, "bit varying"),
    1700: _named(Kind.DECIMAL, "numeric"),
    2950: _named(Kind.UUID, "uuid"),
    3802: _named(Kind.JSON, "jsonb"),
}
_OPAQUE: Final[dict[int, str]] = {
    22: "int2vector", 27: "tid", 28: "xid", 29: "cid", 30: "oidvector", 142: "xml", 600: "point", 601: "lseg",
    602: "path", 603: "box", 604: "polygon", 628: "line", 650: "cidr", 718: "circle", 774: "macaddr8",
    790: "money", 829: "macaddr", 869: "inet", 2970: "txid_snapshot", 3220: "pg_lsn", 3614: "tsvector",
    3615: "tsquery", 3904: "int4range", 3906: "numrange", 3908: "tsrange", 3910: "tstzrange", 3912: "daterange",
    3926: "int8range", 4072: "jsonpath", 4451: "int4multirange", 4532: "nummultirange", 4533: "tsmultirange",
    4534: "tstzmultirange", 4535: "datemultirange", 4536: "int8multirange", 5038: "pg_snapshot", 5069: "xid8",
}  # fmt: skip
_ARRAYS: Final[dict[int, int]] = {
    143: 142, 199: 114, 629: 628, 651: 650, 719: 718, 775: 774, 791: 790, 1000: 16, 1001: 17, 1002: 18, 1003: 19,
    1005: 21, 1006: 22, 1007: 23, 1009: 25, 1010: 27, 1011: 28, 1012: 29, 1013: 30, 1014: 1042, 1015: 1043,
    1016: 20, 1017: 600, 1018: 601, 1019: 602, 1020: 603, 1021: 700, 1022: 701, 1027: 604, 1028: 26, 1040: 829,
    1041: 869, 1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184, 1187: 1186, 1231: 1700, 1270: 1266, 1561: 1560,
    1563: 1562, 2949: 2970, 2951: 2950, 3221: 3220, 3643: 3614, 3645: 3615, 3807: 3802, 3905: 3904, 3907: 3906,
    3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926, 4073: 4072, 5039: 5038, 6150: 4451, 6151: 4532, 6152: 4533,
    6153: 4534, 6155: 4535, 6157: 4536, 271: 5069,
}  # fmt: skip
"""Element's OID by the array's (pg_type.dat; fixed for ever)."""

_LIMITED: Final = frozenset({"character", "character varying", "bit", "bit varying"})
_TIMED: Final = frozenset({"time", "timetz", "timestamp", "timestamptz", "interval"})
_BUILT_IN: Final = frozenset({known.name for known in _NEUTRAL.values()} | set(_OPAQUE.values()))
_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*")


def is_built_in(oid: int) -> bool:
    """Return whether `column_type` needs no info of the catalogue for it."""
    return oid in _NEUTRAL or oid in _OPAQUE or oid in _ARRAYS


def column_type(oid: int, modifier: int, infos: Mapping[int, TypeInfo]) -> Type:
    """Return the neutral type of a column.

    `infos` is `Catalogue.types` of the OIDs that are not built in. What is not in it is opaque, and named by its OID.
    """
    if oid in _NEUTRAL:
        return _modified(_NEUTRAL[oid], oid, modifier)
    if oid in _OPAQUE:
        return _named(Kind.OPAQUE, _OPAQUE[oid])
    if oid in _ARRAYS:
        return _array(column_type(_ARRAYS[oid], modifier, infos))
    info = infos.get(oid)
    if info is None:
        return _named(Kind.OPAQUE, f"oid {oid}")
    if info.element:
        return _array(column_type(info.element, modifier, infos))
    name = qualified(info.schema, info.name)
    if info.kind == "d":
        return replace(column_type(info.base, info.base_modifier, infos), name=name)
    if info.kind == "e":
        return Type(Kind.ENUM, labels=info.labels, name=name, system=SYSTEM)
    return _named(Kind.TEXT if info.name == "citext" else Kind.OPAQUE, name)


def qualified(schema: str, name: str) -> str:
    """Return a type's name as SQL takes it."""
    return name if schema == "pg_catalog" else f"{_quoted(schema)}.{_quoted(name)}"


def _quoted(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _array(element: Type) -> Type:
    return Type(Kind.ARRAY, element=element, name=f"{element.name}[]", system=SYSTEM)


def _modified(known: Type, oid: int, modifier: int) -> Type:
    """Apply pg_attribute.atttypmod."""
    if modifier < 0:
        return replace(known, fixed=False) if oid == 1042 else known  # noqa: PLR2004  bpchar without a length
    if known.kind is Kind.DECIMAL:
        packed = modifier - _HEADER
        return replace(known, precision=packed >> 16 & 0xFFFF, scale=(packed & 0x7FF ^ 0x400) - 0x400)
    if known.kind is Kind.TEXT:
        return replace(known, length=modifier - _HEADER)
    if known.kind is Kind.BIT:
        return replace(known, length=modifier)
    if known.kind is Kind.INTERVAL:
        precision = modifier & 0xFFFF
        return known if precision == _ANY_PRECISION else replace(known, precision=precision)
    if known.name in _TIMED:
        return replace(known, precision=modifier)
    return known


def _delimiter(element: Type) -> str:
    """Return what stands between elements: pg_type.typdelim is a comma for all but box."""
    return ";" if element.name == "box" else ","


def _read_boolean(raw: bytes) -> bool:
    return raw == b"t"


def _read_bytes(raw: bytes) -> bytes:
    return bytes.fromhex(raw[2:].decode())


_DECODERS: Final[dict[Kind, Callable[[bytes], Value]]] = {
    Kind.BOOLEAN: _read_boolean,
    Kind.INTEGER: int,
    Kind.FLOAT: float,
    Kind.BYTES: _read_bytes,
    Kind.GEOMETRY: _read_bytes,
    Kind.DATE: read_date,
    Kind.TIMETZ: read_timetz,
    Kind.TIMESTAMP: read_timestamp,
    Kind.TIMESTAMPTZ: read_timestamptz,
    Kind.SET: array_reader(bytes.decode, ","),
}


def decoder(column: Type) -> Callable[[bytes], Value]:
    """Return what turns PostgreSQL's text form, in UTF-8 and under `connection.FORMATS`, into the value."""
    if column.kind is Kind.ARRAY and column.element is not None:
        return array_reader(decoder(column.element), _delimiter(column.element))
    return _DECODERS.get(column.kind, bytes.decode)


def _write_float(value: float) -> str:
    return repr(float(value))


def _write_bytes(value: bytes) -> str:
    return "\\x" + value.hex()


_ENCODERS: Final[dict[Kind, Callable[[Value], str]]] = {
    Kind.BOOLEAN: {False: "f", True: "t"}.__getitem__,
    Kind.INTEGER: str,
    Kind.FLOAT: _write_float,
    Kind.BYTES: _write_bytes,
    Kind.GEOMETRY: _write_bytes,
    Kind.DATE: write_date,
    Kind.TIMESTAMP: write_date,
    Kind.TIMESTAMPTZ: write_date,
    Kind.SET: array_writer(str, ","),
}


def encoder(column: Type) -> Callable[[Value], str]:
    """Return what turns a value that is neither None nor UNCHANGED into PostgreSQL's input text.

    It takes what `declare` of the same type declares.
    """
    if column.kind is Kind.ARRAY and column.element is not None:
        return array_writer(encoder(column.element), _delimiter(column.element))
    return _ENCODERS.get(column.kind, str)


def declare(column: Type, *, own: bool = True) -> str:
    """Return the type for CREATE TABLE.

    A type of PostgreSQL's has its own name, which the target has to know; with `own` False only built-in ones do,
    and a domain is its base, an enum or a type of an extension is text.
    """
    if column.kind is Kind.ARRAY and column.element is not None and column.name.endswith("[]"):
        return f"{declare(column.element, own=own)}[]"
    if column.system == SYSTEM and column.name in _BUILT_IN:
        return _with_limits(column.name, column)
    if column.system == SYSTEM and own and not column.name.startswith("oid "):
        return column.name
    if column.kind is Kind.ARRAY and column.element is not None:
        return f"{declare(column.element, own=own)}[]"
    return _with_limits(_declared(column), column)


def is_built_in_name(column: Type) -> bool:
    """Return whether every PostgreSQL knows the type that `declare` names for it."""
    if column.kind is Kind.ARRAY and column.element is not None and column.name.endswith("[]"):
        return is_built_in_name(column.element)
    return column.system != SYSTEM or column.name in _BUILT_IN or column.name.startswith("oid ")


_INTEGERS: Final = {8: "smallint", 16: "smallint", 24: "integer", 32: "integer", 64: "bigint"}
_UNSIGNED: Final = {8: "smallint", 16: "integer", 24: "integer", 32: "bigint", 64: "numeric(20)"}
_DECLARED: Final[dict[Kind, str]] = {
    Kind.BOOLEAN: "boolean",
    Kind.DECIMAL: "numeric",
    Kind.BYTES: "bytea",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.TIMETZ: "timetz",
    Kind.TIMESTAMP: "timestamp",
    Kind.TIMESTAMPTZ: "timestamptz",
    Kind.INTERVAL: "interval",
    Kind.UUID: "uuid",
    Kind.JSON: "json",
    Kind.SET: "text[]",
    Kind.GEOMETRY: "bytea",
}


def _declared(column: Type) -> str:
    """Return the fitting type of PostgreSQL's for a type from elsewhere."""
    if column.kind is Kind.INTEGER:
        return (_UNSIGNED if column.unsigned else _INTEGERS).get(column.bits, "numeric")
    if column.kind is Kind.FLOAT:
        return "real" if column.bits == 32 else "double precision"  # noqa: PLR2004  IEEE single
    if column.kind is Kind.TEXT and column.length is not None:
        return "character" if column.fixed else "character varying"
    if column.kind is Kind.BIT:
        return "bit" if column.fixed else "bit varying"
    return _DECLARED.get(column.kind, "text")


def _with_limits(name: str, column: Type) -> str:
    if name == "character" and column.length is None:
        return "bpchar"
    if name in _LIMITED and column.length is not None:
        return f"{name}({column.length})"
    if name == "numeric" and column.precision is not None:
        return f"numeric({column.precision},{column.scale or 0})"
    if name in _TIMED and column.precision is not None:
        return f"{name}({column.precision})"
    return name
