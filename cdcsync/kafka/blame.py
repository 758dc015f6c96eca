"""Which changes of a batch are behind the records that the brokers refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError

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
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, batch: Batch, error: KafkaError) -> Rejected:
        """Return which items they are: brokers refuse a whole request for one record of it.

        Raises Fatal where no single record is too large, but they are together.
        """
        large = error.code() in _SIZES
        reasons: dict[tuple[int, int], str] = {}
        for at, transaction in enumerate(batch.transactions):
            for index, item in enumerate(transaction.items):
                if isinstance(item, Change):
                    topic, records = self._records(item, transaction)
                    reason = self._too_large(topic, records) if large else self._keyless(topic, records, error)
                    if reason:
                        reasons[at, index] = reason
        if not reasons:
            hint = f"set `client: {{batch.size: N}}` below the topics' max.message.bytes; {rule_of(error).hint}"
            msg = f"producing: {describe(error)}"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
        return Rejected(reasons)

    def _too_large(self, topic: str, records: Sequence[Encoded]) -> str:
        limit = int(self._settings(topic).get("max.message.bytes") or DEFAULT_MAX)
        size = max((len(key or b"") + len(value or b"") + OVERHEAD for key, value in records), default=0)
        return (
            f"its record of {size} bytes is larger than max.message.bytes of {topic}, {limit}" if size > limit else ""
        )

    def _keyless(self, topic: str, records: Sequence[Encoded], error: KafkaError) -> str:
        compacted = "compact" in str(self._settings(topic).get("cleanup.policy") or "compact")
        return f"{topic}: {rule_of(error).hint}" if compacted and any(key is None for key, _ in records) else ""

    def _settings(self, topic: str) -> dict[str, Any]:
        if topic not in self._known:
            self._known[topic] = self._topics.config(topic)
        return self._known[topic]


_SIZES: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE}
)
