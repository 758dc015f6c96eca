"""Claims about expressions in a mapping: filters, computed columns, routes, history, and what is said of mistakes."""

from __future__ import annotations

import dataclasses
import hmac
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync import config
from cdcsync.change import UNCHANGED, Change, Column, CopyStart, Operation, SchemaChange, Table, Transaction
from cdcsync.change import Batch as ChangeBatch
from cdcsync.errors import Fatal, Rejected
from cdcsync.mapping import Mapping, Rule, TableMapping
from cdcsync.sections import Role
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cdcsync.change import Item, Row

ID = Column("id", Type(Kind.INTEGER, bits=64), nullable=False)
STATUS = Column("status", Type(Kind.TEXT))
PRICE = Column("price", Type(Kind.DECIMAL, precision=10, scale=2))
DOC = Column("doc", Type(Kind.JSON))
ORDERS = Table("shop", "orders", (ID, STATUS, PRICE, DOC), ("id",))
INSERT, UPDATE, DELETE, READ, TRUNCATE = (
    Operation.INSERT,
    Operation.UPDATE,
    Operation.DELETE,
    Operation.READ,
    Operation.TRUNCATE,
)
TIME = "2025-11-24T16:00:00.5Z"
NEW: Row = (1, "new", "2.50", '{"city": "Ulm", "zip": "89073"}')
PAID: Row = (1, "paid", "2.50", NEW[3])
KEY_ONLY: Row = (1, UNCHANGED, UNCHANGED, UNCHANGED)


def mapping(**entry: Any) -> Mapping:
    """Return the mapping of one entry, with a secret."""
    made = TableMapping.model_validate({"from": "shop.orders", **entry})
    return Mapping([Rule(made)], {"pii": b"key"})


def batch(items: Sequence[Item]) -> ChangeBatch:
    """Return a batch of one transaction."""
    at = MemoryPosition(0, 1)
    transaction = Transaction("77", 1_764_000_000_500_000, at, 1, items, range(len(items)))
    return ChangeBatch([transaction], at, len(items), 0)


def mapped(entry: Mapping, *items: Item) -> list[tuple[Any, ...]]:
    """Return operation and rows of what comes out."""
    made = entry.apply(batch(items)).transactions[0].items
    return [(item.operation, item.before, item.after) for item in made if isinstance(item, Change)]


def insert(row: Row) -> Change:
    """Return an insert."""
    return Change(ORDERS, INSERT, None, row)


def update(before: Row, after: Row) -> Change:
    """Return an update."""
    return Change(ORDERS, UPDATE, before, after)


def delete(before: Row) -> Change:
    """Return a delete."""
    return Change(ORDERS, DELETE, before, None)


FILTER = {"where": "status <> 'new'", "include": ["id", "status"]}


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (insert(NEW), []),
        (insert(PAID), [(INSERT, None, (1, "paid"))]),
        (Change(ORDERS, READ, None, NEW), []),
        (update(NEW, PAID), [(INSERT, None, (1, "paid"))]),
        (update(PAID, NEW), [(DELETE, (1, "paid"), None)]),
        (update(PAID, PAID), [(UPDATE, (1, "paid"), (1, "paid"))]),
        (update(NEW, NEW), []),
        (update(KEY_ONLY, PAID), [(UPDATE, (1, UNCHANGED), (1, "paid"))]),
        (update(KEY_ONLY, NEW), [(DELETE, (1, UNCHANGED), None)]),
        (delete(PAID), [(DELETE, (1, "paid"), None)]),
        (delete(NEW), []),
        (delete(KEY_ONLY), [(DELETE, (1, UNCHANGED), None)]),
        (insert((1, None, "1", None)), []),
        (update((1, None, "1", None), PAID), [(INSERT, None, (1, "paid"))]),
    ],
)
def test_a_row_that_enters_a_filter_is_inserted_and_one_that_leaves_it_is_deleted(
    change: Change, want: list[Any]
) -> None:
    assert mapped(mapping(**FILTER), change) == want


def test_a_row_that_enters_with_a_value_that_the_log_left_out_stays_an_update() -> None:
    entry = mapping(where="status <> 'new'", include=["id", "doc"])

    got = mapped(entry, update(NEW, (1, "paid", "2.50", UNCHANGED)))

    assert got == [(UPDATE, (1, NEW[3]), (1, UNCHANGED))]


def test_a_filter_over_a_value_that_the_log_left_out_rejects_the_row() -> None:
    with pytest.raises(Rejected, match=r"does not carry what `where` reads.*REPLICA IDENTITY FULL"):
        mapped(mapping(**FILTER), update(KEY_ONLY, (1, UNCHANGED, "3.00", UNCHANGED)))


