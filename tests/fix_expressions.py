"""A table with a column of each kind, and what an expression over a row of it comes to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cdcsync.change import Column, Row, Table
from cdcsync.mapping.expressions import Program, Scope, compiled, parsed
from cdcsync.mapping.expressions.casts import text_of_float
from cdcsync.mapping.expressions.program import value_function
from cdcsync.types import Kind, Type

TEXT = Type(Kind.TEXT)
ORDERS = Table(
    "shop",
    "orders",
    (
        Column("id", Type(Kind.INTEGER, bits=64), nullable=False),
        Column("price", Type(Kind.DECIMAL, precision=10, scale=2)),
        Column("quantity", Type(Kind.INTEGER, bits=32)),
        Column("name", TEXT),
        Column("at", Type(Kind.TIMESTAMPTZ)),
        Column("day", Type(Kind.DATE)),
        Column("doc", Type(Kind.JSON)),
        Column("paid", Type(Kind.BOOLEAN)),
        Column("tags", Type(Kind.ARRAY, element=TEXT)),
        Column("weight", Type(Kind.FLOAT, bits=64)),
        Column("status", Type(Kind.ENUM, labels=("new", "done"))),
    ),
    ("id",),
)
ROW: Row = (
    7, "2.50", 3, "Ann Lee", "2026-11-23T10:30:00.5Z", "2026-11-23", '{"a": {"b": 1.50}, "c": [1, "x"]}', True,
    ("x", "y"), 0.5, "new",
)  # fmt: skip
MOMENT = SimpleNamespace(operation="insert", commit_time="2026-11-24T00:00:00Z", position="0/1", transaction="77")


def program(text: str, scope: Scope | None = None) -> Program:
    """Return the compiled expression."""
    return compiled(parsed(text), scope or Scope(ORDERS))


def evaluated(text: str, row: Row = ROW, before: Row | None = None, scope: Scope | None = None) -> Any:
    """Return what the expression comes to."""
    return value_function(program(text, scope), "shop.orders")(row, before, MOMENT)


def written(value: Any) -> str:
    """Return a value as the reference shows it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return text_of_float(value)
    if isinstance(value, bytes):
        return value.hex()
    return "{" + ",".join(map(written, value)) + "}" if isinstance(value, tuple) else str(value)
