"""What a subject's schema becomes when its table changes: compared with the latest version there, by the entry's mode.

Source: Avro 1.11's "Schema Resolution" (promotions), Confluent's "Schema Evolution and Compatibility".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.evolution import Alteration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.evolution import Follows

_WIDER: Final[Mapping[str, frozenset[str]]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
}
_ADDED: Final = "__"
"""Begins the fields of a flat row that are no columns."""

Schema = dict[str, Any]


def row_of(schema: Schema) -> Schema:
    """Return the record of a row: the schema itself, or that of an envelope's `before`."""
    for field in schema["fields"]:
        if field["name"] == "before" and isinstance(field["type"], list):
            return next(each for each in field["type"] if isinstance(each, dict))
    return schema


def followed(subject: str, schema: Schema, latest: Schema, follows: Follows) -> list[Schema]:
    """Return the fields of a row under a subject that has a latest version. Raises Fatal where rows cannot fit.

    A field that is not there yet can be null, and one that can be null there goes on so: then the registry takes it.
    """
    mine = {each["name"]: each for each in row_of(schema)["fields"]}
    theirs = {each["name"]: each for each in row_of(latest)["fields"]}
    fields: list[Schema] = []
    for name, field in mine.items():
        there = theirs.get(name)
        if name.startswith(_ADDED):
            fields.append(field)
        elif there is not None:
            fields.append(_met(field, there, follows))
        elif follows.takes(Alteration.ADD):
            fields.append(_optional(field, field["type"]))
    for name, there in theirs.items():
        if name in mine or name.startswith(_ADDED) or follows.takes(Alteration.DROP):
            continue
        if not _is_optional(there["type"]):
            msg = f"subject {subject} goes on with {name}, which its table has no more and which cannot be null there"
            hint = "let the topic follow: `schema_changes: evolve`, or `include: [drop]`"
            raise Fatal(msg, hint=hint, status=ExitStatus.DATA)
        fields.append(there)
    order = {name: at for at, name in enumerate(theirs)}
    return sorted(fields, key=lambda field: order.get(field["name"], len(order)))


def _met(mine: Schema, theirs: Schema, follows: Follows) -> Schema:
    """Return a column's field where the subject has one of its name."""
    kept, kind = _bare(theirs["type"]), _bare(mine["type"])
    if _name(kept) in _WIDER.get(_name(kind), ()) or not follows.takes(Alteration.TYPE):
        kind = kept
    can_be_null = _is_optional(theirs["type"]) or (_is_optional(mine["type"]) and follows.takes(Alteration.NULLABLE))
    return _optional(mine, kind) if can_be_null else {"name": mine["name"], "type": kind}


def _optional(field: Schema, kind: Any) -> Schema:
    return {"name": field["name"], "type": ["null", _bare(kind)], "default": None}


def _is_optional(kind: Any) -> bool:
    return isinstance(kind, list) and "null" in kind


def _bare(kind: Any) -> Any:
    return next(each for each in kind if each != "null") if _is_optional(kind) else kind


def _name(kind: Any) -> str:
    """Return a type's plain name; one with a logical type is like no other."""
    if isinstance(kind, dict):
        return str(kind["type"]) if not kind.keys() - {"type", "connect.type"} else ""
    return str(kind)
