"""Geometry as a document has it: well-known text, from EWKB."""

from __future__ import annotations

import struct
from typing import Final

WORLD: Final = 4326
"""The SRID of longitude and latitude, which is what geo_point and geo_shape are in."""
_Z: Final = 0x80000000
_M: Final = 0x40000000
_SRID: Final = 0x20000000
_NAMES: Final = (
    "",
    "POINT",
    "LINESTRING",
    "POLYGON",
    "MULTIPOINT",
    "MULTILINESTRING",
    "MULTIPOLYGON",
    "GEOMETRYCOLLECTION",
)
_COLLECTION: Final = 7


def to_text(value: bytes) -> str:
    """Return EWKB as text. Raises ValueError for what a map of the world cannot show."""
    try:
        text, end = _one(value, 0)
    except (struct.error, IndexError) as error:
        msg = "a geometry that cannot be read"
        raise ValueError(msg) from error
    if end != len(value):
        msg = "a geometry that cannot be read"
        raise ValueError(msg)
    return text


def _one(value: bytes, at: int, *, named: bool = True) -> tuple[str, int]:
    order = "<" if value[at] else ">"
    (word,) = struct.unpack_from(f"{order}I", value, at + 1)
    at += 5
    if word & _SRID:
        (srid,) = struct.unpack_from(f"{order}I", value, at)
        at += 4
        if srid not in {0, WORLD}:
            msg = f"a geometry of SRID {srid}: geo fields take {WORLD}, longitude and latitude"
            raise ValueError(msg)
    kind = word & 0xFF
    if word & _M or not 1 <= kind <= _COLLECTION:
        msg = "a geometry of a kind that geo fields do not have"
        raise ValueError(msg)
    body, at = _body(value, at, order, kind, 3 if word & _Z else 2)
    return (f"{_NAMES[kind]} {body}" if named else body), at


def _body(value: bytes, at: int, order: str, kind: int, dimensions: int) -> tuple[str, int]:
    if kind == 1:
        text, at = _points(value, at, order, 1, dimensions)
        return f"({text})", at
    (count,) = struct.unpack_from(f"{order}I", value, at)
    at += 4
    if not count:
        return "EMPTY", at
    if kind == 2:  # noqa: PLR2004  LINESTRING
        text, at = _points(value, at, order, count, dimensions)
        return f"({text})", at
    parts = []
    for _ in range(count):
        if kind == 3:  # noqa: PLR2004  POLYGON
            (length,) = struct.unpack_from(f"{order}I", value, at)
            text, at = _points(value, at + 4, order, length, dimensions)
            parts.append(f"({text})")
        else:
            text, at = _one(value, at, named=kind == _COLLECTION)
            parts.append(text)
    return f"({', '.join(parts)})", at


def _points(value: bytes, at: int, order: str, count: int, dimensions: int) -> tuple[str, int]:
    numbers = struct.unpack_from(f"{order}{count * dimensions}d", value, at)
    points = [" ".join(map(repr, numbers[each : each + dimensions])) for each in range(0, len(numbers), dimensions)]
    return ", ".join(points), at + 8 * len(numbers)
