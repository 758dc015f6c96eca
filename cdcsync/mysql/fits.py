"""Whether a column of the target holds every value of a type as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.mysql.target import TargetColumn

_BITS: Final = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_DIGITS: Final = {8: 3, 16: 5, 24: 8, 32: 10, 64: 20}
_BOUNDED: Final = {Kind.UUID: 36, Kind.TIMETZ: 24, Kind.INTERVAL: 60}
"""Characters that the text of a kind has at most."""
_SIZES: Final = {
    f"{size}{kind}": bytes_max
    for kind in ("text", "blob")
    for size, bytes_max in (("tiny", 255), ("", 65_535), ("medium", (1 << 24) - 1), ("long", (1 << 32) - 1))
}
"""Bytes that these types take."""
_GEOMETRIES: Final = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"}
    | {"geometrycollection", "geomcollection"}
)


def fits(wanted: Type, there: TargetColumn, *, is_key: bool = False) -> str | None:
    """Return why a column cannot hold every value of the type; None when it can, or when only values will tell."""
    if is_key and wanted.kind is Kind.BYTES and there.data_type == "varbinary":
        return None
    if wanted.kind in _CHECKS:
        reason = _CHECKS[wanted.kind](wanted, there)
        if reason is None:
            return None
    else:
        reason = f"{there.bare} cannot hold {described(wanted)}"
    if there.is_text and wanted.kind not in {Kind.BYTES, Kind.GEOMETRY}:
        return _as_text(wanted, there, is_key=is_key)
    return reason


def described(kind: Type) -> str:
    """Return a type in words."""
    if kind.kind is Kind.DECIMAL:
        return (
            f"decimal({kind.precision},{kind.scale or 0})" if kind.precision is not None else "decimal of any precision"
        )
    limit = kind.length if kind.length is not None else kind.precision
    sign = "unsigned " if kind.unsigned else ""
    return f"{sign}{kind.kind}{kind.bits or ''}" + (f"({limit})" if limit is not None else "")


def _as_text(wanted: Type, there: TargetColumn, *, is_key: bool) -> str | None:
    """Any text column keeps any text, but for what it cuts: length, and the spaces at the end of a CHAR."""
    narrower = f"{there.declared} is narrower than {described(wanted)}"
    if there.data_type == "char" and wanted.kind in {Kind.TEXT, Kind.OPAQUE} and not wanted.fixed:
        return f"{there.declared} drops spaces at the end"
    if there.data_type in {"char", "varchar"}:
        return None if is_key or _characters(wanted) <= (there.length or 0) else narrower
    limit = _SIZES[there.data_type]
    if is_key or there.data_type == "longtext":
        return None
    own = _SIZES.get(wanted.name) if wanted.system == "mysql" else None
    return None if (own if own is not None else _characters(wanted) * 4) <= limit + 3 else narrower


def _characters(wanted: Type) -> float:
    """Return how long the text may be."""
    if wanted.kind in {Kind.TEXT, Kind.BIT} and wanted.length is not None:
        return wanted.length
    if wanted.kind is Kind.ENUM and wanted.labels:
        return max(map(len, wanted.labels))
    if wanted.kind is Kind.DECIMAL and wanted.precision is not None:
        return wanted.precision + 3
    if wanted.kind in {Kind.INTEGER, Kind.FLOAT, Kind.BOOLEAN, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
        return 40
    return _BOUNDED.get(wanted.kind, float("inf"))


def needs_check(wanted: Type, there: TargetColumn) -> int | None:
    """Return the length that values have to be compared with: the column is a key's, and shorter than the source's."""
    if there.data_type not in {"char", "varchar", "varbinary"} or there.length is None:
        return None
    longest = _characters(wanted) if wanted.kind is not Kind.BYTES or wanted.length is None else wanted.length
    return there.length if longest > there.length else None


def _integer(wanted: Type, there: TargetColumn) -> str | None:
    narrower = f"{there.declared} is narrower than {described(wanted)}"
    bits = _BITS.get(there.data_type)
    if there.data_type == "year":
        return None if wanted.name.lower().startswith("year") else narrower
    if bits is not None:
        fits_in = wanted.bits < bits or (wanted.bits == bits and wanted.unsigned == there.unsigned)
        return None if fits_in and (wanted.unsigned or not there.unsigned) else narrower
    if there.data_type == "decimal":
        digits = (there.precision or 0) - (there.scale or 0)
        return None if digits >= _DIGITS.get(wanted.bits, 20) else narrower
    return f"{there.bare} cannot hold {described(wanted)}"


def _decimal(wanted: Type, there: TargetColumn) -> str | None:
    if there.data_type != "decimal":
        return f"{there.bare} cannot hold {described(wanted)}"
    precision, scale = there.precision or 0, there.scale or 0
    wanted_scale = wanted.scale or 0
    if wanted.precision is None or wanted_scale > scale or wanted.precision - wanted_scale > precision - scale:
        return f"{there.declared} is narrower than {described(wanted)}"
    return None


def _float(wanted: Type, there: TargetColumn) -> str | None:
    if there.data_type == "double" or (there.data_type == "float" and wanted.bits == 32):  # noqa: PLR2004  IEEE single
        return None if "(" not in there.declared else f"{there.declared} rounds {described(wanted)}"
    return f"{there.bare} cannot hold {described(wanted)} exactly"


def _bytes(wanted: Type, there: TargetColumn) -> str | None:
    narrower = f"{there.declared} is narrower than {described(wanted)}"
    own = wanted.system == "mysql" and wanted.name.lower().startswith(there.data_type)
    if there.data_type == "binary":
        return None if own and wanted.length == there.length else f"{there.declared} pads with zero bytes"
    if there.data_type == "varbinary":
        return None if wanted.length is not None and wanted.length <= (there.length or 0) else narrower
    limit = _SIZES.get(there.data_type)
    if limit is None:
        return f"{there.bare} cannot hold {described(wanted)}"
    if there.data_type == "longblob":
        return None
    size = _SIZES.get(wanted.name) if wanted.system == "mysql" else None
    if size is None:
        size = wanted.length
    return None if size is not None and size <= limit else narrower


def _timed(*names: str) -> Callable[[Type, TargetColumn], str | None]:
    def check(wanted: Type, there: TargetColumn) -> str | None:
        if there.data_type not in names:
            return f"{there.bare} cannot hold {described(wanted)}"
        digits = 6 if wanted.precision is None else wanted.precision
        return None if digits <= (there.fraction or 0) else f"{there.declared} is narrower than {described(wanted)}"

    return check


def _one_of(*names: str) -> Callable[[Type, TargetColumn], str | None]:
    return lambda wanted, there: None if there.data_type in names else f"{there.bare} cannot hold {described(wanted)}"


def _bit(wanted: Type, there: TargetColumn) -> str | None:
    if there.data_type == "bit" and wanted.fixed and wanted.length == there.precision:
        return None
    return f"{there.bare} cannot hold {described(wanted)}"


def _labelled(wanted: Type, there: TargetColumn) -> str | None:
    """A label that the column has not got is found when it comes."""
    return None if there.data_type == wanted.kind.value else f"{there.bare} cannot hold {described(wanted)}"


def _opaque(wanted: Type, there: TargetColumn) -> str | None:
    own = wanted.system == "mysql" and wanted.name.lower() == there.data_type
    return None if own else f"{there.bare} cannot hold {wanted.name or described(wanted)}"


_CHECKS: Final[dict[Kind, Callable[[Type, TargetColumn], str | None]]] = {
    Kind.BOOLEAN: _one_of("tinyint", "smallint", "mediumint", "int", "bigint"),
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.DECIMAL: _decimal,
    Kind.BYTES: _bytes,
    Kind.GEOMETRY: _one_of(*_GEOMETRIES),
    Kind.DATE: _one_of("date"),
    Kind.TIME: _timed("time"),
    Kind.TIMESTAMP: _timed("datetime"),
    Kind.TIMESTAMPTZ: _timed("datetime", "timestamp"),
    Kind.UUID: _one_of("uuid"),
    Kind.JSON: _one_of("json"),
    Kind.BIT: _bit,
    Kind.ENUM: _labelled,
    Kind.SET: _labelled,
    Kind.OPAQUE: _opaque,
}
