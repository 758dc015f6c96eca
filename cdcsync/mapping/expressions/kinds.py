"""Types inside an expression: names, families, what turns into what by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Sequence

BOOLEAN: Final = Type(Kind.BOOLEAN)
INTEGER: Final = Type(Kind.INTEGER, bits=64)
DECIMAL: Final = Type(Kind.DECIMAL)
FLOAT: Final = Type(Kind.FLOAT, bits=64)
TEXT: Final = Type(Kind.TEXT)
BYTES: Final = Type(Kind.BYTES)
DATE: Final = Type(Kind.DATE)
TIME: Final = Type(Kind.TIME, precision=6)
TIMESTAMP: Final = Type(Kind.TIMESTAMP, precision=6)
TIMESTAMPTZ: Final = Type(Kind.TIMESTAMPTZ, precision=6)
INTERVAL: Final = Type(Kind.INTERVAL, precision=6)
UUID: Final = Type(Kind.UUID)
JSON: Final = Type(Kind.JSON)
NULL: Final = Type(Kind.OPAQUE, name="null")
"""The type of a bare NULL: it fits everywhere."""
SECRET: Final = Type(Kind.OPAQUE, name="secret")

BY_NAME: Final = {
    "boolean": BOOLEAN, "bool": BOOLEAN,
    "tinyint": Type(Kind.INTEGER, bits=8), "smallint": Type(Kind.INTEGER, bits=16),
    "int": Type(Kind.INTEGER, bits=32), "integer": Type(Kind.INTEGER, bits=32), "bigint": INTEGER,
    "decimal": DECIMAL, "numeric": DECIMAL,
    "float": Type(Kind.FLOAT, bits=32), "real": Type(Kind.FLOAT, bits=32), "double": FLOAT,
    "text": TEXT, "varchar": TEXT, "char": Type(Kind.TEXT, fixed=True), "bytea": BYTES, "varbinary": BYTES,
    "date": DATE, "time": TIME, "timestamp": TIMESTAMP, "timestampntz": TIMESTAMP, "timestamptz": TIMESTAMPTZ,
    "interval": INTERVAL, "uuid": UUID, "json": JSON, "jsonb": JSON,
}  # fmt: skip
"""What a cast names, as sqlglot calls it in lower case."""

IMPLICIT: Final = {
    (Kind.INTEGER, Kind.DECIMAL): 1,
    (Kind.INTEGER, Kind.FLOAT): 2,
    (Kind.DECIMAL, Kind.FLOAT): 1,
    (Kind.ENUM, Kind.TEXT): 1,
    (Kind.DATE, Kind.TIMESTAMP): 1,
    (Kind.DATE, Kind.TIMESTAMPTZ): 2,
    (Kind.TIMESTAMP, Kind.TIMESTAMPTZ): 1,
    (Kind.SET, Kind.ARRAY): 1,
}
"""What turns into what without a cast, and how far that is."""

LITERAL_KINDS: Final = frozenset(
    {Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.INTERVAL, Kind.UUID, Kind.JSON, Kind.ENUM}
)
"""What a quoted literal becomes where it is wanted, as in PostgreSQL."""


def array_of(element: Type) -> Type:
    """Return the array type."""
    return Type(Kind.ARRAY, element=element)


def told(kind: Type) -> str:
    """Return a type's name for messages."""
    if kind == NULL:
        return "null"
    if kind.kind is Kind.ARRAY and kind.element is not None:
        return f"{told(kind.element)}[]"
    if kind.kind is Kind.DECIMAL and kind.precision is not None:
        return f"decimal({kind.precision},{kind.scale or 0})"
    return kind.name if kind.kind is Kind.OPAQUE and kind.name else kind.kind.value


def distance(given: Type, wanted: Type, *, literal: bool = False) -> int | None:
    """Return how far a type is from the one wanted; None when it does not turn into it by itself."""
    if given == NULL:
        return 0
    if given.kind is wanted.kind:
        if given.kind is Kind.ARRAY and given.element is not None and wanted.element is not None:
            return distance(given.element, wanted.element) if given.element.kind is not wanted.element.kind else 0
        return 0 if given.kind is not Kind.OPAQUE or given.name == wanted.name else None
    if literal and given.kind is Kind.TEXT and wanted.kind in LITERAL_KINDS:
        return 1
    return IMPLICIT.get((given.kind, wanted.kind))


def joined(types: Sequence[Type], literals: Sequence[bool]) -> Type | None:
    """Return the one type that several values have together, None when there is none."""
    known = [kind for kind, literal in zip(types, literals, strict=True) if kind != NULL and not literal]
    if not known:
        known = [kind for kind in types if kind != NULL]
    if not known:
        return NULL
    for candidate in known:
        far = [distance(kind, candidate, literal=lit) for kind, lit in zip(types, literals, strict=True)]
        if None not in far:
            return _widened(candidate, [kind for kind in types if kind.kind is candidate.kind])
    return None


def _widened(kind: Type, alike: Sequence[Type]) -> Type:
    """Return the type that holds all values of these types of one kind."""
    if all(other == kind for other in alike):
        return TEXT if kind.kind is Kind.ENUM and not alike else kind
    if kind.kind is Kind.INTEGER:
        return INTEGER
    if kind.kind is Kind.FLOAT:
        return FLOAT
    if kind.kind is Kind.DECIMAL:
        return DECIMAL
    if kind.kind in (Kind.TEXT, Kind.ENUM):
        return TEXT
    return replace(kind, length=None, precision=6 if kind.precision is not None else None)
