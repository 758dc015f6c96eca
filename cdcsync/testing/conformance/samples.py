"""Tables, rows and batches that the suites write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import UNCHANGED, Batch, Change, Column, Operation, Table, Transaction, pack_version
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import BoundedArray, Kind, Type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Item, Row

INTEGER: Final = Type(Kind.INTEGER, bits=64)
TEXT: Final = Type(Kind.TEXT)

ORDERS: Final = Table(
    "", "orders", (Column("id", INTEGER, nullable=False), Column("state", TEXT), Column("note", TEXT)), ("id",)
)
HISTORY: Final = Table("", "history", (Column("at", INTEGER), Column("what", TEXT)))
"""Without a key."""
ODD: Final = Table(
    "", "odd\"; DROP TABLE x; --'", (Column('a"b', INTEGER, nullable=False), Column("'; DROP", TEXT)), ('a"b',)
)

KINDS: Final[tuple[tuple[Type, tuple[Any, ...]], ...]] = (
    (Type(Kind.BOOLEAN), (True, False)),
    (Type(Kind.INTEGER, bits=64), (0, -(1 << 63), (1 << 63) - 1)),
    (Type(Kind.INTEGER, bits=64, unsigned=True), (0, (1 << 64) - 1)),
    (Type(Kind.FLOAT, bits=64), (0.1, -0.0, float("nan"), float("inf"), float("-inf"), 5e-324)),
    (Type(Kind.FLOAT, bits=32), (0.1, -0.0, float("nan"), 3.4028235e38, 1e-45)),
    (Type(Kind.DECIMAL), ("1.50", "-0.00000000000000000000000000000001", "9" * 60 + ".0", "NaN", "Infinity")),
    (TEXT, ("", "a'b\"c\\", "naïve \U0001f600", "NULL", "007")),
    (Type(Kind.BYTES), (b"", b"\x00\xff'")),
    (Type(Kind.DATE), ("2026-11-23", "-0043-03-15", "+12345-01-01", "infinity")),
    (Type(Kind.TIME), ("23:59:59.5", "00:00:00")),
    (Type(Kind.TIMETZ), ("23:59:59.5+02:00",)),
    (Type(Kind.TIMESTAMP), ("2026-11-23T10:00:00.5", "-infinity")),
    (Type(Kind.TIMESTAMPTZ), ("2026-11-23T10:00:00.000001Z", "infinity")),
    (Type(Kind.INTERVAL), ("P1Y2M3DT4H5M6.7S",)),
    (Type(Kind.UUID), ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",)),
    (Type(Kind.JSON), ('{"b": 1,  "a": [1.0, null]}', '"x"', "1e400")),
    (Type(Kind.BIT, length=3, fixed=True), ("101",)),
    (Type(Kind.ENUM, labels=("sad", "ok")), ("ok",)),
    (Type(Kind.SET, labels=("a", "b")), ((), ("a",), ("a", "b"))),
    (Type(Kind.GEOMETRY), (bytes.fromhex("0101000020e6100000000000000000f03f0000000000000040"),)),
    (Type(Kind.ARRAY, element=INTEGER), ((1, None, 3), ((1, 2), (3, 4)), (), BoundedArray.of((1, 2), (0,)))),
    (Type(Kind.ARRAY, element=TEXT), (BoundedArray.of((("a", "b"), (None, '"')), (-1, 0)),)),
    (Type(Kind.ARRAY, element=Type(Kind.BYTES)), ((b"\x00", None),)),
    (Type(Kind.ARRAY, element=TEXT), (("a,b", None, '"', "NULL"),)),
    (Type(Kind.OPAQUE, name="inet"), ("10.0.0.0/8",)),
)
"""Every kind, with values at its edges."""


def insert(table: Table, *row: Any) -> Change:
    """Return an insert."""
    return Change(table, Operation.INSERT, None, row)


def read(table: Table, *row: Any) -> Change:
    """Return a row of a first copy."""
    return Change(table, Operation.READ, None, row)


def update(table: Table, key: Any, *row: Any) -> Change:
    """Return an update whose row before is known by its key alone."""
    return Change(table, Operation.UPDATE, _by_key(table, key), row)


def delete(table: Table, key: Any) -> Change:
    """Return a delete whose row before is known by its key alone."""
    return Change(table, Operation.DELETE, _by_key(table, key), None)


def truncate(table: Table) -> Change:
    """Return a truncate."""
    return Change(table, Operation.TRUNCATE, None, None)


def _by_key(table: Table, key: Any) -> Row:
    return tuple(key if index in table.key_at else UNCHANGED for index in range(len(table.columns)))


def position(index: int, part: int = 0, *, epoch: int = 1) -> MemoryPosition:
    """Return a position; it orders by epoch, index and part."""
    return MemoryPosition(epoch, index, part)


def transaction(index: int, items: Sequence[Item], part: int = 0, *, last: bool = True, epoch: int = 1) -> Transaction:
    """Return transaction `index`, or one part of it."""
    after = position(index + 1, epoch=epoch) if last else position(index, part + 1, epoch=epoch)
    return Transaction(
        str(index), index, after, pack_version(epoch, index + 1), list(items), range(len(items)), part, last
    )


def batch(index: int, *items: Item, part: int = 0, last: bool = True, epoch: int = 1) -> Batch:
    """Return a batch of that one transaction."""
    only = transaction(index, items, part, last=last, epoch=epoch)
    return Batch((only,), only.position, len(items), len(items))
