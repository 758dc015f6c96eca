"""Which changes of a batch are behind the records that the brokers refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, Message

from cdcsync.change import Change
from cdcsync.errors import ExitStatus, Fatal, Rejected
from cdcsync.kafka.errors import describe, rule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Batch, Transaction
    from cdcsync.kafka.encoding.records import Encoded
    from cdcsync.kafka.targets import Topics

OVERHEAD: Final = 70
"""Bytes that a record batch of one record has beside key and value (Kafka protocol, "Record Batch")."""
DEFAULT_MAX: Final = 1_048_588
"""max.message.bytes where we may not ask."""


class Blame:
    """Looks for them by topic, key and size."""

    def __init__(self, topics: Topics, records: Callable[[Change, Transaction], tuple[str, Sequence[Encoded]]]) -> None:
        self._topics = topics
        self._records = records

    def of(self, batch: Batch, refused: Sequence[tuple[KafkaError, object]]) -> Rejected:
        """Return which items they are: brokers refuse a whole request for one record of it.

        Raises Fatal where no single record is too large, but they are together.
        """
        errors: dict[str, KafkaError] = {}
        for error, message in refused:
            if isinstance(message, Message):
                errors.setdefault(message.topic() or "", error)
        limits = {topic: self._limit(topic) for topic, error in errors.items() if error.code() in _SIZES}
        reasons: dict[tuple[int, int], str] = {}
        for at, transaction in enumerate(batch.transactions):
            for index, item in enumerate(transaction.items):
                if isinstance(item, Change):
                    topic, records = self._records(item, transaction)
                    reason = _reason(topic, records, errors.get(topic), limits.get(topic))
                    if reason:
                        reasons[at, index] = reason
        if not reasons:
            topic, error = next(iter(errors.items()))
            hint = f"set `client: {{batch.size: N}}` below max.message.bytes of {topic}; {rule_of(error).hint}"
            msg = f"producing to {topic}: {describe(error)}"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
        return Rejected(reasons)

    def _limit(self, topic: str) -> int:
        return int(self._topics.config(topic).get("max.message.bytes") or DEFAULT_MAX)


_SIZES: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE}
)


def _reason(topic: str, records: Sequence[Encoded], error: KafkaError | None, limit: int | None) -> str:
    if error is None:
        return ""
    if limit is None:
        return f"{topic}: {rule_of(error).hint}" if any(key is None for key, _ in records) else ""
    size = max(len(key or b"") + len(value or b"") + OVERHEAD for key, value in records) if records else 0
    return f"its record of {size} bytes is larger than max.message.bytes of {topic}, {limit}" if size > limit else ""
