"""What a pipeline's file says about Kafka as a sink and as a store of positions."""

from __future__ import annotations

import enum

from pydantic import ConfigDict, Field

from cdcsync.kafka.client import KafkaClientConfig

POSITIONS: str = "cdcsync_positions"
TOPIC: str = r"^[a-zA-Z0-9._-]{1,249}$"


class Delivery(enum.StrEnum):
    """What the sink promises."""

    EXACTLY_ONCE = "exactly_once"
    """Records and the position in one transaction; readers with read_committed see each record once."""
    IDEMPOTENT = "idempotent"
    """Without transactions: at once visible; after a crash records may come again, with the same key and version."""


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
    """Absent: `{schema}.{table}` of the mapped table."""
