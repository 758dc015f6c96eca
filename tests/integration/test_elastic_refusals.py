"""A cluster that is busy, red or small: what it refuses comes again, and what it is asked for is done."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from fix_elastic import Cluster, emptied, running
from fix_elastic_sink import ITEMS, ends, opened

from cdcsync.connectors import Severity
from cdcsync.elastic.check import check
from cdcsync.errors import Transient
from cdcsync.ports import SinkContext
from cdcsync.testing.conformance.samples import delete, insert
from cdcsync.testing.elastic_builds import ELASTIC8

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdcsync.testing.elastic_servers import ElasticServer

ROWS = 1000


@pytest.fixture(scope="module")
def busy() -> Iterator[ElasticServer]:
    """One thread that writes, and room for one request beside it."""
    with running(ELASTIC8, {"node.processors": "1", "thread_pool.write.queue_size": "1"}) as server:
        yield server


@pytest.fixture
def cluster(busy: ElasticServer) -> Cluster:
    return emptied(busy)


def refused(cluster: Cluster) -> int:
    """Return how many requests the server was too busy for."""
    found = cluster.ask("GET", "/_nodes/stats/thread_pool?filter_path=nodes.*.thread_pool.write.rejected")
    return sum(node["thread_pool"]["write"]["rejected"] for node in found["nodes"].values())


def test_a_server_too_busy_for_some_documents_gets_them_again_and_each_in_order(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdcsync.elastic.bulk.PATIENCE_S", 300.0)
    monkeypatch.setattr("cdcsync.elastic.bulk.WAIT_MAX_S", 0.2)
    made = opened(
        cluster, bulk={"actions_max": 50, "in_flight": 4}, indexes={"items": {"settings": {"number_of_shards": 4}}}
    )
    before = refused(cluster)

    for size in range(1, 3):
        made.write(*[insert(ITEMS, at, size, "note") for at in range(ROWS)])
    made.sink.arrived()
    made.write(delete(ITEMS, 0))

    found = cluster.documents("items")
    assert refused(cluster) > before
    assert {document["size"] for document in found.values()} == {2}
    assert len(found) == ROWS - 1
    made.sink.close()


def test_a_cluster_whose_shard_is_away_is_red_and_waited_for(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdcsync.elastic.bulk.SHARD_WAIT", "100ms")
    mappings = {"properties": {"id": {"type": "long"}, "size": {"type": "long"}, "note": {"type": "keyword"}}}
    nowhere = {"settings": {"routing.allocation.require._name": "nowhere"}, "mappings": mappings}
    cluster.ask("PUT", "/items?wait_for_active_shards=0&timeout=1s", nowhere)
    made = opened(cluster)
    first = check(cluster.config(), SinkContext("p", tmp_path, (ITEMS,)))[0]
    assert first.severity is Severity.WARNING
    assert "is red" in first.message

    with pytest.raises(Transient):
        made.write(insert(ITEMS, 1, 1, "note"))
    made.sink.close()
    monkeypatch.undo()
    cluster.ask("PUT", "/items/_settings", {"index.routing.allocation.require._name": None})
    cluster.ask("GET", "/_cluster/health/items?wait_for_status=yellow&timeout=60s")
    made.sink.open()
    made.write(insert(ITEMS, 1, 1, "note"), at=1)

    assert set(cluster.documents("items")) == {"1"}
    made.sink.close()


def test_compressed_requests_make_the_same_documents(cluster: Cluster) -> None:
    made = opened(cluster, gzip=True)

    made.write(*[insert(ITEMS, at, at, "ü") for at in range(3)])

    assert cluster.documents("items")["2"] == {"id": 2, "size": 2, "note": "ü"}
    made.sink.close()


def test_an_index_is_made_by_the_users_own_template(cluster: Cluster) -> None:
    fields = {"id": {"type": "long"}, "size": {"type": "long"}, "note": {"type": "keyword", "doc_values": False}}
    template = {"settings": {"number_of_shards": 2}, "mappings": {"dynamic": "strict", "properties": fields}}
    cluster.ask("PUT", "/_index_template/ours", {"index_patterns": ["items-*"], "template": template})
    made = ends(cluster, mapping="template")
    try:
        made.sink.open()
        made.write(insert(ITEMS, 1, 1, "note"))

        ((name, index),) = cluster.ask("GET", "/items").items()
        assert name == "items-000001"
        assert index["mappings"]["properties"] == fields
        assert index["settings"]["index"]["number_of_shards"] == "2"
        assert set(cluster.documents("items")) == {"1"}
    finally:
        cluster.ask("DELETE", "/_index_template/ours")
        made.sink.close()


def test_a_server_that_tells_nobody_what_it_is_is_written_to(cluster: Cluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(cluster.server.url, timeout=30)
    made = opened(cluster)
    made.write(insert(ITEMS, 1, 1, "note"))

    caught.value.close()
    assert caught.value.code == 405
    assert set(cluster.documents("items")) == {"1"}
    made.sink.close()
