"""The mapping alone: a published set of expressions, the same written by hand in Python, and rows that pass."""

from __future__ import annotations

import functools
import gc
import hmac
import re
import statistics
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import orjson

from benchmarks.figures import Bench, Figure, Result
from cdcsync.change import Batch, Change, Column, Operation, Table, Transaction
from cdcsync.mapping import Mapping, Rule, TableMapping
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Item, Row

TABLE: Final = Table(
    "shop",
    "orders",
    (
        Column("id", Type(Kind.INTEGER, bits=64), nullable=False),
        Column("customer", Type(Kind.TEXT)),
        Column("email", Type(Kind.TEXT)),
        Column("quantity", Type(Kind.INTEGER, bits=32)),
        Column("price", Type(Kind.DECIMAL, precision=10, scale=2)),
        Column("status", Type(Kind.TEXT)),
        Column("created_at", Type(Kind.TIMESTAMPTZ, precision=6)),
        Column("address", Type(Kind.JSON)),
    ),
    ("id",),
)
TEN: Final = {
    "total": "price * quantity",
    "size": "case when quantity > 10 then 'large' when quantity > 2 then 'middle' else 'small' end",
    "customer": "coalesce(customer, 'unknown')",
    "name": "upper(customer)",
    "label": "customer || ' #' || id",
    "open": "status in ('new', 'paid') and quantity between 1 and 100",
    "initial": "left(customer, 1)",
    "day": "date_trunc('day', created_at)",
    "year": "extract(year from created_at)",
    "city": "address ->> 'city'",
}
"""The ten expressions without hashing."""
HASHED: Final = {"email": "hmac_sha256(lower(email), secret('pii'))", "shop": "email ~ '@shop[.]example$'"}
"""One HMAC and one regular expression; these beside the first eight of the ten."""
LARGE: Final = 10
MIDDLE: Final = 2
OPEN_MAX: Final = 100
SECRET: Final = b"a secret of the benchmark"
SHOP: Final = re.compile(r"@shop[.]example$")


def rows(count: int) -> list[Row]:
    """Return rows as a source gives them."""
    return [
        (
            number, f"Customer {number % 977}", f"User{number}@shop.example", number % 17, f"{number % 1000}.50",
            "new" if number % 3 else "sent", f"2026-11-{number % 28 + 1:02d}T10:30:00.5Z",
            f'{{"city":"City {number % 50}","zip":"{number % 99999:05d}"}}',
        )
        for number in range(count)
    ]  # fmt: skip


def batch(given: list[Row]) -> Batch:
    """Return inserts of these rows in transactions of a thousand."""
    at = MemoryPosition(0, 1)
    items: list[Item] = [Change(TABLE, Operation.INSERT, None, row) for row in given]
    transactions = [
        Transaction(str(start), 0, at, 1, items[start : start + 1000], range(1000))
        for start in range(0, len(items), 1000)
    ]
    return Batch(transactions, at, len(items), 0)


def mapping(**entry: Any) -> Mapping:
    """Return the mapping of one entry."""
    return Mapping([Rule(TableMapping.model_validate({"from": "shop.orders", **entry}))], {"pii": SECRET})


def entries() -> dict[str, Mapping]:
    """Return every mapping that is measured, by name."""
    eight = {name: text for name, text in list(TEN.items())[:8] if name != "email"}
    return {
        "identity": mapping(),
        "ten expressions": mapping(columns=TEN),
        "with an HMAC and a regular expression": mapping(columns={**eight, **HASHED}),
        "a filter": mapping(where="status <> 'sent' and quantity > 2"),
    }


def by_hand(row: Row) -> Row:
    """Return the row of the ten expressions, as one would write it in Python: nulls looked at, decimals exact."""
    number, customer, email, quantity, price, status, created_at, address = row
    total = None if price is None or quantity is None else str(Decimal(price) * quantity)
    size = "small"
    if quantity is not None:
        size = "large" if quantity > LARGE else "middle" if quantity > MIDDLE else "small"
    is_open = None if status is None or quantity is None else status in ("new", "paid") and 1 <= quantity <= OPEN_MAX
    city = None if address is None else orjson.loads(address).get("city")
    return (
        number, customer if customer is not None else "unknown", email, quantity, price, status, created_at, address,
        total, size, None if customer is None else customer.upper(),
        None if customer is None else f"{customer} #{number}", is_open, None if customer is None else customer[:1],
        None if created_at is None else created_at[:10] + "T00:00:00Z",
        None if created_at is None else int(created_at[:4]), city,
    )  # fmt: skip


def by_hand_hashed(row: Row) -> Row:
    """Return the row with a hash and a match in the place of the last two."""
    made = by_hand((*row[:7], None))
    email = row[2]
    hashed = hmac.digest(SECRET, email.lower().encode(), "sha256").hex()
    return (*made[:2], hashed, *made[3:7], row[7], *made[8:-2], SHOP.search(email) is not None)


def _applied(function: Callable[[Row], Row], given: Batch) -> list[Change]:
    """Return the changes with rows made by a function."""
    return [
        Change(item.table, item.operation, None, function(item.after))
        for transaction in given.transactions
        for item in transaction.items
        if isinstance(item, Change) and item.after is not None
    ]


def measured(given: Batch, rounds: int) -> dict[str, float]:
    """Return microseconds a row of each mapping, and of the hand-written functions; medians, by turns."""
    runs: dict[str, Callable[[], object]] = {
        name: functools.partial(entry.apply, given) for name, entry in entries().items()
    }
    runs["ten expressions by hand"] = functools.partial(_applied, by_hand, given)
    runs["with an HMAC and a regular expression by hand"] = functools.partial(_applied, by_hand_hashed, given)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, run in runs.items():
            run_once = time.thread_time()
            run()
            taken[name].append((time.thread_time() - run_once) / given.changes * 1e6)
            gc.collect()
    gc.enable()
    return {name: statistics.median(each) for name, each in taken.items()}


def proved(given: Batch) -> str:
    """Raise unless mapping and hand-written function make equal rows."""
    for name, function in (("ten expressions", by_hand), ("with an HMAC and a regular expression", by_hand_hashed)):
        made = entries()[name].apply(given).transactions[0].items
        got = [item.after for item in made if isinstance(item, Change)]
        want = [function(item.after) for item in given.transactions[0].items if isinstance(item, Change) and item.after]
        if got != want or not want:
            msg = f"{name}: {got[:1]} is not {want[:1]}"
            raise RuntimeError(msg)
    return "a thousand rows of each against the hand-written function"


def mapping_expressions(rows_count: int, rounds: int) -> Result:
    """The mapping alone on one core: ten expressions, a hash and a pattern, the same by hand, identity."""
    given = batch(rows(rows_count))
    proof = proved(given)
    took_us = measured(given, max(rounds, 5))
    first = took_us["ten expressions by hand"]
    figures = [
        Figure(
            contender=name, rate=1e6 / us, cpu_s=us * rows_count / 1e6, wall_s=us * rows_count / 1e6, ratio=first / us
        )
        for name, us in sorted(took_us.items(), key=lambda pair: pair[0] != "ten expressions by hand")
    ]
    return Result("mapping-expressions", rows_count, figures=figures, proved=proof)


BENCHES: Final = (Bench("mapping-expressions", str(mapping_expressions.__doc__), 50_000, mapping_expressions),)
