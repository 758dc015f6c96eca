"""A PostgreSQL source over a test's own database, and what it gave."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.change import Change, Operation
from cdcsync.ports import SourceContext, Wanted
from cdcsync.postgres.config import PostgresSource, from_url
from cdcsync.postgres.position import PostgresPosition
from cdcsync.postgres.source import PostgresWal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.change import Batch, Item, Transaction


class Everything:
    """Wants all of schema public."""

    def wants(self, schema: str, name: str) -> Wanted | None:
        if schema != "public":
            return None
        return Wanted.APPENDED if name.startswith("log_") else Wanted.KEYED


@dataclass
class Run:
    """A source and what it gave."""

    source: PostgresWal
    transactions: list[Transaction] = field(default_factory=list)
    position: PostgresPosition | None = None

    def open(self, start: str | None = None, epoch: int = 0) -> Run:
        self.source.open(start, epoch)
        return self

    def take(self, done: Callable[[Run], bool], *, acknowledge: bool = True, within_s: float = 20) -> Run:
        until = time.monotonic() + within_s
        while not done(self):
            assert time.monotonic() < until, f"only {self.items}"
            self.turn(acknowledge=acknowledge)
        return self

    def turn(self, *, acknowledge: bool = True) -> Batch | None:
        batch = self.source.poll(0.1)
        if batch is not None:
            self.transactions.extend(batch.transactions)
            assert isinstance(batch.position, PostgresPosition)
            self.position = batch.position
            if acknowledge:
                self.source.acknowledge(batch.position)
        return batch

    @property
    def items(self) -> list[Item]:
        return [item for transaction in self.transactions for item in transaction.items]

    @property
    def changes(self) -> list[Change]:
        return [item for item in self.items if isinstance(item, Change)]

    @property
    def rows(self) -> list[tuple[Any, Any, Any]]:
        return [(change.operation.value, change.before, change.after) for change in self.changes]

    def encoded(self) -> str:
        assert self.position is not None
        return self.position.encode()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def run(database: Database, **options: Any) -> Run:
        config = PostgresSource(**{**from_url(database.url), "start": "now", **options})
        made.append(Run(PostgresWal(config, SourceContext("p", Everything(), tmp_path))))
        return made[-1]

    yield run
    for each in made:
        each.source.close()


def streaming(run: Run) -> bool:
    return run.position is not None and run.position.is_copied


def has(count: int) -> Callable[[Run], bool]:
    return lambda run: len(run.changes) >= count


def start(run: Run) -> Run:
    return run.open().take(streaming)


def state(run: Run, table: str, key: int = 1) -> dict[Any, tuple[Any, ...]]:
    """Return what a target would have of a table; `key` columns are its key."""
    rows: dict[Any, tuple[Any, ...]] = {}
    for change in run.changes:
        if change.table.name != table:
            continue
        if change.operation is Operation.TRUNCATE:
            rows.clear()
        if change.before is not None:
            rows.pop(change.before[:key], None)
        if change.after is not None:
            rows[change.after[:key]] = change.after
    return rows


def read(run: Run, table: str) -> list[Change]:
    """Return the rows of a table that were read, not logged."""
    return [each for each in run.changes if each.operation is Operation.READ and each.table.name == table]


def held_by(run: Run) -> str:
    """Return whom the reading waits for."""
    return str(run.source.figures().get("held_by", ""))
