"""What becomes of librdkafka's errors: one table, one function."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from cdcsync.errors import End, ExitStatus, Fatal, Transient

Code = KafkaError


class Verdict(enum.Enum):
    """What the pipeline does about an error."""

    TRANSIENT = "transient"
    ROWS = "rows"
    """Of one record alone, which will never be taken."""
    CONFIG = "config"
    PERMISSION = "permission"
    OWNERSHIP = "ownership"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    verdict: Verdict
    hint: str = ""
    """What to do next."""


_TRANSIENT: Final = Rule(Verdict.TRANSIENT)
_TOO_LARGE: Final = Rule(
    Verdict.ROWS, "raise the topic's max.message.bytes and `client: {message.max.bytes: ..}`, or leave columns out"
)
_LOGIN: Final = Rule(Verdict.PERMISSION, "mend `sasl` (mechanism, username, password) or the certificate under `tls`")
_FENCED: Final = Rule(
    Verdict.OWNERSHIP,
    "two daemons run one pipeline: stop one; after `positions set` or `positions clear` start it again",
)
_TOPIC: Final = Rule(Verdict.CONFIG, "create the topic, or let the sink create it with `create_topics: true`")

FENCED: Final = frozenset({Code._FENCED, Code.PRODUCER_FENCED, Code.INVALID_PRODUCER_EPOCH})
"""Another producer has the transactional id, or the brokers ended a transaction that took too long."""

RULES: Final[dict[int, Rule]] = {
    Code._FENCED: _FENCED,
    Code.PRODUCER_FENCED: _FENCED,
    Code.INVALID_PRODUCER_EPOCH: _FENCED,
    Code._AUTHENTICATION: _LOGIN,
    Code.SASL_AUTHENTICATION_FAILED: _LOGIN,
    Code.UNSUPPORTED_SASL_MECHANISM: _LOGIN,
    Code.ILLEGAL_SASL_STATE: _LOGIN,
    Code._SSL: Rule(
        Verdict.CONFIG, "set `tls`: `ca` is the file of the authority; `{mode: disable}` where the port has no TLS"
    ),
    Code.TOPIC_AUTHORIZATION_FAILED: Rule(
        Verdict.PERMISSION,
        "allow it: kafka-acls --add --allow-principal User:NAME --operation Write --operation "
        "Describe --operation Create --topic TOPIC (Read for a source)",
    ),
    Code.GROUP_AUTHORIZATION_FAILED: Rule(
        Verdict.PERMISSION, "allow it: kafka-acls --add --allow-principal User:NAME --operation Read --group GROUP"
    ),
    Code.CLUSTER_AUTHORIZATION_FAILED: Rule(
        Verdict.PERMISSION,
        "allow it: kafka-acls --add --allow-principal User:NAME --operation IdempotentWrite --cluster",
    ),
    Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Rule(
        Verdict.PERMISSION,
        "allow it: kafka-acls --add --allow-principal User:NAME --operation Write --operation Describe "
        "--transactional-id ID",
    ),
    Code.MSG_SIZE_TOO_LARGE: _TOO_LARGE,
    Code.INVALID_MSG_SIZE: _TOO_LARGE,
    Code.RECORD_LIST_TOO_LARGE: _TOO_LARGE,
    Code.INVALID_RECORD: Rule(Verdict.ROWS, "a compacted topic takes no record without a key: map a `key`"),
    Code.UNKNOWN_TOPIC_OR_PART: _TOPIC,
    Code._UNKNOWN_TOPIC: _TOPIC,
    Code._UNKNOWN_PARTITION: _TOPIC,
    Code.TOPIC_EXCEPTION: Rule(Verdict.CONFIG, "a topic's name has letters, digits, `.`, `_` and `-`, 249 at most"),
    Code.INVALID_CONFIG: Rule(Verdict.CONFIG, "mend the topic's settings under `topic_config`"),
    Code.INVALID_REPLICATION_FACTOR: Rule(Verdict.CONFIG, "the cluster has fewer brokers than `replication` asks for"),
    Code.INVALID_PARTITIONS: Rule(Verdict.CONFIG, "mend `partitions`"),
    Code.POLICY_VIOLATION: Rule(Verdict.CONFIG, "the cluster's policy forbids it: create the topic as it asks"),
    Code.INVALID_TRANSACTION_TIMEOUT: Rule(
        Verdict.CONFIG, "set `client: {transaction.timeout.ms: ..}` to at most the brokers' transaction.max.timeout.ms"
    ),
    Code.UNSUPPORTED_FOR_MESSAGE_FORMAT: Rule(Verdict.CONFIG, "brokers of 0.11 and later alone have transactions"),
    Code.UNSUPPORTED_VERSION: Rule(Verdict.CONFIG, "brokers of 0.11 and later alone have transactions"),
    Code._INVALID_ARG: Rule(Verdict.CONFIG, "mend the setting under `client`"),
    Code.OFFSET_OUT_OF_RANGE: Rule(
        Verdict.DATA, "the topic no longer has what was not read: raise its retention; see `on_lost_position`"
    ),
    Code._BAD_MSG: Rule(Verdict.DATA, "the topic holds a record that the client cannot read"),
    Code._BAD_COMPRESSION: Rule(Verdict.DATA, "the topic holds a record that the client cannot read"),
    Code._TRANSPORT: _TRANSIENT,
    Code._ALL_BROKERS_DOWN: _TRANSIENT,
    Code._TIMED_OUT: _TRANSIENT,
    Code._MSG_TIMED_OUT: _TRANSIENT,
    Code._TIMED_OUT_QUEUE: _TRANSIENT,
    Code._QUEUE_FULL: _TRANSIENT,
    Code._RESOLVE: _TRANSIENT,
    Code._RETRY: _TRANSIENT,
    Code._STATE: _TRANSIENT,
    Code._CONFLICT: _TRANSIENT,
    Code._DESTROY: _TRANSIENT,
    Code._PURGE_QUEUE: _TRANSIENT,
    Code._PURGE_INFLIGHT: _TRANSIENT,
    Code._WAIT_COORD: _TRANSIENT,
    Code._MAX_POLL_EXCEEDED: _TRANSIENT,
    Code._GAPLESS_GUARANTEE: _TRANSIENT,
    Code.BROKER_NOT_AVAILABLE: _TRANSIENT,
    Code.LEADER_NOT_AVAILABLE: _TRANSIENT,
    Code.NOT_LEADER_FOR_PARTITION: _TRANSIENT,
    Code.REPLICA_NOT_AVAILABLE: _TRANSIENT,
    Code.REQUEST_TIMED_OUT: _TRANSIENT,
    Code.NETWORK_EXCEPTION: _TRANSIENT,
    Code.NOT_ENOUGH_REPLICAS: _TRANSIENT,
    Code.NOT_ENOUGH_REPLICAS_AFTER_APPEND: _TRANSIENT,
    Code.COORDINATOR_NOT_AVAILABLE: _TRANSIENT,
    Code.COORDINATOR_LOAD_IN_PROGRESS: _TRANSIENT,
    Code.NOT_COORDINATOR: _TRANSIENT,
    Code.NOT_CONTROLLER: _TRANSIENT,
    Code.CONCURRENT_TRANSACTIONS: _TRANSIENT,
    Code.TRANSACTION_COORDINATOR_FENCED: _TRANSIENT,
    Code.UNKNOWN_PRODUCER_ID: _TRANSIENT,
    Code.OUT_OF_ORDER_SEQUENCE_NUMBER: _TRANSIENT,
    Code.INVALID_TXN_STATE: _TRANSIENT,
    Code.INVALID_PRODUCER_ID_MAPPING: _TRANSIENT,
    Code.KAFKA_STORAGE_ERROR: _TRANSIENT,
    Code.FENCED_LEADER_EPOCH: _TRANSIENT,
    Code.UNKNOWN_LEADER_EPOCH: _TRANSIENT,
    Code.REBALANCE_IN_PROGRESS: _TRANSIENT,
    Code.ILLEGAL_GENERATION: _TRANSIENT,
    Code.UNKNOWN_MEMBER_ID: _TRANSIENT,
    Code.THROTTLING_QUOTA_EXCEEDED: _TRANSIENT,
    Code.OFFSET_NOT_AVAILABLE: _TRANSIENT,
    Code.UNSTABLE_OFFSET_COMMIT: _TRANSIENT,
}
"""By the error's code. What is not here is fatal: unknown is never retried."""

