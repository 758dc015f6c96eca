"""Rows as the SQL of MySQL and MariaDB, for `tail`: literals that the column's own type takes exactly."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from cdcsync.redo import Dialect
from cdcsync.types import Kind

if TYPE_CHECKING:
    from cdcsync.change import Value
    from cdcsync.mysql.config import MysqlSource
    from cdcsync.types import Type

SINGLE_BITS: Final = 32
_TEXTS: Final = frozenset({Kind.TEXT, Kind.JSON, Kind.ENUM, Kind.SET, Kind.UUID, Kind.OPAQUE})
_BYTES: Final = frozenset({Kind.BYTES, Kind.GEOMETRY})
_SET_BY_THE_SERVER: Final = frozenset({Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
"""Kinds of columns that may be declared ON UPDATE CURRENT_TIMESTAMP."""


def quote(name: str) -> str:
    """Return an identifier, whatever it holds."""
    return "`" + name.replace("`", "``") + "`"


def literal(kind: Type, value: Value) -> str:
    """Return the value as the server takes it, whatever its sql_mode makes of quotes and backslashes."""
    if kind.kind in {Kind.INTEGER, Kind.DECIMAL}:
        return str(value)
    if kind.kind is Kind.FLOAT:
        return _float(kind, value)
    if kind.kind is Kind.BYTES:
        return f"X'{value.hex()}'"
    if kind.kind is Kind.GEOMETRY:
        return f"X'{_stored_geometry(value).hex()}'"
    if kind.kind is Kind.BIT:
        return f"b'{value}'"
    if kind.kind is Kind.SET:
        return string(",".join(value))
    if kind.kind in _SET_BY_THE_SERVER:
        return string(value.replace("T", " ").removesuffix("Z"))
    return string(value)


def string(text: str) -> str:
    """Return text in quotes, or by its bytes where a client or a mode could read it otherwise."""
    if text.isprintable() and "\\" not in text:
        doubled = text.replace("'", "''")
        return f"'{doubled}'"
    return f"_utf8mb4 X'{text.encode().hex()}'"


def _float(kind: Type, value: float) -> str:
    """Return a double, never a decimal: that of the single precision number where the column has that."""
    exact = struct.unpack("<f", struct.pack("<f", value))[0] if kind.bits == SINGLE_BITS else value
    text = repr(float(exact))
    return text if "e" in text else f"{text}e0"


def _stored_geometry(ewkb: bytes) -> bytes:
    """Return what the servers store: the SRID in four bytes, then WKB without it."""
    flagged = int.from_bytes(ewkb[1:5], "little")
    if not flagged & 0x20000000:
        return bytes(4) + ewkb
    return ewkb[5:9] + ewkb[:1] + (flagged & ~0x20000000).to_bytes(4, "little") + ewkb[9:]


def _same(kind: Type, column: str, value: str | None) -> str:
    """Compare to the byte: collations take letters and spaces for equal."""
    if value is None:
        return f"{column} IS NULL"
    if kind.kind in _TEXTS:
        return f"HEX(CAST({column} AS CHAR)) = HEX({value})"
    if kind.kind in _BYTES:
        return f"HEX({column}) = HEX({value})"
    return f"{column} = {value}"


def _single(_table: str, condition: str) -> str:
    return f"{condition} LIMIT 1"


def _exactly(config: MysqlSource) -> MysqlSource:
    return config.model_copy(update={"zero_dates": type(config.zero_dates).TEXT})


DIALECT: Final = Dialect(
    quote=quote,
    literal=literal,
    same=_same,
    single=_single,
    remedy="SET GLOBAL binlog_row_image = FULL",
    head=(
        "SET NAMES utf8mb4;",
        "SET time_zone = '+00:00';",
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';",
        "-- Triggers act on what follows, and foreign keys: what a foreign key cascaded to is in no binlog.",
    ),
    empty="INSERT INTO {table} () VALUES ()",
    set_by_server=lambda kind: kind.kind in _SET_BY_THE_SERVER,
    exactly=_exactly,
)
