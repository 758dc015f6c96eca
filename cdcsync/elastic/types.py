"""Neutral types as fields of a mapping, and which fields take which types.

A document keeps every value to the byte, in the JSON that `cdcsync.lines` writes: integers as numbers, decimals as
strings, dates and times in ISO 8601. The field says how it can be searched. What the field refuses is rejected by its
row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.elastic.config import ElasticSinkConfig

TERM_MAX: Final = 8191
"""Characters of a keyword that are indexed: Lucene takes terms of 32766 bytes (ES reference, ignore_above)."""
FLATTENED_MAX: Final = 8000
"""As much, with room for the key that a flattened field writes before each value."""
DOUBLE_DIGITS: Final = 15
"""Decimals of so many digits stay apart as doubles (IEEE 754)."""
MILLIS: Final = 3
SHORT_TEXT: Final = 36
"""A CHAR(n) up to this length is a code, not something to be searched by words."""

KEYWORD: Final = {"type": "keyword", "ignore_above": TERM_MAX}
_WORDS: Final = {**KEYWORD, "fields": {"text": {"type": "text"}}}
_NUMBERED: Final = {**KEYWORD, "fields": {"number": {"type": "double", "ignore_malformed": True}}}

INSTEAD: Final[Mapping[str, dict[str, Any]]] = {
    "unsigned_long": {"type": "keyword"},
    "geo_shape": {"type": "binary"},
    "flattened": {"type": "object", "enabled": False},
    "date_nanos": {"type": "date"},
}
"""What is made where a server has no such type: one with fewer modules, or OpenSearch."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the configuration says about fields."""

    decimals: str = "exact"
    timestamps: str = "nanos"
    json: str = "flattened"

    @classmethod
    def of(cls, config: ElasticSinkConfig) -> Choices:
        """Return those of a sink."""
        return cls(config.decimals, config.timestamps, config.json_)


def field(kind: Type, choices: Choices, *, in_key: bool = False) -> dict[str, Any]:
    """Return the field for a column of that type."""
    if kind.kind is Kind.ARRAY:
        return field(kind.element, choices) if kind.element is not None else dict(KEYWORD)
    if kind.kind is Kind.INTEGER:
        return {"type": _integer(kind)}
    if kind.kind is Kind.FLOAT:
        return {"type": "double" if kind.bits == 64 else "float"}  # noqa: PLR2004  bits
    if kind.kind is Kind.DECIMAL:
        return _decimal(kind, choices.decimals)
    if kind.kind is Kind.TEXT:
        short = in_key or (kind.fixed and kind.length is not None and kind.length <= SHORT_TEXT)
        return dict(KEYWORD if short else _WORDS)
    if kind.kind in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
        fine = choices.timestamps == "nanos" and (kind.precision is None or kind.precision > MILLIS)
        return {"type": "date_nanos" if fine else "date"}
    if kind.kind is Kind.JSON:
        if choices.json == "stored":
            return {"type": "object", "enabled": False}
        return {"type": "flattened", "ignore_above": FLATTENED_MAX, "depth_limit": 100}
    if kind.kind is Kind.GEOMETRY:
        return {"type": "geo_point" if kind.name.rpartition(".")[2] == "point" else "geo_shape"}
    return dict(_PLAIN.get(kind.kind, KEYWORD))


_PLAIN: Final[Mapping[Kind, dict[str, Any]]] = {
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.BYTES: {"type": "binary"},
    Kind.DATE: {"type": "date"},
    Kind.UUID: {"type": "keyword"},
}


def _integer(kind: Type) -> str:
    bits = kind.bits + 1 if kind.unsigned else kind.bits
    for name, width in (("byte", 8), ("short", 16), ("integer", 32), ("long", 64)):
        if bits <= width:
            return name
    return "unsigned_long"


def _decimal(kind: Type, choice: str) -> dict[str, Any]:
    if choice == "scaled_float" and kind.scale is not None:
        return {"type": "scaled_float", "scaling_factor": 10 ** max(kind.scale, 0)}
    if choice == "keyword":
        return dict(KEYWORD)
    if choice == "double" or (kind.precision is not None and kind.precision <= DOUBLE_DIGITS):
        return {"type": "double"}
    return dict(_NUMBERED)


_TEXTS: Final = {"keyword", "text", "wildcard", "constant_keyword", "match_only_text", "search_as_you_type"}
_WIDTHS: Final = {"byte": 7, "short": 15, "integer": 31, "long": 63, "unsigned_long": 64}
_TAKEN: Final[Mapping[Kind, set[str]]] = {
    Kind.BOOLEAN: {"boolean"} | _TEXTS,
    Kind.DECIMAL: {"double", "float", "half_float", "scaled_float"} | _TEXTS,
    Kind.TEXT: _TEXTS | {"ip", "completion", "version"},
    Kind.BYTES: {"binary"},
    Kind.DATE: {"date", "date_nanos"} | _TEXTS,
    Kind.TIMESTAMP: {"date", "date_nanos"} | _TEXTS,
    Kind.TIMESTAMPTZ: {"date", "date_nanos"} | _TEXTS,
    Kind.JSON: {"flattened", "flat_object", "object", "nested", "geo_point", "geo_shape", "dense_vector"} | _TEXTS,
    Kind.GEOMETRY: {"geo_point", "geo_shape", "binary"},
    Kind.OPAQUE: _TEXTS | {"ip", "version"},
}


def misfit(kind: Type, there: Mapping[str, Any]) -> str:
    """Return why a field cannot take every value of a type; empty when it can, or when only values will tell."""
    if kind.kind is Kind.ARRAY:
        return misfit(kind.element, there) if kind.element is not None else ""
    name = str(there.get("type", "object"))
    if name == "object" and there.get("enabled") is False:
        return ""
    if name == "alias":
        return "is an alias of another field and takes no value"
    if kind.kind is Kind.INTEGER:
        bits = kind.bits if kind.unsigned else kind.bits - 1
        if name in _WIDTHS:
            signed = name == "unsigned_long" and not kind.unsigned
            return f"{name} is too narrow for {described(kind)}" if bits > _WIDTHS[name] or signed else ""
        return "" if name in _TEXTS or (name == "double" and bits < 54) else f"{name} does not take {described(kind)}"  # noqa: PLR2004  its mantissa
    if kind.kind is Kind.FLOAT:
        takes = {"double"} | _TEXTS if kind.bits == 64 else {"double", "float"} | _TEXTS  # noqa: PLR2004  bits
        return "" if name in takes else f"{name} does not take {described(kind)}"
    return "" if name in _TAKEN.get(kind.kind, _TEXTS) else f"{name} does not take {described(kind)}"


def described(kind: Type) -> str:
    """Return a type for a person."""
    if kind.name:
        return kind.name
    width = f" of {kind.bits} bits" if kind.bits else ""
    return f"{'unsigned ' if kind.unsigned else ''}{kind.kind.value}{width}"
