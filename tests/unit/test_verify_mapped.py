"""verify through entries whose target is not the source row by row: routes, several targets, computed keys, histories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.change import Column, Row, Table, key_of
from cdcsync.connectors import Scanner
from cdcsync.errors import Fatal
from cdcsync.mapping import Mapping, TableMapping
from cdcsync.types import Kind, Type
from cdcsync.verify import Ends, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cdcsync.verify import TableResult

ID = Column("id", Type(Kind.INTEGER, bits=32), nullable=False)
NOTE = Column("note", Type(Kind.TEXT))
TABLE = Table("shop", "t", (ID, NOTE), ("id",))
SOURCE: list[Row] = [(1, "a"), (2, "b"), (3, "c")]
Found = dict[str, list[tuple[str, Any]]]


@dataclass
class Place:
    """One end: the rows of each table."""

    rows: dict[str, list[Row]]

    def scanner(self, *, source: bool) -> Scanner:
        """Return its scanner; the position has passed everything."""
        return Scanner(self._scan, self._read, lambda: (lambda _: True) if source else "1", lambda: None)

    def _scan(self, table: Table) -> Iterator[Row]:
        rows = self.rows[table.name]
        return iter(sorted(rows, key=lambda row: key_of(table, row)) if table.key else rows)

    def _read(self, table: Table, keys: Iterable[Row]) -> list[Row]:
        wanted = set(keys)
        return [row for row in self.rows[table.name] if key_of(table, row) in wanted]


def compared(
    entries: list[dict[str, Any]], rows: dict[str, list[Row]], source: list[Row] = SOURCE
) -> list[TableResult]:
    """Compare the source's table with what the target has."""
    mapping = Mapping.of([TableMapping.model_validate({"from": "shop.t", **entry}) for entry in entries])
    ends = Ends(Place({"t": source}).scanner(source=True), Place(rows).scanner(source=False), mapping, patience_s=2)
    return verify(ends, [TABLE]).tables


def found(entries: list[dict[str, Any]], rows: dict[str, list[Row]], source: list[Row] = SOURCE) -> Found:
    """Return what differs, by target."""
    results = compared(entries, rows, source)
    assert [result.equal for result in results] == [not result.differences for result in results]
    return {
        result.table: [(each.kind, next(iter(each.key.values()))) for each in result.differences] for result in results
    }


def test_each_of_several_targets_is_compared_through_its_own_entry() -> None:
    entries: list[dict[str, Any]] = [
        {"to": "whole", "match": "all"},
        {"to": "big", "where": "id > 1", "columns": {"note": "upper(note)"}},
    ]
    whole: list[Row] = list(SOURCE)

    assert found(entries, {"whole": whole, "big": [(2, "B"), (3, "C")]}) == {"whole": [], "big": []}
    assert found(entries, {"whole": whole[1:], "big": [(1, "A"), (2, "B"), (3, "c")]}) == {
        "whole": [("missing", 1)],
        "big": [("extra", 1), ("different", 3)],
    }


def test_rows_are_looked_for_in_the_place_that_their_content_names() -> None:
    entries = [{"to": {"by": "case when id < 3 then 'low' else 'high' end", "tables": ["low", "high"]}}]

    assert found(entries, {"low": SOURCE[:2], "high": SOURCE[2:]}) == {"low": [], "high": []}
    assert found(entries, {"low": [SOURCE[0], SOURCE[2]], "high": [(3, "x")]}) == {
        "low": [("missing", 2), ("extra", 3)],
        "high": [("different", 3)],
    }


def test_rows_of_a_computed_key_are_told_by_the_key_of_the_source_row() -> None:
    entries = [{"columns": {"code": "'n' || (10 - id)"}, "key": ["code"]}]
    target: list[Row] = [(1, "a", "n9"), (2, "b", "n8"), (3, "c", "n7")]

    assert found(entries, {"t": target}) == {"shop.t": []}
    got = compared(entries, {"t": [(1, "a", "n9"), (2, "x", "n8"), (9, "z", "n1")]})[0]
    assert [(each.kind, each.key) for each in got.differences] == [
        ("extra", {"code": "n1"}),
        ("missing", {"code": "n7"}),
        ("different", {"code": "n8"}),
    ]


