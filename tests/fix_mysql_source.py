"""A MySQL source over a test's own database, and what it gave."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.change import Change
from cdcsync.mysql.config import MysqlSource, from_url
from cdcsync.mysql.position import MysqlPosition
from cdcsync.mysql.source import MysqlBinlog
from cdcsync.ports import SourceContext, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fix_mysql import MysqlDatabase

    from cdcsync.change import Batch, Item, Transaction


@dataclass(frozen=True)
class Tables:
    """Wants all of one database but what begins with `no_` or, as the tables of a schema change in progress, with `_`."""

    database: str

    def wants(self, schema: str, name: str) -> Wanted | None:
        return Wanted.KEYED if schema == self.database and not name.startswith(("no_", "_")) else None


@dataclass
class MysqlRun:
    """A source and what it gave."""

    source: MysqlBinlog
    transactions: list[Transaction] = field(default_factory=list)
    position: MysqlPosition | None = None

    def open(self, start: str | None = None, epoch: int = 0) -> MysqlRun:
        self.source.open(start, epoch)
        return self

    def take(self, done: Callable[[MysqlRun], bool], *, within_s: float = 20) -> MysqlRun:
        until = time.monotonic() + within_s
        while not done(self):
            assert time.monotonic() < until, f"only {str(self.items)[:10000]}"
            self.turn()
        return self

    def turn(self) -> Batch | None:
        batch = self.source.poll(0.1)
        if batch is not None:
            self.transactions.extend(batch.transactions)
            assert isinstance(batch.position, MysqlPosition)
            self.position = batch.position
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


def read_mysql(database: MysqlDatabase, state: Path, **options: Any) -> MysqlRun:
    """Return a source of one database that is not opened."""
    given = {**from_url(database.server.url()), "start": "now", "heartbeat": 1, **options}
    config = MysqlSource.model_validate(given)
    return MysqlRun(MysqlBinlog(config, SourceContext("p", Tables(database.name), state)))


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Callable[..., MysqlRun]]:
    """Makes sources, which end with the test."""
    made: list[MysqlRun] = []

    def run(database: MysqlDatabase, **options: Any) -> MysqlRun:
        made.append(read_mysql(database, tmp_path, **options))
        return made[-1]

    yield run
    for each in made:
        each.source.close()


def has_changes(count: int) -> Callable[[MysqlRun], bool]:
    return lambda run: len(run.changes) >= count


def begun(run: MysqlRun) -> MysqlRun:
    """Open it and take its first position."""
    return run.open().take(lambda run: run.position is not None)
