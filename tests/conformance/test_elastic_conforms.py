"""Elasticsearch passes the suites of sinks and stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.change import UNCHANGED, Batch, CopyStart
from cdcsync.elastic.client import Client
from cdcsync.elastic.config import ElasticStoreConfig
from cdcsync.elastic.documents import Plan
from cdcsync.elastic.raw import elements, members
from cdcsync.elastic.reading import scroll
from cdcsync.elastic.sink import ElasticSink
from cdcsync.elastic.store import ElasticStore
from cdcsync.elastic.target import Target as Indexes
from cdcsync.errors import End, Fatal, Incomplete
from cdcsync.ports import SinkContext
from cdcsync.sqlite.config import SqliteConfig
from cdcsync.sqlite.store import SqliteStore
from cdcsync.testing.conformance.rebuilders import RebuilderSuite
from cdcsync.testing.conformance.samples import ODD, ORDERS, batch, insert, update
from cdcsync.testing.conformance.sinks import SinkSuite, Target, delivered, opened
from cdcsync.testing.conformance.stores import StoreSuite
from cdcsync.types import BoundedArray, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fix_elastic import Cluster

    from cdcsync.change import Row, Table
    from cdcsync.ports import PositionStore, Sink
    from cdcsync.types import Type


def refuses(kind: Type, value: Any) -> bool:
    """Return whether a document has no exact form for a value, or the field of its type takes it not."""
    if isinstance(value, BoundedArray):
        return True
    if kind.kind is Kind.FLOAT:
        return bool(value - value != 0) or (kind.bits == 32 and abs(value) < 0)
    if kind.kind in {Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
        return "infinity" in value or value.startswith("+")
    return kind.kind is Kind.JSON and not value.startswith("{")


class TestElasticSink(SinkSuite, RebuilderSuite):
    @pytest.fixture
    def target(self, cluster: Cluster, tmp_path: Path) -> Target:
        def make(state: Path, tables: Sequence[Table]) -> tuple[Sink, PositionStore]:
            context = SinkContext("p", state, tuple(tables), "memory:1")
            store = SqliteStore(SqliteConfig(path=tmp_path / "positions.db"), context)
            return ElasticSink(cluster.config(), context), store

        def rows(table: Table) -> list[Row]:
            client = Client(cluster.config(), End.SINK)
            index = Indexes(client, cluster.config()).look(table.name)
            if index is None:
                return []
            plan = Plan(table, table.key, index.properties, None)
            cluster.ask("POST", f"/{index.name}/_refresh")
            found = [
                plan.row(members(members(hit)["_source"]))
                for page in scroll(client, index, {"sort": ["_doc"]}, "reading all")
                for hit in elements(members(members(page)["hits"])["hits"])
            ]
            client.close()
            return found

        return Target(make, rows, refuses=refuses)

    def test_names_are_never_taken_for_sql(self, target: Target, tmp_path: Path) -> None:
        with pytest.raises(Fatal, match="cannot be an index's name"):
            opened(target, tmp_path, ODD, ORDERS)

    def test_the_epoch_is_returned_as_it_was_written(self, target: Target, tmp_path: Path) -> None:
        sink, store = opened(target, tmp_path, ORDERS)
        assert target.make(tmp_path, [ORDERS])[0].open() == 0
        delivered(sink, store, batch(0, insert(ORDERS, 1, "a", None), epoch=5))

        assert target.make(tmp_path, [ORDERS])[0].open() == 5

    def test_a_batch_without_a_document_has_a_position(self, target: Target, tmp_path: Path) -> None:
        sink, _ = opened(target, tmp_path, ORDERS)
        empty, copied = Batch((), batch(4).position, 0, 0), batch(5, CopyStart(ORDERS, again=False))

        assert sink.write(empty) == empty.position
        assert sink.write(copied) == copied.position

    def test_an_incomplete_row_without_a_document_is_named_alone(self, target: Target, tmp_path: Path) -> None:
        sink, _ = opened(target, tmp_path, ORDERS)
        with pytest.raises(Incomplete) as caught:
            sink.write(batch(0, insert(ORDERS, 1, "a", None), update(ORDERS, 7, 7, "b", UNCHANGED)))

        assert set(caught.value.reasons) == {(0, 1)}


class TestElasticStore(StoreSuite):
    @pytest.fixture
    def store(self, cluster: Cluster) -> Callable[[Path], PositionStore]:
        config = ElasticStoreConfig.model_validate({"hosts": [cluster.server.url]})
        return lambda state: ElasticStore(config, SinkContext("p", state))