def test_a_key_that_says_more_than_the_row_cannot_be_compared() -> None:
    entry = {"columns": {"code": "_transaction || id"}, "key": ["code"], "delete": "ignore"}

    with pytest.raises(Fatal, match="says more than the row"):
        compared([entry], {"t": []})


def test_what_a_column_holds_beside_the_row_is_not_compared() -> None:
    entries = [{"columns": {"at": "_commit_time", "code": "id + 1"}}]
    at = "2026-01-01T00:00:00Z"

    assert found(entries, {"t": [(1, "a", at, 2), (2, "b", at, 3), (3, "c", None, 4)]}) == {"shop.t": []}
    assert found(entries, {"t": [(1, "a", at, 2), (2, "b", at, 0), (3, "c", None, 4)]}) == {
        "shop.t": [("different", 2)]
    }


VERSIONS: list[Row] = [
    (1, "old", "insert", "2026-01-01T00:00:00Z"),
    (1, "a", "update", "2026-01-01T00:00:00.5Z"),
    (2, "b", "read", "2026-01-02T00:00:00Z"),
    (3, "x", "update", "2026-01-03T00:00:00Z"),
    (3, "c", "update", "2026-01-03T00:00:00Z"),
    (4, "gone", "insert", "2026-01-03T00:00:00Z"),
    (4, None, "delete", "2026-01-04T00:00:00Z"),
]


def test_the_latest_version_of_a_history_is_what_the_source_has() -> None:
    assert found([{"history": True}], {"t": VERSIONS}) == {"shop.t": []}


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        ([*VERSIONS[:1], *VERSIONS[2:]], [("different", 1)]),
        ([*VERSIONS, (2, "newer", "update", "2026-01-05T00:00:00Z")], [("different", 2)]),
        ([*VERSIONS, (2, None, "delete", "2026-01-05T00:00:00Z")], [("missing", 2)]),
        ([*VERSIONS[:2], *VERSIONS[3:]], [("missing", 2)]),
        (VERSIONS[:-1], [("extra", 4)]),
    ],
)
def test_a_history_that_lacks_a_version_is_found(rows: list[Row], want: list[Any]) -> None:
    assert found([{"history": True}], {"t": rows}) == {"shop.t": want}


def test_versions_of_one_second_of_a_log_of_whole_seconds_are_not_told_apart() -> None:
    read: Row = (1, "old", "read", "2026-01-01T00:00:05.25Z")
    rows: list[Row] = [read, (1, "a", "update", "2026-01-01T00:00:05Z")]

    assert found([{"history": True}], {"t": rows}, [SOURCE[0]]) == {"shop.t": []}
    rows[1] = (1, "a", "update", "2026-01-01T00:00:04Z")
    assert found([{"history": True}], {"t": rows}, [SOURCE[0]]) == {"shop.t": [("different", 1)]}


def test_of_a_filtered_history_the_rows_that_the_filter_takes_now_are_compared() -> None:
    entries = [{"history": True, "where": "id > 1"}]

    assert found(entries, {"t": VERSIONS}) == {"shop.t": []}
    assert found(entries, {"t": [*VERSIONS[:2], *VERSIONS[3:]]}) == {"shop.t": [("missing", 2)]}


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        ({"history": True, "where": "_before.note is null"}, "hangs on more than the row"),
        ({"history": True, "exclude": ["id"]}, "not all of the source's key"),
    ],
)
def test_a_history_that_does_not_say_which_row_it_is_of_cannot_be_compared(entry: dict[str, Any], want: str) -> None:
    with pytest.raises(Fatal, match=want):
        compared([entry], {"t": []})


def test_rows_that_the_mapping_rejects_are_counted_and_not_equal() -> None:
    entries = [{"columns": {"share": "10 / (id - 2)"}}]

    got = compared(entries, {"t": [(1, "a", -10), (3, "c", 10)]})[0]

    assert (got.rejected, got.differences, got.equal) == (1, [], False)
