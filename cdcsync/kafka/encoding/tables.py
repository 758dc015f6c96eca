"""Which format writes a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cdcsync.errors import End
from cdcsync.evolution import Follows
from cdcsync.kafka.config import Format
from cdcsync.kafka.encoding.canal import CanalTable
from cdcsync.kafka.encoding.debezium import DebeziumTable
from cdcsync.kafka.encoding.flat import FlatTable
from cdcsync.kafka.encoding.maxwell import MaxwellTable
from cdcsync.kafka.encoding.text import TextTable
from cdcsync.kafka.registry import Registry

if TYPE_CHECKING:
    from cdcsync.change import Table
    from cdcsync.kafka.config import KafkaSink
    from cdcsync.kafka.encoding.records import Sender, TableEncoder
    from cdcsync.kafka.encoding.transactions import Counter

NOTHING_SAID: Final = Follows()


def encoder_of(
    table: Table,
    config: KafkaSink,
    sender: Sender,
    topic: str = "",
    counter: Counter | None = None,
    follows: Follows = NOTHING_SAID,
) -> TableEncoder:
    """Return what writes the changes of this table version, as the section says.

    With a registry its schemas are there on return. Raises Transient, and Fatal where they do not fit.
    """
    if config.registry is not None:
        from cdcsync.kafka.encoding.avro import AvroTable  # noqa: PLC0415  JSON needs no Avro

        return AvroTable(table, config, sender, Registry(config.registry, End.SINK), topic, follows)
    if config.format is Format.FLAT:
        return FlatTable(table, config, sender)
    if config.format is Format.MAXWELL:
        return MaxwellTable(table)
    if config.format is Format.CANAL:
        return CanalTable(table)
    if config.format is Format.TEXT:
        return TextTable(table, config.modes)
    made = DebeziumTable(table, config.modes, sender, tombstones=config.tombstones)
    made.counter = counter
    return made
