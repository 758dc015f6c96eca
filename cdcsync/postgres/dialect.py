"""Rows as PostgreSQL's SQL, for `tail`: literals that the column's own type reads back exactly."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cdcsync.postgres.types import declare, encoder
from cdcsync.redo import Dialect
from cdcsync.sql import quote
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Value
    from cdcsync.types import Type


@lru_cache(maxsize=1000)
def _encoder(kind: Type) -> Callable[[Value], str]:
    return encoder(kind)


def literal(kind: Type, value: Value) -> str:
    """Return the value in quotes: the server reads it by the input function of the column that it meets."""
    text = _encoder(kind)(value)
    return text if kind.kind is Kind.INTEGER else string(text)


def string(text: str) -> str:
    """Return a string that means the same whatever standard_conforming_strings is."""
    doubled = text.replace("'", "''")
    if "\\" not in doubled:
        return f"'{doubled}'"
    escaped = doubled.replace("\\", "\\\\")
    return f"E'{escaped}'"


def _same(kind: Type, column: str, value: str | None) -> str:
    """Compare as text: some types know no equality, and for some it is not identity (1.0 and 1.00, 0 and -0)."""
    return f"{column} IS NULL" if value is None else f"{column}::text = {value}::{declare(kind)}::text"


def _single(table: str, condition: str) -> str:
    return f"(tableoid, ctid) = (SELECT tableoid, ctid FROM {table} WHERE {condition} LIMIT 1)"  # noqa: S608  quoted


DIALECT: Final = Dialect(
    quote=quote,
    literal=literal,
    same=_same,
    single=_single,
    remedy="ALTER TABLE {table} REPLICA IDENTITY FULL",
    head=(
        "SET client_encoding = 'UTF8';",
        "SET standard_conforming_strings = on;",
        "SET lc_monetary = 'C';",
        "SET xmloption = content;",
        "-- Triggers and foreign keys act on what follows. Where they must not, a superuser takes the next line in:",
        "-- SET session_replication_role = replica;",
    ),
    insert="INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE VALUES ({values})",
)
