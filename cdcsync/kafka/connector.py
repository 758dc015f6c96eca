"""The entry point of the kafka system."""

from __future__ import annotations

from cdcsync.connectors import Connector
from cdcsync.kafka.client import from_url
from cdcsync.kafka.source_spec import SOURCE

CONNECTOR = Connector(name="kafka", schemes=("kafka",), from_url=from_url, source=SOURCE)
