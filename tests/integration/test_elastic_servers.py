"""The other servers: Elasticsearch 9, and OpenSearch with all that the first lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fix_elastic import Cluster, emptied, running
from fix_elastic_sink import ITEMS, LONG, TEXT, ends, opened

from cdcsync.change import UNCHANGED, Change, Column, CopyStart, Operation, Step, Table
from cdcsync.connectors import Severity
from cdcsync.elastic.check import check, identity
from cdcsync.elastic.config import ElasticStoreConfig
from cdcsync.elastic.store import ElasticStore
from cdcsync.errors import ExitStatus, Fatal, Rejected
from cdcsync.ports import SinkContext, Stored
from cdcsync.rebuilding import NEW, beside
from cdcsync.testing.conformance.samples import batch, delete, insert, position, truncate, update
from cdcsync.testing.elastic_builds import ELASTIC9, OPENSEARCH
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdcsync.testing.elastic_servers import ElasticServer


@pytest.fixture(scope="module", params=[ELASTIC9, OPENSEARCH], ids=lambda build: build.name)
def server(request: pytest.FixtureRequest) -> Iterator[ElasticServer]:
    with running(request.param) as started:
        yield started


@pytest.fixture
def other(server: ElasticServer) -> Cluster:
    return emptied(server)


def test_changes_arrive_under_their_versions(other: Cluster) -> None:
    made = opened(other)
    made.write(CopyStart(ITEMS, again=False))
    made.write(*[insert(ITEMS, at, 1, f"note {at}") for at in range(1, 2001)])
    made.sink.arrived()
    made.write(update(ITEMS, 1, 1, 5, UNCHANGED), delete(ITEMS, 2), update(ITEMS, 3, 9003, 1, UNCHANGED))
    made.write(insert(ITEMS, 2, 7, "late"), at=1)

    found = other.documents("items")
    assert len(found) == 1999
    assert found["1"] == {"id": 1, "size": 5, "note": "note 1"}
    assert found["9003"]["note"] == "note 3"
    assert "2" not in found
    assert "3" not in found
    made.write(truncate(ITEMS), insert(ITEMS, 4, 1, "after"))
    assert set(other.documents("items")) == {"4"}
    made.sink.close()


def test_a_wrong_document_and_another_history_are_named(other: Cluster) -> None:
    table = Table("", "typed", (Column("id", LONG, nullable=False), Column("at", Type(Kind.DATE))), ("id",))
    made = opened(other, [table])
    with pytest.raises(Rejected) as caught:
        made.write(insert(table, 1, "2026-11-23"), insert(table, 2, "infinity"), at=1)
    assert set(caught.value.reasons) == {(0, 1)}
    assert "field [at] of type [date]" in caught.value.reasons[0, 1]

    other.ask("PUT", "/typed/_doc/1?version_type=external&version=99999999999999999", {"id": 1})
    with pytest.raises(Fatal, match="epoch 11") as stopped:
        made.write(insert(table, 1, "2026-11-23"))
    assert stopped.value.status is ExitStatus.OWNERSHIP
    made.sink.close()


def test_every_kind_has_a_field_that_the_server_knows(other: Cluster) -> None:
    kinds: list[tuple[Type, Any]] = [
        (Type(Kind.INTEGER, bits=64, unsigned=True), 2**64 - 1),
        (Type(Kind.DECIMAL, precision=38, scale=2), "1" * 30 + ".50"),
        (Type(Kind.TIMESTAMPTZ), "2026-11-23T10:00:00.000001Z"),
        (Type(Kind.JSON), '{"b": 1,  "a": [1.0, null]}'),
        (Type(Kind.GEOMETRY), bytes.fromhex("0101000020e6100000000000000000f03f0000000000000040")),
        (Type(Kind.ARRAY, element=TEXT), ("a", None)),
        (Type(Kind.BYTES), b"\x00"),
    ]
    columns = [Column(f"c{at}", kind) for at, (kind, _) in enumerate(kinds)]
    table = Table("", "kinds", (Column("id", LONG, nullable=False), *columns), ("id",))
    made = opened(other, [table])

    made.write(insert(table, 1, *[value for _, value in kinds]))

    found = other.documents("kinds")["1"]
    assert found["c0"] == 2**64 - 1
    assert found["c1"] == "1" * 30 + ".50"
    assert found["c3"] == {"b": 1, "a": [1.0, None]}
    made.sink.close()


def test_an_index_is_built_anew_and_the_switch_taken_back(other: Cluster) -> None:
    made = opened(other)
    made.write(insert(ITEMS, 1, 1, "old"))
    made.sink.rebuild(Step.BEGIN, [ITEMS], position(1))
    new = beside(ITEMS, NEW)
    made.write(insert(ITEMS, 2, 1, "both"), insert(new, 2, 1, "both"), insert(new, 1, 1, "new"))
    for _ in range(2):
        made.sink.rebuild(Step.SWAP, [ITEMS], position(2))
    assert other.documents("items")["1"]["note"] == "new"
    made.write(insert(ITEMS, 3, 1, "later"))
    for _ in range(2):
        made.sink.rebuild(Step.BACK, [ITEMS], position(3))

    assert set(other.documents("items")) == {"1", "2"}
    assert other.documents("items")["1"]["note"] == "old"
    assert list(other.ask("GET", "/_alias/items*")) == ["items-000001"]
    made.sink.close()


def test_check_and_the_store_know_the_server(other: Cluster, tmp_path: Path) -> None:
    context = SinkContext("p", tmp_path, (ITEMS,))
    assert identity(other.config()).startswith("elasticsearch:")
    assert all(each.severity is Severity.OK for each in check(other.config(), context))
    config = ElasticStoreConfig.model_validate({"hosts": [other.server.url]})
    store = ElasticStore(config, context)
    store.open("")
    store.save(batch(3).position)
    rival = ElasticStore(config, SinkContext("p", tmp_path / "elsewhere"))
    rival.open("")

    with pytest.raises(Fatal) as lost:
        store.save(batch(4).position)
    assert lost.value.status is ExitStatus.OWNERSHIP
    assert rival.load() == Stored(batch(3).position.encode(), 1)
    store.close()
    rival.close()


def test_a_key_that_moves_by_its_routing_leaves_no_ghost(other: Cluster) -> None:
    made = ends(other, indexes={"items": {"routing": "size", "settings": {"number_of_shards": 3}}})
    made.sink.open()
    made.write(*[insert(ITEMS, at, 1, "n") for at in range(9)])
    made.write(*[Change(ITEMS, Operation.UPDATE, (at, 1, "n"), (at, at, "n")) for at in range(9)])
    other.documents("items")

    assert other.ask("GET", "/items/_count")["count"] == 9
    made.sink.close()
