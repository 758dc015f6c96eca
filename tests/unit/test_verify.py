"""verify over ends in memory: it finds what differs, and only that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdcsync.change import Column, Row, Table, key_of
from cdcsync.connectors import Scanner
from cdcsync.mapping.model import TableMapping
from cdcsync.mapping.transform import Mapping
from cdcsync.types import Kind, Type
from cdcsync.verify import Ends, Result, differing, verify
from cdcsync.verify.values import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_INTEGER = Type(Kind.INTEGER, bits=32)
_TEXT = Type(Kind.TEXT)
TABLE = Table("shop", "t", (Column("id", _INTEGER, nullable=False), Column("note", _TEXT)), ("id",))
KEYLESS = Table("shop", "h", (Column("id", _INTEGER), Column("note", _TEXT)))


@dataclass
class Rows:
    """One end: rows, and a position that passes as told."""

    rows: list[Row]
    reads: list[list[Row]] = field(default_factory=list)
    """What `read` finds, call by call; the last for ever."""

    def scanner(self, *, source: bool) -> Scanner:
        end: Callable[[], object] = (lambda: lambda stored: stored == "1") if source else (lambda: "1")
        return Scanner(self._scan, self._read, end, lambda: None)

    def _scan(self, table: Table) -> Iterator[Row]:
        return iter(sorted(self.rows, key=lambda row: key_of(table, row)) if table.key else self.rows)

    def _read(self, table: Table, keys: Iterable[Row]) -> list[Row]:
        rows = self.rows
        if self.reads:
            rows = self.reads[0] if len(self.reads) == 1 else self.reads.pop(0)
        wanted = set(keys)
        return [row for row in rows if key_of(table, row) in wanted]


def compare(source: Rows, sink: Rows, table: Table = TABLE, mapping: TableMapping | None = None) -> Result:
    transform = Mapping.of([mapping or table.qualified])
    return verify(Ends(source.scanner(source=True), sink.scanner(source=False), transform, patience_s=2), [table])


def test_equal_ends_are_equal() -> None:
    rows: list[Row] = [(number, "x") for number in range(5000)]

    got = compare(Rows(rows), Rows(list(rows)))

    assert (got.status, got.tables[0].rows) == (0, 5000)


def test_missing_extra_and_different_rows_are_named_by_key() -> None:
    got = compare(Rows([(1, "a"), (2, "b"), (3, "c")]), Rows([(1, "a"), (2, "B"), (4, "d")])).tables[0]

    assert [(each.key, each.kind, each.columns) for each in got.differences] == [
        ({"id": 2}, "different", ("note",)),
        ({"id": 3}, "missing", ()),
        ({"id": 4}, "extra", ()),
    ]
    assert (got.missing, got.extra, got.different) == (1, 1, 1)


def test_a_row_that_was_only_late_is_no_difference() -> None:
    late = Rows([(1, "old")], reads=[[(1, "old")], [(1, "new")]])

    assert compare(Rows([(1, "new")]), late).equal


def test_a_hot_row_settles_when_the_target_had_a_value_of_the_source() -> None:
    source = Rows([(1, "0")], reads=[[(1, str(number))] for number in range(1000)])
    sink = Rows([(1, "x")], reads=[[(1, str(number - 3))] for number in range(1000)])

    assert compare(source, sink).equal


def test_soft_deleted_rows_are_not_extra_and_excluded_columns_not_compared() -> None:
    mapping = TableMapping.model_validate({"from": "shop.t", "delete": {"soft": "gone"}, "exclude": ["note"]})
    sink = Rows([(1, None), (2, "2026-01-01T00:00:00Z")])

    assert compare(Rows([(1, "a")]), sink, mapping=mapping).equal
    got = compare(Rows([(1, "a"), (2, "b")]), sink, mapping=mapping).tables[0]
    assert [each.columns for each in got.differences] == [("gone",)]


def test_rows_are_compared_through_the_mappings_expressions() -> None:
    entry = {"from": "shop.t", "where": "note <> 'x'", "columns": {"twice": "id * 2", "note": "upper(note)"}}
    mapping = TableMapping.model_validate(entry)
    source = Rows([(1, "a"), (2, "x"), (3, "c")])

    assert compare(source, Rows([(1, "A", 2), (3, "C", 6)]), mapping=mapping).equal
    got = compare(source, Rows([(1, "A", 2), (2, "X", 4), (3, "C", 7)]), mapping=mapping).tables[0]
    assert [(each.kind, each.columns) for each in got.differences] == [("extra", ()), ("different", ("twice",))]


def test_json_is_compared_to_the_byte_unless_the_target_keeps_its_value_alone() -> None:
    table = Table("", "t", (Column("c", Type(Kind.JSON)),))
    one, other = ('{"a": 1.10}',), ('{"a":1.1}',)

    assert differing(table, one, other) == ["c"]
    assert differing(table, one, other, {"c"}) == []
    assert digest(table, one) != digest(table, other)
    assert digest(table, one, {"c"}) == digest(table, other, {"c"})
    assert differing(table, one, ('{"a": 1.2}',), {"c"}) == ["c"]


def test_a_row_that_still_moves_when_patience_ends_is_unsettled_and_no_difference() -> None:
    source = Rows([(1, "0")], reads=[[(1, str(number))] for number in range(100_000)])
    sink = Rows([(1, "x")], reads=[[(1, f"x{number}")] for number in range(100_000)])

    got = compare(source, sink)

    table = got.tables[0]
    assert (got.status, table.unsettled, table.missing, table.extra, table.different) == (1, 1, 0, 0, 0)
    assert [(each.key, each.kind) for each in table.differences] == [({"id": 1}, "unsettled")]


def test_equal_ends_need_no_position() -> None:
    transform = Mapping.of([TableMapping.model_validate({"from": "shop.h", "key": "none"}), "shop.t"])
    ends = [Rows([(1, "a"), (1, "a")]).scanner(source=source) for source in (True, False)]

    got = verify(Ends(ends[0], ends[1], transform, stored=lambda: None, patience_s=2), [KEYLESS])

    assert (got.equal, [table.passed for table in got.tables]) == (True, [True])


def test_tables_without_a_key_are_compared_as_bags() -> None:
    mapping = TableMapping.model_validate({"from": "shop.h", "key": "none"})

    assert compare(Rows([(1, "a"), (1, "a"), (2, "b")]), Rows([(2, "b"), (1, "a"), (1, "a")]), KEYLESS, mapping).equal
    got = compare(Rows([(1, "a"), (1, "a")]), Rows([(1, "a"), (3, "c")]), KEYLESS, mapping).tables[0]
    assert (got.missing, got.extra) == (1, 1)


def test_keys_without_a_shared_order_are_sorted_here() -> None:
    table = Table("shop", "t", (Column("at", Type(Kind.DATE), nullable=False), Column("note", _TEXT)), ("at",))
    rows: list[Row] = [("2026-01-02", "a"), ("2026-01-01", "b"), ("-0044-03-15", "c")]

    assert compare(Rows(rows), Rows(rows[::-1]), table).equal
    assert compare(Rows(rows), Rows([*rows[:2], ("-0044-03-15", "x")]), table).tables[0].different == 1


def test_values_are_compared_in_a_form_that_both_ends_hold() -> None:
    kinds = [
        Type(Kind.FLOAT, bits=64),
        Type(Kind.DECIMAL, precision=10, scale=2),
        Type(Kind.DECIMAL),
        Type(Kind.JSON),
        Type(Kind.TEXT, length=3, fixed=True),
    ]
    table = Table("", "t", tuple(Column(f"c{index}", kind) for index, kind in enumerate(kinds)))
    nan = float("nan")

    got = differing(table, (nan, "1.50", "1.50", '{"a":1,"b":2}', "a  "), (-nan, "1.5", "1.5", '{"b": 2, "a": 1}', "a"))

    assert got == ["c2", "c3"]
    assert differing(table, (nan, "1.50", "1", "1", "a"), (None, None, None, None, None)) == [
        f"c{at}" for at in range(5)
    ]