def test_a_row_that_leaves_a_filter_stays_with_its_time_under_a_soft_delete() -> None:
    got = mapped(mapping(**FILTER, delete={"soft": "gone"}), update(PAID, NEW))

    assert got == [(UPDATE, (1, "paid", UNCHANGED), (1, "paid", TIME))]


def test_columns_are_added_and_replaced_where_they_stand() -> None:
    entry = mapping(exclude=["doc"], columns={"status": "upper(status)", "total": "price * 2"})

    (target,) = entry.tables([ORDERS])

    assert [column.name for column in target.columns] == ["id", "status", "price", "total"]
    assert target.columns[3].type.kind is Kind.DECIMAL
    assert mapped(entry, insert(NEW)) == [(INSERT, None, (1, "NEW", "2.50", "5.00"))]


def test_a_computed_value_of_an_input_that_is_unchanged_is_unchanged() -> None:
    entry = mapping(include=["id"], columns={"total": "price * 2"})

    got = mapped(entry, update(KEY_ONLY, (1, "x", UNCHANGED, None)), update(NEW, PAID))

    assert got == [(UPDATE, (1, UNCHANGED), (1, UNCHANGED)), (UPDATE, (1, "5.00"), (1, "5.00"))]


def test_metadata_and_the_row_before_are_there_for_expressions() -> None:
    entry = mapping(
        include=["id"],
        columns={"op": "_operation", "at": "_commit_time", "was": "_before.status", "tx": "_transaction || _table"},
    )

    got = mapped(entry, insert(NEW), update(NEW, PAID))

    assert got == [
        (INSERT, None, (1, "insert", TIME, None, "77orders")),
        (UPDATE, (1, UNCHANGED, UNCHANGED, UNCHANGED, UNCHANGED), (1, "update", TIME, "new", "77orders")),
    ]


def test_a_row_on_which_an_expression_fails_is_rejected_by_name_and_without_values() -> None:
    entry = mapping(columns={"share": "1 / (price - 2.50)"})
    good = (2, "x", "3.50", None)

    with pytest.raises(Rejected) as caught:
        mapped(entry, insert(good), insert(NEW))

    (reason,) = caught.value.reasons.values()
    assert list(caught.value.reasons) == [(0, 1)]
    assert reason == "shop.orders: column share: `1 / (price - 2.50)` fails: division by zero"
    assert caught.value.mapped[0, 1].after == (*NEW, UNCHANGED)


def test_a_row_before_on_which_an_expression_fails_does_not_hold_up_the_row_that_mends_it() -> None:
    entry = mapping(include=["id"], columns={"share": "1 / (price - 2.50)"})

    got = mapped(entry, update(NEW, (1, "x", "3.50", None)))

    assert got == [(UPDATE, (1, UNCHANGED), (1, "1.00000000000000000000"))]


def test_a_key_by_expression_is_proved_in_every_row() -> None:
    entry = mapping(
        include=["id"], columns={"shard": "coalesce(cast(doc ->> 'zip' as integer), 0)"}, key=["shard", "id"]
    )

    assert entry.tables([ORDERS])[0].key == ("shard", "id")
    assert mapped(entry, delete(NEW)) == [(DELETE, (1, 89073), None)]
    with pytest.raises(Rejected, match="the log does not carry the key column shard"):
        mapped(entry, delete(KEY_ONLY))


def test_rows_are_routed_by_their_content_and_the_old_place_is_cleaned() -> None:
    entry = mapping(
        include=["id", "status"],
        to={"by": "case when status = 'new' then 'fresh' else 'a.done' end", "tables": ["fresh", "a.done"]},
    )

    assert [table.qualified for table in entry.tables([ORDERS])] == ["fresh", "a.done"]
    made = entry.apply(batch([insert(NEW), update(NEW, PAID), update(PAID, PAID), delete(PAID)])).transactions[0]
    got = [(item.table.qualified, item.operation, item.after) for item in made.items if isinstance(item, Change)]
    assert got == [
        ("fresh", INSERT, (1, "new")),
        ("fresh", DELETE, None),
        ("a.done", INSERT, (1, "paid")),
        ("a.done", UPDATE, (1, "paid")),
        ("a.done", DELETE, None),
    ]
    assert list(made.ordinals) == [0, 1, 1, 2, 3]
    with pytest.raises(Rejected, match=r"does not carry what `to.by` reads.*REPLICA IDENTITY FULL"):
        mapped(entry, delete(KEY_ONLY))


def test_a_row_that_moves_stays_in_its_old_place_where_deletes_are_ignored() -> None:
    route = {"by": "status", "tables": ["new", "paid"]}
    entry = mapping(to=route, include=["id"], delete="ignore")

    for before in (NEW, KEY_ONLY):
        (got,) = entry.apply(batch([update(before, PAID)])).transactions[0].items
        assert isinstance(got, Change)
        assert (got.table.name, got.operation, got.after) == ("paid", UPDATE, (1,))
    assert mapped(entry, delete(KEY_ONLY)) == []


