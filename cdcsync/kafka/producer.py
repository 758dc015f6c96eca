"""One producer, transactional or not: what it sends is durable when `commit` returns, and its errors have verdicts."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from cdcsync.errors import CdcsyncError, End, Transient
from cdcsync.kafka.errors import FENCED, Verdict, error_of, rule_of
from cdcsync.kafka.reach import Told, reached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import Message

    from cdcsync.kafka.client import KafkaClientConfig

INIT_S: Final = 40.0
"""For the transactions of an older producer to end."""
COMMIT_S: Final = 60.0
"""For all records to be acknowledged; past it the brokers are away, and the batch is written again."""
ABORT_S: Final = 10.0
WAIT_S: Final = 0.1
SETTINGS: Final = {
    "acks": "all",
    "enable.idempotence": True,
    "queue.buffering.max.kbytes": 32_768,
    "linger.ms": 5,
}
"""What a section's `client` may change of these, `REFUSED` says."""

_ANY: Final = -1
"""The partition that the key has it go to."""

Headers = list[tuple[str, str | bytes | None]]


class Fenced(Exception):  # noqa: N818  a finding, which the store turns into a verdict
    """The brokers take nothing more of this producer: another has its name, or its transaction took too long."""


class Channel:
    """A producer, made anew by each `open`."""

    def __init__(self, config: KafkaClientConfig, client_id: str, transactional_id: str = "", **settings: Any) -> None:
        self._settings = {**SETTINGS, **config.settings(client_id), **settings}
        if transactional_id:
            self._settings["transactional.id"] = transactional_id
        self._transactional = bool(transactional_id)
        self._where = config.where
        self._told = Told()
        self._failed: list[KafkaError] = []
        """Of records, since `begin`; of a transaction, its commit tells."""
        self._producer: Producer | None = None
        self._within = False

    @property
    def producer(self) -> Producer:
        """The open one."""
        if self._producer is None:
            msg = "the producer is not open"
            raise RuntimeError(msg)
        return self._producer

    @property
    def is_open(self) -> bool:
        """Whether there is one."""
        return self._producer is not None

    def open(self, end: End = End.SINK) -> None:
        """Connect; with a transactional id fence every older producer that has it. Raises Transient, Fatal."""
        if self._producer is not None:
            return
        self._failed.clear()
        self._within = False
        settings = self._settings if self._transactional else {**self._settings, "on_delivery": self._note}
        made, self._told = reached(Producer, settings, self._where, end)
        try:
            if self._transactional:
                made.init_transactions(INIT_S)
        except KafkaException as error:
            raise self._told.verdict(error_of(error), end, f"connecting to {self._where}") from error
        self._producer = made

    def begin(self) -> None:
        """Begin a transaction, where there are any."""
        self._failed.clear()
        if not self._transactional:
            return
        try:
            self.producer.begin_transaction()
        except KafkaException as error:
            raise self._verdict(error_of(error), "beginning a transaction") from error
        self._within = True

    def send(
        self, topic: str, records: Sequence[tuple[bytes | None, bytes | None]], headers: Headers, start: int = 0
    ) -> int | None:
        """Hand records over from `start` on; return the index of one that is too large for the client, None at the end.

        Blocks while the queue is full. Arguments go by position: names cost as much as the call.
        """
        produce = self.producer.produce
        for at in range(start, len(records)):
            key, value = records[at]
            try:
                produce(topic, value, key, _ANY, None, None, 0, headers)
            except BufferError:
                self._wait(topic, key, value, headers)
            except KafkaException as error:
                if error_of(error).code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    return at
                raise self._verdict(error_of(error), f"producing to {topic}") from error
        return None

    def put(self, topic: str, partition: int, key: bytes, value: bytes | None) -> None:
        """Hand one record over for a partition."""
        try:
            self.producer.produce(topic, value, key, partition)
        except KafkaException as error:
            raise self._verdict(error_of(error), f"producing to {topic}") from error

    def _wait(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Try again until the queue has room."""
        until = time.monotonic() + COMMIT_S
        while True:
            self.producer.poll(WAIT_S)
            try:
                self.producer.produce(topic, value, key, headers=headers)
            except BufferError as error:
                if time.monotonic() > until:
                    raise Transient(End.SINK, f"{self._where} takes no records") from error
            else:
                return

    def commit(self) -> KafkaError | None:
        """Return once all records are durable, and visible where they are of a transaction.

        Return what single records were refused for instead; then nothing is committed, and `abort` is due.
        """
        try:
            error = self._commit() if self._transactional else self._flush()
        except SystemError as wrapped:
            error = _within(wrapped)
        if error is None:
            return None
        if rule_of(error).verdict is Verdict.ROWS:
            return error
        raise self._verdict(error, f"producing to {self._where}")

    def _commit(self) -> KafkaError | None:
        """Commit, which waits for the records; to flush first takes steps of 100 ms where no reports come."""
        try:
            self.producer.commit_transaction(COMMIT_S)
        except KafkaException as error:
            return error_of(error)
        self._within = False
        return None

    def _flush(self) -> KafkaError | None:
        try:
            left = self.producer.flush(COMMIT_S)
        except KafkaException as error:
            return error_of(error)
        if self._failed:
            return next((each for each in self._failed if rule_of(each).verdict is Verdict.ROWS), self._failed[0])
        return _TIMED_OUT if left else None

    def abort(self) -> None:
        """Undo what was not committed; a producer that cannot is closed."""
        self._failed.clear()
        if self._producer is None or not self._within:
            return
        self._within = False
        try:
            self._producer.purge()
            self._producer.abort_transaction(ABORT_S)
        except KafkaException:
            self.close()
        self._failed.clear()

    def close(self) -> None:
        """Give up what was not sent and disconnect. Never raises; may be called twice."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with contextlib.suppress(KafkaException):
            producer.purge(blocking=False)
            producer.poll(0)

    def _verdict(self, error: KafkaError, doing: str) -> CdcsyncError | Fenced:
        if error.code() in FENCED:
            return Fenced(doing)
        if error.code() == KafkaError._FATAL:
            return Transient(End.SINK, f"{doing}: {error.str()}")
        return self._told.verdict(error, End.SINK, doing)

    def _note(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and error.code() not in _PURGED:
            self._failed.append(error)


def _within(error: SystemError) -> KafkaError:
    """Return what the client raised: a fatal error comes out of one callback, and the next wraps it."""
    if isinstance(error.__cause__, KafkaException):
        return error_of(error.__cause__)
    raise error


_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
_TIMED_OUT: Final = KafkaError(KafkaError._TIMED_OUT, "no acknowledgement came")
