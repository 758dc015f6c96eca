"""Which format writes a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.kafka.config import Format
from cdcsync.kafka.encoding.canal import CanalTable
from cdcsync.kafka.encoding.debezium import DebeziumTable
from cdcsync.kafka.encoding.flat import FlatTable
from cdcsync.kafka.encoding.maxwell import MaxwellTable

if TYPE_CHECKING:
    from cdcsync.change import Table
    from cdcsync.kafka.config import KafkaSink
    from cdcsync.kafka.encoding.records import Sender, TableEncoder


def encoder_of(table: Table, config: KafkaSink, sender: Sender) -> TableEncoder:
    """Return what writes the changes of this table version, as the section says."""
    if config.format is Format.FLAT:
        return FlatTable(table, config, sender)
    if config.format is Format.MAXWELL:
        return MaxwellTable(table)
    if config.format is Format.CANAL:
        return CanalTable(table)
    return DebeziumTable(table, config.modes, sender, tombstones=config.tombstones)