def test_a_place_that_is_not_listed_rejects_the_row() -> None:
    entry = mapping(to={"by": "status", "tables": ["new"]})

    assert len(mapped(entry, insert(NEW))) == 1
    with pytest.raises(Rejected, match=r"names none of the tables under `to.tables`"):
        mapped(entry, insert(PAID))


def test_truncates_and_copies_concern_every_place() -> None:
    entry = mapping(to={"by": "status", "tables": ["new", "paid"]})

    made = entry.apply(batch([Change(ORDERS, TRUNCATE, None, None), CopyStart(ORDERS, again=False)])).transactions[0]

    assert [item.table.name for item in made.items if isinstance(item, Change | CopyStart)] == ["new", "paid"] * 2


def test_one_table_goes_to_several_targets_where_an_entry_says_so() -> None:
    def entry(match: str) -> Mapping:
        first = {"from": "shop.orders", "to": "paid", "where": "status = 'paid'", "match": match}
        return Mapping.of([TableMapping.model_validate(first), "shop.*"])

    both, one = entry("all"), entry("first")

    assert [table.qualified for table in both.tables([ORDERS])] == ["paid", "shop.orders"]
    assert [table.qualified for table in one.tables([ORDERS])] == ["paid"]
    assert [operation for operation, _, _ in mapped(both, insert(PAID))] == [INSERT, INSERT]
    assert len(mapped(both, insert(NEW))) == 1
    assert mapped(one, insert(NEW)) == []


def test_history_appends_every_version_with_operation_and_time() -> None:
    entry = mapping(include=["id", "status"], history=True)

    (target,) = entry.tables([ORDERS])
    got = mapped(entry, insert(NEW), update(NEW, PAID), update(PAID, (1, UNCHANGED, "1", None)), delete(KEY_ONLY))

    assert (target.key, [column.name for column in target.columns]) == ((), ["id", "status", "operation", "changed_at"])
    assert got == [
        (INSERT, None, (1, "new", "insert", TIME)),
        (INSERT, None, (1, "paid", "update", TIME)),
        (INSERT, None, (1, "paid", "update", TIME)),
        (INSERT, None, (1, None, "delete", TIME)),
    ]
    with pytest.raises(Rejected, match="history keeps whole ones"):
        mapped(entry, update(KEY_ONLY, (1, UNCHANGED, "1", None)))


def test_a_history_ends_the_old_key_of_a_row_that_gets_another() -> None:
    entry = mapping(history=True, include=["id", "status"])
    moved: Row = (2, "paid", "2.50", UNCHANGED)

    assert mapped(entry, update(KEY_ONLY, moved)) == [
        (INSERT, None, (1, None, "delete", TIME)),
        (INSERT, None, (2, "paid", "update", TIME)),
    ]
    assert [row[2][:2] for row in mapped(entry, update(NEW, moved))] == [(1, "new"), (2, "paid")]


def test_a_filter_of_a_history_chooses_changes_and_may_look_at_the_row_before() -> None:
    entry = mapping(history={"operation": "op", "time": "at"}, where="price > 2 and _before.price <= 2", include=["id"])
    cheap = (1, "x", "1.00", None)

    assert mapped(entry, insert(cheap), update(cheap, NEW), update(NEW, PAID)) == [(INSERT, None, (1, "update", TIME))]
    with pytest.raises(Fatal, match="that goes with `history`"):
        mapping(where="_before.price is null").tables([ORDERS])


def test_an_update_that_changes_nothing_that_counts_is_left_out() -> None:
    entry = mapping(skip_unchanged=["status"])

    assert mapped(entry, update(PAID, (1, "paid", "9.00", None))) == []
    assert len(mapped(entry, update(NEW, PAID), update(KEY_ONLY, PAID), insert(NEW))) == 3
    assert len(mapped(entry, update(PAID, (2, *PAID[1:])))) == 1
    assert mapped(mapping(skip_unchanged=True), update(PAID, PAID)) == []


def test_json_is_flattened_into_columns_and_columns_are_nested_into_json() -> None:
    flat = mapping(flatten={"doc": {"city": "text", "zip": "integer"}}, include=["id", "doc"])
    nested = mapping(nest={"all": ["status", "price"]}, include=["id", "status", "price"])

    assert [column.name for column in flat.tables([ORDERS])[0].columns] == ["id", "doc_city", "doc_zip"]
    assert mapped(flat, insert(NEW)) == [(INSERT, None, (1, "Ulm", 89073))]
    assert mapped(nested, insert(NEW)) == [(INSERT, None, (1, '{"status":"new","price":2.50}'))]


