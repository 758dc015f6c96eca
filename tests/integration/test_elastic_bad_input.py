"""What goes wrong at a cluster is named, and nothing is dropped, or stale, in silence."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fix_elastic_sink import ITEMS, LONG, TEXT, ends, opened

from cdcsync.change import UNCHANGED, Change, Column, Operation, Step, Table
from cdcsync.elastic.addressed import text_of
from cdcsync.elastic.sink import awake
from cdcsync.errors import ExitStatus, Fatal, Incomplete, Rejected, Transient
from cdcsync.evolution import Mode
from cdcsync.testing.conformance.samples import delete, insert, position, truncate, update
from cdcsync.testing.faults import Proxy
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from fix_elastic import Cluster
    from fix_elastic_sink import Ends

    from cdcsync.change import Item

BY_NAME = {
    "mappings": {
        "dynamic": "strict",
        "properties": {"id": {"type": "long"}, "size": {"type": "byte"}, "note": {"type": "keyword"}},
    }
}


def rows(first: int, last: int, size: int = 1) -> list[Item]:
    return [insert(ITEMS, at, size, f"note {at}") for at in range(first, last + 1)]


def fatal(cluster: Cluster, *tables: Table, **options: Any) -> Fatal:
    """Return what opening says."""
    made = ends(cluster, tables or (ITEMS,), **options)
    with pytest.raises(Fatal) as caught:
        made.sink.open()
    made.sink.close()
    return caught.value


def later(made: Ends, *items: Item) -> None:
    """Write, and wait for what is under way."""
    made.write(*items, at=2)
    made.sink.arrived()


def test_one_wrong_document_of_a_thousand_is_rejected_alone_and_its_next_row_is_taken(cluster: Cluster) -> None:
    cluster.ask("PUT", "/items", BY_NAME | {"settings": {"mapping.coerce": True}})
    narrow = replace(ITEMS, columns=(ITEMS.columns[0], Column("size", TEXT), ITEMS.columns[2]))
    cluster.ask("PUT", "/things", {"mappings": {"properties": {"size": {"type": "keyword"}}, "dynamic": "false"}})
    things = replace(narrow, name="things")
    cluster.ask("PUT", "/things/_mapping", {"properties": {"note": {"type": "ip"}}})
    made = opened(cluster, [things])
    batch = [insert(things, at, "1", "10.0.0.1" if at != 500 else "secret word") for at in range(999)]

    with pytest.raises(Rejected) as caught:
        made.write(*batch, at=1)

    assert set(caught.value.reasons) == {(0, 500)}
    (reason,) = caught.value.reasons.values()
    assert "failed to parse field [note] of type [ip]" in reason
    assert "secret" not in reason
    del batch[500]
    made.write(*batch, at=1)
    made.write(update(things, 500, 500, "1", "10.0.0.2"), at=2)
    assert len(cluster.documents("things")) == 999
    made.sink.close()


def test_a_document_refused_in_a_large_batch_is_named_when_it_comes_again(cluster: Cluster) -> None:
    cluster.ask("PUT", "/items", {"mappings": {"properties": {"note": {"type": "ip"}}, "dynamic": "false"}})
    made = opened(cluster)
    first = [insert(ITEMS, at, 1, "10.0.0.1") for at in range(2000)]
    wrong = [*first[:1000], insert(ITEMS, 7, 1, "no address"), *first[1001:]]

    made.write(*first, at=1)
    with pytest.raises(Transient, match="refused"):
        later(made, *wrong)
    made.sink.close()
    made.sink.open()
    with pytest.raises(Rejected) as caught:
        made.write(*wrong, at=2)

    assert (0, 1000) in caught.value.reasons
    made.sink.close()


def test_an_index_that_is_closed_an_alias_of_two_and_an_illegal_name_are_refused_at_start(cluster: Cluster) -> None:
    cluster.ask("PUT", "/items")
    cluster.ask("POST", "/items/_close")
    assert "is closed: POST /items/_open" in str(fatal(cluster))

    cluster.ask("DELETE", "/items")
    for name in ("one", "two"):
        cluster.ask("PUT", f"/{name}", {"aliases": {"items": {}}})
    assert "alias of several indexes: one, two" in str(fatal(cluster))

    error = fatal(cluster, replace(ITEMS, name="Items"), replace(ITEMS, name="bare", key=()))
    assert "'Items' cannot be an index's name" in str(error)
    assert "bare has no key" in str(error)
    assert error.status is ExitStatus.CONFIG


def test_a_field_that_cannot_take_a_column_is_named_with_all_the_others(cluster: Cluster) -> None:
    cluster.ask(
        "PUT",
        "/items",
        {"mappings": {"dynamic": "strict", "properties": {"id": {"type": "long"}, "size": {"type": "byte"}}}},
    )

    said = str(fatal(cluster))

    assert "field size: byte is too narrow for integer of 64 bits" in said
    assert 'field note is missing: PUT /items/_mapping {"properties":{"note":' in said


def test_a_missing_index_is_named_where_none_may_be_made(cluster: Cluster) -> None:
    said = str(fatal(cluster, create_indexes=False))

    assert "is missing, and `create_indexes` is off: PUT /items" in said


def test_a_translog_that_forgets_is_refused(cluster: Cluster) -> None:
    cluster.ask("PUT", "/items", {"settings": {"translog.durability": "async"}})

    assert "forgets in a crash" in str(fatal(cluster))


def test_an_index_of_another_pipeline_is_refused(cluster: Cluster) -> None:
    made = opened(cluster)
    made.write(*rows(1, 1))
    made.sink.close()

    error = fatal(cluster, pipeline="other")

    assert "belongs to pipeline p" in str(error)
    assert error.status is ExitStatus.OWNERSHIP


def test_a_key_too_long_for_an_id_is_rejected_and_named(cluster: Cluster) -> None:
    table = Table("", "names", (Column("name", TEXT, nullable=False), Column("n", LONG)), ("name",))
    made = opened(cluster, [table])
    changes = [
        insert(table, "a" * 512, 1),
        insert(table, "ä" * 257, 2),
        insert(table, "", 3),
        insert(table, "\ud800", 4),
    ]

    with pytest.raises(Rejected) as caught:
        made.write(*changes, at=1)

    assert caught.value.reasons[0, 1] == "its _id would have 514 bytes, and Elasticsearch takes 512"
    assert set(caught.value.reasons) == {(0, 1), (0, 3)}
    made.write(changes[0], changes[2], at=1)
    made.write(delete(table, "ä" * 257))
    assert set(cluster.documents("names")) == {"a" * 512, "\\0"}
    made.sink.close()


def test_an_index_deleted_and_made_again_under_the_pipeline_is_noticed(cluster: Cluster) -> None:
    cluster.ask("PUT", "/items", {"mappings": {"properties": {"note": {"type": "keyword"}}}})
    made = opened(cluster)
    made.write(*rows(1, 2))
    cluster.ask("DELETE", "/items")
    made.clock[0] += 2

    with pytest.raises(Fatal, match="deleted, or made again") as caught:
        made.write(*rows(3, 3))

    assert "cdcsync positions clear" in str(caught.value)
    made.sink.close()


def test_an_index_behind_an_alias_is_never_made_again_with_guessed_types(cluster: Cluster) -> None:
    made = opened(cluster)
    made.write(*rows(1, 2))
    cluster.ask("DELETE", "/items-000001")

    with pytest.raises(Fatal, match="require_alias"):
        made.write(*rows(3, 3))

    assert "items" not in cluster.ask("GET", "/_all")
    made.sink.close()


def test_one_lost_index_of_two_is_refused_at_start(cluster: Cluster) -> None:
    others = replace(ITEMS, name="others")
    made = opened(cluster, [ITEMS, others])
    made.write(*rows(1, 1))
    made.sink.close()
    cluster.ask("DELETE", "/others-000001")

    assert "index others was deleted" in str(fatal(cluster, ITEMS, others))


def test_an_alias_that_was_switched_under_the_pipeline_is_noticed(cluster: Cluster) -> None:
    made = opened(cluster)
    made.write(*rows(1, 1))
    cluster.ask("PUT", "/another", {"mappings": {"dynamic": "false"}})
    moves = [{"remove": {"index": "items-000001", "alias": "items"}}, {"add": {"index": "another", "alias": "items"}}]
    cluster.ask("POST", "/_aliases", {"actions": moves})

    with pytest.raises(Fatal, match="was items-000001 when the pipeline was started and is another now"):
        made.write(*rows(2, 2))
    made.sink.close()


def test_a_full_disk_is_waited_out_and_said(cluster: Cluster) -> None:
    made = opened(cluster)
    made.write(*rows(1, 1))
    cluster.ask("PUT", "/items/_settings", {"index.blocks.read_only_allow_delete": True})

    with pytest.raises(Transient, match="disk of the cluster is full"):
        made.write(*rows(2, 2))
    made.sink.close()
    cluster.ask("PUT", "/items/_settings", {"index.blocks.read_only_allow_delete": None})
    made.sink.open()
    made.write(*rows(2, 2), at=2)

    assert len(cluster.documents("items")) == 2
    made.sink.close()


def test_a_document_larger_than_the_cluster_takes_is_rejected_and_the_others_are_split_off(cluster: Cluster) -> None:
    limit = 8 << 20
    made = opened(cluster, bulk={"bytes_max": 2 * limit})
    large = "x" * (limit // 3)
    changes = [
        *rows(1, 2),
        insert(ITEMS, 3, 1, large),
        insert(ITEMS, 4, 1, "y" * (limit + 1)),
        insert(ITEMS, 5, 1, large),
    ]

    with pytest.raises(Rejected) as caught:
        made.write(*changes, at=1)

    assert set(caught.value.reasons) == {(0, 3)}
    assert "more than the cluster takes at once" in caught.value.reasons[0, 3]
    made.write(*changes[:3], changes[4], at=1)
    assert sorted(cluster.documents("items")) == ["1", "2", "3", "5"]
    made.sink.close()


def test_a_newer_document_of_this_history_stays_and_one_of_another_history_stops(cluster: Cluster) -> None:
    made = opened(cluster)
    made.write(insert(ITEMS, 1, 1, "old"))
    made.write(update(ITEMS, 1, 1, 2, "new"))

    made.write(insert(ITEMS, 1, 1, "old"), at=1)
    assert cluster.documents("items")["1"]["note"] == "new"

    cluster.ask("PUT", "/items/_doc/1?version_type=external&version=99999999999999999", {"id": 1, "note": "theirs"})
    with pytest.raises(Fatal, match=r"holds a document of epoch 11, this pipeline writes in epoch 1") as caught:
        made.write(update(ITEMS, 1, 1, 3, "ours"))
    assert caught.value.status is ExitStatus.OWNERSHIP
    made.sink.close()


def test_a_history_that_begins_again_is_written_over_the_one_before(cluster: Cluster) -> None:
    made = opened(cluster)
    for at in range(5):
        made.write(insert(ITEMS, 1, at, "first history"))
    made.sink.close()
    again = ends(cluster)
    assert again.sink.open() == 1

    again.write(insert(ITEMS, 1, 0, "second history"), epoch=2)

    assert cluster.documents("items")["1"]["note"] == "second history"
    again.sink.close()
    assert ends(cluster).sink.open() == 2


@pytest.mark.parametrize("mutant", [False, True])
def test_a_late_request_of_a_fenced_predecessor_never_puts_an_older_row_over_a_newer_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, mutant: bool
) -> None:
    """And the comparison sees it when it does: the mutant writes without versions."""
    if mutant:

        def without_version(*arguments: Any) -> bytes:
            return re.sub(rb',"version":\d+,"version_type":"external_gte"', b"", text_of(*arguments))

        monkeypatch.setattr("cdcsync.elastic.addressed.text_of", without_version)
    before = opened(cluster)
    after = opened(cluster)
    newest = [update(ITEMS, 1, 1, 2, "newest"), delete(ITEMS, 2)]
    before.write(*rows(1, 2), at=1)
    after.write(*newest, at=2)

    before.write(*rows(1, 2, 7), at=1)

    stale = cluster.documents("items") != {"1": {"id": 1, "size": 2, "note": "newest"}}
    assert stale is mutant
    for each in (before, after):
        each.sink.close()


def test_an_answer_that_never_came_is_asked_for_again_and_changes_nothing(cluster: Cluster) -> None:
    with Proxy(cluster.server.host, cluster.server.port) as proxy:
        made = opened(cluster, url=f"http://{proxy.host}:{proxy.port}")
        made.write(*rows(1, 3))
        proxy.lose(b'"items":[')

        with pytest.raises(Transient):
            made.write(update(ITEMS, 1, 1, 5, UNCHANGED), delete(ITEMS, 2), at=2)
        assert proxy.lost == 1
        made.sink.close()
        made.sink.open()
        made.write(update(ITEMS, 1, 1, 5, UNCHANGED), delete(ITEMS, 2), at=2)
        made.sink.close()

    want = {"1": {"id": 1, "size": 5, "note": "note 1"}, "3": {"id": 3, "size": 1, "note": "note 3"}}
    assert cluster.documents("items") == want


def test_a_process_that_stood_still_for_long_looks_at_its_fence_before_it_writes(cluster: Cluster) -> None:
    made = opened(cluster)
    made.write(*rows(1, 1))
    made.clock[0] += 1801

    with pytest.raises(Transient, match="stood still"):
        made.write(*rows(2, 2))
    made.sink.close()
    made.sink.open()
    made.write(*rows(2, 2))
    made.sink.close()
    assert awake() > 0


def test_a_certificate_that_nobody_vouches_for_is_named(cluster: Cluster) -> None:
    error = fatal(cluster, url=cluster.server.url.replace("http://", "https://"), tls={"mode": "verify-full"})

    assert "TLS with https://" in str(error)
    assert error.status is ExitStatus.CONFIG


def test_an_ingest_pipeline_that_is_missing_is_refused_and_one_that_is_there_changes_documents(
    cluster: Cluster,
) -> None:
    assert "no ingest pipeline upper" in str(fatal(cluster, indexes={"items": {"pipeline": "upper"}}))


def test_a_row_whose_document_is_gone_is_asked_for_at_the_source(cluster: Cluster) -> None:
    made = opened(cluster)

    with pytest.raises(Incomplete) as caught:
        made.write(update(ITEMS, 1, 1, 5, UNCHANGED))

    assert set(caught.value.reasons) == {(0, 0)}
    made.sink.close()


def test_a_truncate_that_comes_again_leaves_what_came_after_it(cluster: Cluster) -> None:
    made = opened(cluster)
    made.write(*rows(1, 3))
    made.write(truncate(ITEMS), insert(ITEMS, 4, 1, "after"))
    made.write(insert(ITEMS, 5, 1, "later"))

    made.write(truncate(ITEMS), insert(ITEMS, 4, 1, "after"), at=2)

    assert sorted(cluster.documents("items")) == ["4", "5"]
    made.sink.close()


def test_a_routing_that_moves_takes_the_document_along(cluster: Cluster) -> None:
    options: dict[str, Any] = {"indexes": {"items": {"routing": "size", "settings": {"number_of_shards": 3}}}}
    made = opened(cluster, **options)
    made.write(*rows(1, 20))
    moved = [Change(ITEMS, Operation.UPDATE, (at, 1, f"note {at}"), (at, at, "moved")) for at in range(1, 21)]
    gone = Change(ITEMS, Operation.DELETE, (7, 7, "moved"), None)

    made.write(*moved, gone)
    with pytest.raises(Rejected, match="REPLICA IDENTITY FULL"):
        made.write(delete(ITEMS, 8))

    found = cluster.documents("items")
    assert sorted(map(int, found)) == [at for at in range(1, 21) if at != 7]
    count = cluster.ask("GET", "/items/_count")["count"]
    assert count == 19
    made.sink.close()


def test_a_template_of_the_id_has_every_column_of_the_key(cluster: Cluster) -> None:
    table = Table("", "pairs", (Column("a", TEXT, nullable=False), Column("b", TEXT, nullable=False)), ("a", "b"))
    assert "b is missing" in str(fatal(cluster, table, indexes={"pairs": {"id": "x-{a}"}}))

    made = opened(cluster, [table], indexes={"pairs": {"id": "x-{a}-{b}"}})
    made.write(insert(table, "1-2", "3"), insert(table, "1", "2-3"))
    plain = opened(cluster, [replace(table, name="plain")], pipeline="q")
    plain.write(insert(replace(table, name="plain"), "1|2", "3"), insert(replace(table, name="plain"), "1", "2|3"))

    assert set(cluster.documents("pairs")) == {"x-1\\-2-3", "x-1-2\\-3"}
    assert set(cluster.documents("plain")) == {"1\\|2|3", "1|2\\|3"}
    for each in (made, plain):
        each.sink.close()


def test_a_table_that_gains_a_column_gets_a_field_and_one_that_changes_a_type_asks_for_another_index(
    cluster: Cluster,
) -> None:
    narrow = replace(ITEMS, columns=(ITEMS.columns[0], Column("size", Type(Kind.INTEGER, bits=16))))
    made = opened(cluster, [narrow], mode=Mode.EVOLVE)
    made.write(insert(narrow, 1, 1))

    made.write(insert(ITEMS, 2, 2, "new field"))
    with pytest.raises(Rejected) as caught:
        made.write(insert(ITEMS, 3, 1 << 40, "too wide"), at=3)
    assert "field [size] of type [short]" in caught.value.reasons[0, 0]
    made.sink.rebuild(Step.BEGIN, [ITEMS], position(9))
    made.sink.close()

    fields = cluster.ask("GET", "/items__cdcsync_new")["items-000002"]["mappings"]["properties"]
    assert fields["size"] == {"type": "long"}
    error = fatal(cluster)
    assert "field size: short is too narrow" in str(error)
    assert "cdcsync rebuild p TABLE" in error.hint