_UNKNOWN: Final = Rule(Verdict.DATA, "this error is not known to cdcsync: the broker's log says more")
_STATUS: Final = {
    Verdict.PERMISSION: ExitStatus.PERMISSION,
    Verdict.OWNERSHIP: ExitStatus.OWNERSHIP,
    Verdict.CONFIG: ExitStatus.CONFIG,
    Verdict.DATA: ExitStatus.DATA,
    Verdict.ROWS: ExitStatus.DATA,
}


def error_of(exception: KafkaException) -> KafkaError:
    """Return the error that an exception carries."""
    error = exception.args[0]
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL, str(error))


def rule_of(error: KafkaError) -> Rule:
    """Return the table's row for this error; what the client itself would try again is transient."""
    known = RULES.get(error.code())
    if known is not None:
        return known
    return _TRANSIENT if error.retriable() else _UNKNOWN


def verdict(error: KafkaError, end: End, doing: str) -> Transient | Fatal:
    """Return what to raise when `doing` failed at this end."""
    rule = rule_of(error)
    message = f"{doing}: {describe(error)}"
    if rule.verdict is Verdict.TRANSIENT:
        return Transient(end, message)
    return Fatal(message, hint=rule.hint, status=_STATUS[rule.verdict])


def describe(error: KafkaError) -> str:
    """Return one line; librdkafka's words hold no record and no secret."""
    return f"{' '.join(str(error.str()).split())} ({error.name()})"