def test_a_secret_keys_a_hash_and_is_not_shown() -> None:
    entry = mapping(include=["id"], columns={"who": "hmac_sha256(status, secret('pii'))"})

    ((_, _, row),) = mapped(entry, insert(NEW))

    assert row[1] == hmac.digest(b"key", b"new", "sha256").hex()
    with pytest.raises(Fatal, match="a secret cannot be written"):
        mapping(columns={"who": "secret('pii')"}).tables([ORDERS])


def test_a_mapping_with_expressions_is_pickled_as_declared() -> None:
    entry = mapping(columns={"total": "price * 2"})
    mapped(entry, insert(NEW))

    again = pickle.loads(pickle.dumps(entry))

    assert mapped(again, insert(NEW)) == mapped(entry, insert(NEW))


def test_a_schema_change_that_an_expression_does_not_fit_stops_by_name() -> None:
    entry = mapping(include=["id"], columns={"total": "price * 2"})
    mapped(entry, insert(NEW))
    without = dataclasses.replace(ORDERS, columns=(ID, STATUS, DOC))
    textual = dataclasses.replace(ORDERS, columns=(ID, STATUS, dataclasses.replace(PRICE, type=STATUS.type), DOC))

    for new, want in ((without, "there is no column price"), (textual, r"there is no text \* integer")):
        with pytest.raises(Fatal, match=want):
            mapped(entry, SchemaChange(ORDERS, new, None))


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> config.PipelineConfig:
    """Load a pipeline's file whose ends are anything."""
    monkeypatch.setattr("cdcsync.config._Loading._ends", lambda *_: {Role.SOURCE: None, Role.SINK: None})
    file = tmp_path / "orders.yaml"
    file.write_text(f"source: {{any: {{}}}}\nsink: {{any: {{}}}}\n{text}")
    file.chmod(0o600)
    return config.load(file, environ={"KEY": "key"})


def test_mistakes_in_expressions_are_told_all_at_once_with_a_caret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Fatal) as caught:
        load(
            tmp_path,
            monkeypatch,
            """\
tables:
  - from: shop.orders
    where: statsu <> 'new' and uper(status) = 'A'
    columns:
      a: "price * (2"
      b: |
        price +
          mask(status,
               kep_last(4))
      c: >-
        lower(status) ||
        uppr(status)
      d: 'coalesce(''a'', nulif(status, ''b''))'
""",
        )

    got = str(caught.value.args[0]).replace(f"{tmp_path}/", "").split("\n")
    assert [line for line in got if line.startswith("orders.yaml")] == [
        "orders.yaml:5:32: where: there is no function uper; did you mean upper?",
        "orders.yaml:7:20: columns.a: a bracket is not closed",
        "orders.yaml:11:16: columns.b: there is no function kep_last; did you mean least?",
        "orders.yaml:14:9: columns.c: there is no function uppr; did you mean upper?",
        "orders.yaml:15:27: columns.d: there is no function nulif; did you mean nullif?",
    ]
    assert "    statsu <> 'new' and uper(status) = 'A'" in got
    assert f"    {' ' * 20}^^^^" in got


def test_mistakes_against_the_live_table_have_their_place_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(
        tmp_path,
        monkeypatch,
        "tables:\n  - from: shop.orders\n    where: statsu <> 'new'\n    columns:\n      a: price + status\n",
    )

    with pytest.raises(Fatal) as caught:
        Mapping(loaded.rules, loaded.secrets).tables([ORDERS])

    got = str(caught.value.args[0]).replace(f"{tmp_path}/", "").split("\n")
    assert got[0] == "orders.yaml:7:10: table shop.orders: columns.a: there is no decimal(10,2) + text"
    assert "orders.yaml:5:12: table shop.orders: where: there is no column statsu; did you mean status?" in got


def test_secrets_and_python_functions_come_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_functions.py").write_text(
        "from datetime import date\ndef age(born: date, now: int | None = 0) -> int:\n    return (now or 2026) - born.year\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = """\
secrets: {pii: "${env:KEY}"}
functions: ["shop_functions:age"]
tables:
  - {from: shop.orders, include: [id], columns: {who: "hmac_sha256(status, secret('pii'))", age: "age(date '2000-01-01')"}}
"""

    loaded = load(tmp_path, monkeypatch, text)

    assert loaded.secrets == {"pii": b"key"}
    ((_, _, row),) = mapped(Mapping(loaded.rules, loaded.secrets), insert(NEW))
    assert (row[0], len(row[1]), row[2]) == (1, 64, 26)
    with pytest.raises(Fatal, match=r"orders.yaml:4:13: shop_functions:old: shop_functions has no old"):
        load(tmp_path, monkeypatch, text.replace("shop_functions:age", "shop_functions:old"))
