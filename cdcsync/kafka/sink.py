"""Kafka as a sink: a batch is one transaction, the position among its records; or, without transactions, sent at once."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

from cdcsync.change import CopyStart
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.kafka.positions import KafkaPositions
from cdcsync.kafka.producer import Channel, Fenced
from cdcsync.kafka.writing import Writer
from cdcsync.ports import Guarantee
from cdcsync.positions import kept_elsewhere
from cdcsync.reads import Reads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import KafkaError

    from cdcsync.change import Batch, Position
    from cdcsync.kafka.config import KafkaSink as Config
    from cdcsync.kafka.writing import Parcel
    from cdcsync.ports import SinkContext

LARGE: Final = 1000
"""Changes of a batch whose commit is not waited for: the next one is encoded meanwhile."""


class Commit(NamedTuple):
    """A transaction that is being committed on the other thread."""

    position: Position
    outcome: Future[KafkaError | None]


class KafkaSink:
    """Writes each batch in one transaction; a large source transaction is visible by its parts."""

    guarantee = Guarantee.EXACTLY_ONCE

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._pipeline = context.pipeline
        self._store = KafkaPositions(config, context, kept=True, partitioner=config.partitioner.value)
        self._writer = Writer(config, context)
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="cdcsync-commit")
        self._under_way: Commit | None = None
        self._careful_to: Position | None = None
        """Up to here each commit is waited for: a record was refused that could not be named any more."""
        self._last: Position | None = None
        """Committed by this object since it was opened."""
        self._stored = ""
        """The position in the topic, encoded."""

    def positions(self) -> KafkaPositions:
        """Return the store that shares producer and fence."""
        return self._store

    def open(self) -> int:
        """Make or find the topics; return the epoch stored. The store is open."""
        if not self._store.is_open:
            raise kept_elsewhere(self._pipeline)
        self._last = None
        self._writer.prepare(self._store.known)
        stored = self._store.load()
        self._stored = stored.position if stored else ""
        self._writer.go_on(self._store.extra())
        return self._store.epoch()

    def write(self, batch: Batch) -> Position | None:
        """Write in one transaction with the position; return what is committed.

        A large batch's commit is under way when this returns. What is refused of it then makes a Transient, after which
        commits are waited for until the refused record has come again and is named.
        """
        begins = _begins_copy(batch)
        if not begins and self._is_written(batch):
            self._arrive()
            return batch.position
        overlaps = batch.changes >= LARGE and not begins and self._careful_to is None and self._writer.counter is None
        reached = None if overlaps else self._arrive()
        if begins:
            self._writer.begin_copies(batch)
        parcels = self._encoded(batch)
        if overlaps:
            reached = self._arrive()
        self._hand_over(batch, parcels)
        del parcels
        if overlaps:
            self._under_way = Commit(batch.position, self._committer.submit(self._store.channel.commit))
            return reached
        self._commit(batch)
        return batch.position

    def arrived(self) -> Position | None:
        """Wait for the commit that is under way; return the position if there was one. Raises Transient, Fatal."""
        return self._arrive()

    def _arrive(self) -> Position | None:
        commit, self._under_way = self._under_way, None
        if commit is None:
            return None
        channel = self._store.channel
        try:
            refused = commit.outcome.result()
        except Fenced as fenced:
            raise self._store.lost(fenced) from fenced
        except BaseException:
            channel.abort()
            raise
        if refused is not None:
            channel.abort()
            self._careful_to = commit.position
            msg = "a record was refused: all is written again from the stored position, one commit at a time"
            raise Transient(End.SINK, msg)
        self._store.committed()
        self._last = commit.position
        return commit.position

    def _encoded(self, batch: Batch) -> Sequence[Parcel]:
        """Return the records of a batch; after a failure counting goes on from what was committed."""
        try:
            return self._writer.encode(batch)
        except BaseException:
            self._writer.go_on(self._store.extra())
            raise

    def _hand_over(self, batch: Batch, parcels: Sequence[Parcel]) -> None:
        """Begin a transaction that has the records and the position."""
        channel = self._store.channel
        try:
            channel.begin()
            self._writer.send(channel, parcels)
            self._store.put_in(batch.position, self._writer.kept(batch))
        except Fenced as fenced:
            raise self._store.lost(fenced) from fenced
        except BaseException:
            channel.abort()
            self._writer.go_on(self._store.extra())
            raise

    def _commit(self, batch: Batch) -> None:
        """Commit and wait for it. Raises Rejected naming what the brokers refused."""
        channel = self._store.channel
        try:
            refused = channel.commit()
        except Fenced as fenced:
            raise self._store.lost(fenced) from fenced
        except BaseException:
            channel.abort()
            self._writer.go_on(self._store.extra())
            raise
        if refused is not None:
            channel.abort()
            self._store.renew()
            rejected = self._writer.blame(batch, refused)
            self._writer.go_on(self._store.extra())
            raise rejected
        self._store.committed()
        self._last = batch.position
        if self._careful_to is not None and batch.position.covers(self._careful_to):
            self._careful_to = None

    def _is_written(self, batch: Batch) -> bool:
        """Return whether the batch is committed already."""
        if self._last is not None:
            return self._last.covers(batch.position)
        return self._stored == batch.position.encode()

    def flush(self) -> Position | None:
        """Wait for the commit that is under way; return as `arrived` does."""
        return self._arrive()

    def close(self) -> None:
        """Wait for a commit that is under way, undo what is not committed; the store closes the producer."""
        commit, self._under_way = self._under_way, None
        if commit is not None:
            commit.outcome.exception()
        if self._store.is_open:
            self._store.channel.abort()


class PlainSink:
    """Sends records without transactions: at less delay, and after a crash some may come again."""

    guarantee = Guarantee.AT_LEAST_ONCE

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._channel = Channel(config, f"cdcsync {context.pipeline}", partitioner=config.partitioner.value)
        self._writer = Writer(config, context)

    def open(self) -> None:
        """Connect, make or find the topics; no epoch is kept there."""
        self._channel.open()
        self._writer.prepare(frozenset())

    def write(self, batch: Batch) -> Position | None:
        """Send, and return once all is acknowledged."""
        try:
            self._channel.begin()
            self._writer.send(self._channel, self._writer.encode(batch))
            refused = self._channel.commit()
        except Fenced as fenced:
            raise Fatal(str(fenced), hint="see the broker's log", status=ExitStatus.OWNERSHIP) from fenced
        if refused is not None:
            self._channel.close()
            self._channel.open()
            raise self._writer.blame(batch, refused)
        return batch.position

    def flush(self) -> Position | None:
        """Nothing waits."""
        return None

    def close(self) -> None:
        """Give up what was not sent and disconnect."""
        self._channel.close()


def _begins_copy(batch: Batch) -> bool:
    """Return whether the first copy of a table begins in it: such a batch is never written already."""
    return any(type(each.items) is not Reads and CopyStart in map(type, each.items) for each in batch.transactions)
