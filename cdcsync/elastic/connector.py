"""Elasticsearch and OpenSearch, as the registry knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.connectors import Connector, SinkSpec, StoreSpec
from cdcsync.elastic.alter import plan
from cdcsync.elastic.check import check, identity
from cdcsync.elastic.config import ElasticSinkConfig, ElasticStoreConfig, from_url
from cdcsync.elastic.rebuild import obstacles
from cdcsync.elastic.scan import sink_scanner
from cdcsync.elastic.sink import ElasticSink
from cdcsync.elastic.store import ElasticStore, clear, look, put
from cdcsync.ports import Guarantee

if TYPE_CHECKING:
    from cdcsync.ports import PositionStore, Sink, SinkContext


def _make(config: ElasticSinkConfig, context: SinkContext) -> Sink:
    return ElasticSink(config, context)


def _store(config: ElasticStoreConfig, context: SinkContext) -> PositionStore:
    return ElasticStore(config, context)


def _guarantee(_config: ElasticSinkConfig) -> Guarantee:
    return Guarantee.IDEMPOTENT


CONNECTOR = Connector(
    name="elasticsearch",
    schemes=("elasticsearch", "opensearch", "elasticsearch+http", "opensearch+http"),
    from_url=from_url,
    sink=SinkSpec(
        config=ElasticSinkConfig,
        make=_make,
        guarantee=_guarantee,
        identity=identity,
        check=check,
        scanner=sink_scanner,
        places=True,
        plan=plan,
        obstacles=obstacles,
        again="documents pass through older states and are right again once it has caught up",
    ),
    store=StoreSpec(config=ElasticStoreConfig, make=_store, clear=clear, put=put, look=look),
)
