"""What a pipeline's file says about Kafka as a sink and as a store of positions."""

from __future__ import annotations

import enum
import string
from typing import Final

from pydantic import ConfigDict, Field, field_validator, model_validator

from cdcsync.kafka.client import KafkaClientConfig
from cdcsync.kafka.encoding.modes import PLACEHOLDER, Binary, Decimals, Intervals, Modes, Times, Unsigned
from cdcsync.kafka.encoding.outbox import OutboxConfig  # noqa: TC001  pydantic reads it
from cdcsync.kafka.registry import RegistryConfig  # noqa: TC001  pydantic reads it

POSITIONS: Final = "cdcsync_positions"
TOPIC: Final = r"^[a-zA-Z0-9._-]{1,249}$"
FIELDS: Final = ("pipeline", "schema", "table")
"""What a template of topics may take."""


class Delivery(enum.StrEnum):
    """What the sink promises."""

    EXACTLY_ONCE = "exactly_once"
    """Records and the position in one transaction; readers with read_committed see each record once."""
    IDEMPOTENT = "idempotent"
    """Without transactions: at once visible; after a crash records may come again, with the same key and version."""


class Format(enum.StrEnum):
    """What a record's value is."""

    DEBEZIUM = "debezium"
    FLAT = "flat"
    MAXWELL = "maxwell"
    CANAL = "canal"
    TEXT = "text"
    """The column `value` alone, of rows that are inserted."""


class Deletes(enum.StrEnum):
    """`delete.tombstone.handling.mode`: what a delete is in the flat format."""

    TOMBSTONE = "tombstone"
    REWRITE = "rewrite"
    REWRITE_WITH_TOMBSTONE = "rewrite-with-tombstone"
    DROP = "drop"


class Partitioner(enum.StrEnum):
    """Which partition a key goes to."""

    MURMUR2_RANDOM = "murmur2_random"
    """As the Java clients."""
    MURMUR2 = "murmur2"
    CONSISTENT_RANDOM = "consistent_random"
    CONSISTENT = "consistent"
    FNV1A_RANDOM = "fnv1a_random"
    FNV1A = "fnv1a"


class KafkaStore(KafkaClientConfig):
    """A topic that stores positions."""

    model_config = ConfigDict(defer_build=True)

    positions_topic: str = Field(POSITIONS, pattern=TOPIC)
    """The compacted topic of the positions, made when it is not there; several pipelines may share it."""
    positions_replication: int = Field(-1, ge=-1)
    """Replicas of that topic when it is made; -1: as the cluster says."""


class KafkaSink(KafkaStore):
    """Topics that changes are written to."""

    model_config = ConfigDict(defer_build=True)

    delivery: Delivery = Delivery.EXACTLY_ONCE
    """`exactly_once`: records and position in one transaction; `idempotent`: without, at less delay, and after a crash
    records may come again."""
    topic: str | None = None
    """Of a table: a name with `{pipeline}`, `{schema}` and `{table}` in it; one without `{table}` holds several tables in
    the order of their commits. Absent: `{schema}.{table}` of the mapping's target."""
    create_topics: bool = True
    """Whether missing topics are made; else they have to be there."""
    partitions: int = Field(-1, ge=-1)
    """Of topics that are made; -1: as the cluster says."""
    replication: int = Field(-1, ge=-1)
    """Of topics that are made; -1: as the cluster says."""
    topic_config: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Settings of topics that are made, by Kafka's names: `cleanup.policy: compact`."""
    partitioner: Partitioner = Partitioner.MURMUR2_RANDOM
    """Which partition a key goes to; `murmur2_random` as the Java clients."""
    format: Format = Format.DEBEZIUM
    """`debezium`: its envelope; `flat`: the row; `maxwell`; `canal`; `text`: the column `value` as it is, of rows that are inserted."""
    schemas: bool = False
    """JSON of `debezium` and `flat`: whether each record has its schema with it, as `schemas.enable` of JsonConverter."""
    registry: RegistryConfig | None = None
    """A Confluent-compatible schema registry: keys and values of `debezium` and `flat` are Avro. Absent: JSON."""
    tombstones: bool = True
    """`debezium`: whether a record without a value follows each delete, so that compaction removes the key."""
    delete_tombstone_handling_mode: Deletes = Deletes.TOMBSTONE
    """`flat`: a delete is a record without a value, a row with `__deleted: true`, both, or nothing."""
    add_fields: tuple[str, ...] = ()
    """`flat`: what is added to each row, `__` before it: op, ts_ms, table, version, or one of `source`: source.ts_us."""
    decimal_handling_mode: Decimals = Decimals.PRECISE
    """Debezium's: `precise`, `double` or `string`."""
    time_precision_mode: Times = Times.ADAPTIVE
    """Debezium's: `adaptive`, `adaptive_time_microseconds` or `connect`."""
    binary_handling_mode: Binary = Binary.BYTES
    """Debezium's: `bytes`, `base64`, `base64-url-safe` or `hex`."""
    bigint_unsigned_handling_mode: Unsigned = Unsigned.LONG
    """Debezium's: `long` or `precise`."""
    interval_handling_mode: Intervals = Intervals.NUMERIC
    """Debezium's: `numeric` or `string`."""
    transaction_topic: str | None = Field(None, pattern=TOPIC)
    """`debezium`: where each transaction's BEGIN and END go; its events then have their `transaction` block."""
    outbox: OutboxConfig | None = None
    """A table whose inserts are messages; its columns have Debezium's names unless they are named here."""
    unavailable_value: str = PLACEHOLDER
    """`debezium`: what stands for a value that the log did not carry."""

    @field_validator("topic")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        for _, name, _, _ in string.Formatter().parse(value or ""):
            if name is not None and name not in FIELDS:
                msg = f"a topic's template has no {{{name}}}; there are {', '.join(FIELDS)}"
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _avro(self) -> KafkaSink:
        if self.registry is not None and self.format not in {Format.DEBEZIUM, Format.FLAT}:
            msg = f"{self.format} is JSON: `registry` goes with debezium and flat"
            raise ValueError(msg)
        if self.transaction_topic is not None and (self.registry is not None or self.format is not Format.DEBEZIUM):
            msg = "`transaction_topic` goes with the format debezium in JSON"
            raise ValueError(msg)
        return self

    @property
    def modes(self) -> Modes:
        """How values are written."""
        return Modes(
            self.decimal_handling_mode,
            self.time_precision_mode,
            self.binary_handling_mode,
            self.bigint_unsigned_handling_mode,
            self.interval_handling_mode,
            self.unavailable_value,
            schemas=self.schemas,
        )
