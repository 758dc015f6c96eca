"""Claims about the mapping: which tables it takes, what their rows become, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync import config
from cdcsync.change import (
    UNCHANGED,
    Batch,
    Change,
    Column,
    CopyStart,
    Message,
    Operation,
    SchemaChange,
    Table,
    Transaction,
)
from cdcsync.errors import ExitStatus, Fatal, Rejected
from cdcsync.evolution import Follows, Mode
from cdcsync.mapping import Mapping, TableMapping
from cdcsync.mapping.names import Pattern
from cdcsync.ports import Wanted
from cdcsync.sections import Role
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Item

EXAMPLES = Path(__file__).parents[2] / "mappings"
TEXT = Type(Kind.TEXT)
ID = Column("id", Type(Kind.INTEGER, bits=64), nullable=False)
NOTE = Column("note", TEXT)
EMAIL = Column("email", TEXT, nullable=False)
ORDERS = Table("shop", "orders", (ID, NOTE, EMAIL), ("id",))
COMMIT_US = 1_764_000_000_500_000
TIME = "2025-11-24T16:00:00.5Z"

INSERT, UPDATE, DELETE, TRUNCATE = Operation.INSERT, Operation.UPDATE, Operation.DELETE, Operation.TRUNCATE


def mapping(**entry: Any) -> Mapping:
    """Return the mapping of one entry."""
    return Mapping.of([TableMapping.model_validate({"from": "shop.orders", **entry})])


def batch(*transactions: Sequence[Item]) -> Batch:
    """Return a batch of these items."""
    made = [
        Transaction(str(at), COMMIT_US, MemoryPosition(0, at), at, items, range(10, 10 + len(items)))
        for at, items in enumerate(transactions)
    ]
    return Batch(made, MemoryPosition(0, len(made)), sum(map(len, transactions)), 0)


def mapped(entry: Mapping, *items: Item) -> list[Item]:
    """Return what becomes of the items of one transaction."""
    return list(entry.apply(batch(items)).transactions[0].items)


def insert(*row: object) -> Change:
    """Return an insert into orders."""
    return Change(ORDERS, INSERT, None, row)


def test_a_mapping_that_changes_nothing_hands_the_batch_through_itself() -> None:
    given = batch([insert(1, "a", "b")], [insert(2, "a", "b")])

    assert mapping().apply(given) is given


def test_a_target_of_another_name_keeps_the_row_objects() -> None:
    row = (1, "a", "b")

    (got,) = mapped(mapping(to="orders"), Change(ORDERS, INSERT, None, row))

    assert isinstance(got, Change)
    assert got.table == Table("", "orders", ORDERS.columns, ORDERS.key)
    assert got.after is row


def test_tables_that_no_entry_names_are_left_out_and_ordinals_stay() -> None:
    other = Table("shop", "carts", (ID,), ("id",))
    given = batch([Change(other, INSERT, None, (1,)), insert(1, "a", "b"), Change(other, INSERT, None, (2,))])

    got = mapping().apply(given)

    assert got.changes == 1
    assert list(got.transactions[0].items) == [insert(1, "a", "b")]
    assert list(got.transactions[0].ordinals) == [11]


def test_a_transaction_of_which_nothing_is_left_is_still_there() -> None:
    got = Mapping.of(["shop.other"]).apply(batch([insert(1, "a", "b")], []))

    assert [list(transaction.items) for transaction in got.transactions] == [[], []]
    assert got.changes == 0


def test_columns_are_left_out_and_renamed_in_every_row() -> None:
    entry = mapping(exclude=["note"], rename={"email": "mail"})

    got = mapped(entry, insert(1, "a", "b"), Change(ORDERS, UPDATE, (1, UNCHANGED, UNCHANGED), (1, UNCHANGED, "c")))

    target = Table("shop", "orders", (ID, dataclasses.replace(EMAIL, name="mail")), ("id",))
    assert got == [Change(target, INSERT, None, (1, "b")), Change(target, UPDATE, (1, UNCHANGED), (1, "c"))]


def test_a_single_column_is_still_a_row() -> None:
    (got,) = mapped(mapping(include=["id"]), insert(1, "a", "b"))

    assert isinstance(got, Change)
    assert got.after == (1,)


def test_globs_and_regexes_fill_the_target_name() -> None:
    shards = Mapping.of(
        [
            TableMapping.model_validate({"from": "/shop_(?P<shard>\\d+)\\.(.*)/", "to": "all.{2}_{shard}"}),
            TableMapping.model_validate({"from": "log.*", "to": "{schema}_{1}"}),
        ]
    )
    tables = [dataclasses.replace(ORDERS, schema="shop_07"), dataclasses.replace(ORDERS, schema="log", name="a.b")]

    assert [table.qualified for table in shards.tables(tables)] == ["all.orders_07"]
    assert shards.wants("shop_x", "orders") is None
    assert shards.wants("log", "orders") is Wanted.KEYED


def test_a_regex_has_to_match_the_whole_name() -> None:
    assert Mapping.of(["/shop.orders/"]).wants("shop", "orders_old") is None
    assert Mapping.of(["/shop.orders/"]).wants("my_shop", "orders") is None


def test_a_name_with_a_dot_stands_in_quotes() -> None:
    assert Mapping.of(['"shop.eu"."a""b"']).wants("shop.eu", 'a"b') is Wanted.KEYED


def test_the_first_entry_that_matches_wins() -> None:
    both = Mapping.of([TableMapping.model_validate({"from": "shop.orders", "to": "first"}), "shop.*"])

    assert [table.name for table in both.tables([ORDERS])] == ["first"]


def test_key_none_makes_the_target_keyless_and_the_source_insert_only() -> None:
    entry = mapping(key="none")

    assert entry.wants("shop", "orders") is Wanted.APPENDED
    assert entry.tables([ORDERS])[0].key == ()


def test_a_table_without_a_key_needs_a_word_about_it() -> None:
    with pytest.raises(Fatal, match="there is no primary key") as caught:
        mapping().tables([dataclasses.replace(ORDERS, key=())])

    assert caught.value.status is ExitStatus.CONFIG


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        ({"exclude": ["note", "id"]}, "key: column id is left out"),
        ({"include": ["id", "nite"]}, "include: there is no column nite; did you mean note?"),
        ({"rename": {"emial": "mail"}}, "rename: there is no column emial; did you mean email?"),
        ({"rename": {"email": "note"}}, "two columns would be named note"),
        ({"exclude": ["note"], "rename": {"note": "n"}}, "rename: column note is left out"),
        ({"key": ["emial"]}, "key: there is no column emial; did you mean email?"),
        ({"key": ["note"]}, "key: column note may be null"),
        ({"key": ["id", "id"]}, "key: a column stands there twice"),
        ({"delete": {"soft": "note"}}, "two columns would be named note"),
    ],
)
def test_what_does_not_fit_the_table_is_refused_by_name(entry: dict[str, Any], want: str) -> None:
    with pytest.raises(Fatal) as caught:
        mapping(**entry).tables([ORDERS])

    assert want in str(caught.value)
    assert "table shop.orders: " in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        ({"include": ["id"], "exclude": ["note"]}, "not both"),
        ({"key": []}, "at least one column"),
        ({"key": "none", "delete": {"soft": "gone"}}, "needs a key"),
        ({"delete": {"soft": "gone"}, "truncate": "apply"}, "would remove the rows"),
        ({"to": "{tabel}"}, "did you mean table"),
        ({"from": "a.b.c"}, "stands in"),
        ({"from": "/(/"}, "not a regular expression"),
        ({"wher": "id > 1"}, "Extra inputs"),
        ({"history": True, "key": ["id"]}, "it goes with no `key`"),
        ({"history": True, "truncate": "apply"}, "would remove the rows"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(entry: dict[str, Any], want: str) -> None:
    with pytest.raises(ValueError, match=want):
        mapping(**entry)


def test_two_sources_of_one_target_must_be_alike() -> None:
    shards = Mapping.of([TableMapping.model_validate({"from": "/s(.)\\.orders/", "to": "orders"})])
    one, two = dataclasses.replace(ORDERS, schema="s1"), dataclasses.replace(ORDERS, schema="s2")

    assert len(shards.tables([one, two])) == 1
    with pytest.raises(Fatal, match=r"is already that of s1\.orders"):
        shards.tables([one, dataclasses.replace(two, columns=(ID, NOTE))])


def test_every_clash_is_named_at_once() -> None:
    entry = Mapping.of([TableMapping.model_validate({"from": "shop.*", "exclude": ["id"]})])

    with pytest.raises(Fatal) as caught:
        entry.tables([ORDERS, dataclasses.replace(ORDERS, name="carts")])

    assert str(caught.value).count("column id is left out") == 2


def test_entries_of_tables_that_are_not_there_are_named() -> None:
    assert Mapping.of(["shop.ordrs", "shop.*"]).missing([ORDERS]) == [
        "table shop.ordrs: the source has no table shop.ordrs"
    ]


def test_a_soft_delete_keeps_the_row_and_notes_the_time() -> None:
    entry = mapping(delete={"soft": "gone"})

    got = mapped(
        entry,
        insert(1, "a", "b"),
        Change(ORDERS, UPDATE, (1, UNCHANGED, UNCHANGED), (1, "c", UNCHANGED)),
        Change(ORDERS, DELETE, (1, UNCHANGED, UNCHANGED), None),
    )

    assert [(item.operation, item.before, item.after) for item in got if isinstance(item, Change)] == [
        (INSERT, None, (1, "a", "b", None)),
        (UPDATE, (1, UNCHANGED, UNCHANGED, UNCHANGED), (1, "c", UNCHANGED, None)),
        (UPDATE, (1, UNCHANGED, UNCHANGED, UNCHANGED), (1, UNCHANGED, UNCHANGED, TIME)),
    ]
    assert entry.tables([ORDERS])[0].columns[-1].type.kind is Kind.TIMESTAMPTZ


def test_ignored_deletes_are_left_out() -> None:
    got = mapped(mapping(delete="ignore"), insert(1, "a", "b"), Change(ORDERS, DELETE, (1, "a", "b"), None))

    assert got == [insert(1, "a", "b")]


TRUNCATED = Change(ORDERS, TRUNCATE, None, None)


def test_a_truncate_is_applied_under_hard_deletes() -> None:
    assert mapped(mapping(), TRUNCATED) == [TRUNCATED]


@pytest.mark.parametrize("entry", [{"delete": {"soft": "gone"}}, {"delete": "ignore"}, {"truncate": "stop"}])
def test_a_truncate_stops_where_rows_are_there_to_stay(entry: dict[str, Any]) -> None:
    with pytest.raises(Fatal, match=r"shop\.orders was truncated at"):
        mapped(mapping(**entry), insert(1, "a", "b"), TRUNCATED)


def test_a_truncate_can_be_ignored() -> None:
    assert mapped(mapping(truncate="ignore"), insert(1, "a", "b"), TRUNCATED) == [insert(1, "a", "b")]


def test_another_key_than_the_sources_has_to_be_in_the_row_before() -> None:
    entry = mapping(key=["email"])
    complete = Change(ORDERS, UPDATE, (1, "a", "b"), (1, "a", "c"))
    incomplete = Change(ORDERS, UPDATE, (1, UNCHANGED, UNCHANGED), (1, "a", "c"))

    with pytest.raises(Rejected) as caught:
        entry.apply(batch([complete], [complete, incomplete]))

    assert list(caught.value.reasons) == [(1, 1)]
    assert "REPLICA IDENTITY FULL" in caught.value.reasons[1, 1]


def test_an_unchanged_key_value_is_taken_from_the_row_before() -> None:
    (got,) = mapped(mapping(key=["email"]), Change(ORDERS, UPDATE, (1, "a", "b"), (1, "c", UNCHANGED)))

    assert isinstance(got, Change)
    assert got.after == (1, "c", "b")


def test_a_null_in_a_declared_key_is_rejected() -> None:
    with pytest.raises(Rejected, match="the key column email is null"):
        mapping(key=["email"]).apply(batch([insert(1, "a", None)]))


def test_a_key_of_the_target_names_is_taken_too() -> None:
    entry = mapping(key=["mail"], rename={"email": "mail"})

    assert entry.tables([ORDERS])[0].key == ("mail",)


def test_messages_are_left_out() -> None:
    assert mapped(mapping(), Message("app", b"x", transactional=True), insert(1, "a", "b")) == [insert(1, "a", "b")]


def test_a_copy_of_a_mapped_table_begins_at_its_target() -> None:
    other = Table("shop", "carts", (ID,), ("id",))

    got = mapped(mapping(to="orders"), CopyStart(ORDERS, again=True), CopyStart(other, again=False))

    assert got == [CopyStart(Table("", "orders", ORDERS.columns, ORDERS.key), again=True)]


WIDER = dataclasses.replace(ORDERS, columns=(*ORDERS.columns, Column("extra", TEXT)))


def test_a_schema_change_that_leaves_the_mapped_columns_goes_through() -> None:
    entry = mapping(include=["id", "note"])

    got = mapped(
        entry, insert(1, "a", "b"), SchemaChange(ORDERS, WIDER, None), Change(WIDER, INSERT, None, (2, "c", "d", "e"))
    )

    assert [item.after for item in got if isinstance(item, Change)] == [(1, "a"), (2, "c")]
    assert not [item for item in got if isinstance(item, SchemaChange)]


def test_a_hint_that_changed_goes_through_as_a_schema_change() -> None:
    looser = dataclasses.replace(ORDERS, columns=(ID, NOTE, dataclasses.replace(EMAIL, nullable=True)))

    assert mapped(mapping(), SchemaChange(ORDERS, looser, "x")) == [SchemaChange(ORDERS, looser, "x")]


@pytest.mark.parametrize(
    ("new", "want"),
    [
        (WIDER, "column extra is new"),
        (dataclasses.replace(ORDERS, columns=(ID, EMAIL)), "column note is gone"),
        (dataclasses.replace(ORDERS, columns=(ID, dataclasses.replace(NOTE, type=ID.type), EMAIL)), "another type"),
        (dataclasses.replace(ORDERS, key=("email",)), r"the key was \(id\) and is \(email\)"),
        (dataclasses.replace(ORDERS, name="sales"), "it is called shop.sales now"),
        (None, "it was dropped"),
    ],
)
def test_any_other_schema_change_stops_by_name(new: Table | None, want: str) -> None:
    with pytest.raises(Fatal, match=f"table shop.orders was changed at 0:0:0: .*{want}") as caught:
        mapped(mapping(schema_changes="stop"), SchemaChange(ORDERS, new, None))

    assert caught.value.status is ExitStatus.DATA


@pytest.mark.parametrize("mode", ["evolve", "lenient", "ignore"])
def test_a_target_that_follows_is_told_of_the_new_version_in_its_place(mode: str) -> None:
    got = mapped(mapping(schema_changes=mode), insert(1, "a", "b"), SchemaChange(ORDERS, WIDER, "ALTER"))

    assert got[1:] == [SchemaChange(ORDERS, WIDER, "ALTER")]


def test_a_rename_is_told_by_the_targets_own_names() -> None:
    new = dataclasses.replace(ORDERS, columns=(ID, dataclasses.replace(NOTE, name="remark"), EMAIL))

    (got,) = mapped(mapping(rename={"email": "mail"}), SchemaChange(ORDERS, new, None, (("note", "remark"),)))

    assert isinstance(got, SchemaChange)
    assert got.renamed == (("note", "remark"),)


@pytest.mark.parametrize("mode", ["evolve", "lenient", "ignore"])
def test_an_expression_over_a_dropped_column_stops_whatever_the_mode(mode: str) -> None:
    new = dataclasses.replace(ORDERS, columns=(ID, EMAIL))

    with pytest.raises(Fatal, match=r"table shop\.orders was changed .* there is no column note"):
        mapped(mapping(schema_changes=mode, columns={"loud": "upper(note)"}), SchemaChange(ORDERS, new, None))


def test_a_dropped_table_is_dropped_at_the_target_only_when_that_is_asked_for() -> None:
    drop = SchemaChange(ORDERS, None, "DROP TABLE")

    assert mapped(mapping(), drop) == []
    (got,) = mapped(mapping(schema_changes={"include": ["drop_table"]}), drop)
    assert got == SchemaChange(Table("shop", "orders", ()), None, "DROP TABLE")


def test_targets_of_several_tables_lose_nothing_that_one_of_them_has() -> None:
    shards = Mapping.of([TableMapping.model_validate({"from": "shop_*.orders", "to": "orders"})])
    one, other = (dataclasses.replace(ORDERS, schema=f"shop_{number}") for number in (1, 2))

    (target,) = shards.tables([one])
    assert shards.follows(target) == Follows(Mode.EVOLVE)
    shards.tables([other])
    assert shards.follows(target) == Follows(Mode.LENIENT)


@pytest.mark.parametrize("name", ["_orders_gho", "_orders_ghc", "_orders_del", "_orders_new", "__orders_old"])
def test_tables_of_an_online_schema_change_are_taken_by_their_own_names_alone(name: str) -> None:
    assert Pattern.parse("shop.*").match("shop", name) is None
    assert Pattern.parse(f"shop.{name}").match("shop", name) == {}


def test_a_new_table_is_announced_when_it_is_wanted() -> None:
    new = dataclasses.replace(ORDERS, name="sales")

    assert mapped(Mapping.of(["shop.*"]), SchemaChange(None, new, None)) == [SchemaChange(None, new, None)]
    assert mapped(mapping(), SchemaChange(None, new, None)) == []


def test_a_table_version_that_lost_its_key_column_stops() -> None:
    with pytest.raises(Fatal, match=r"table shop\.orders at 0:0:0: key: there is no column email"):
        mapped(mapping(key=["email"]), Change(dataclasses.replace(ORDERS, columns=(ID,)), INSERT, None, (1,)))


def test_equal_table_versions_in_new_objects_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdcsync.mapping.transform.PLANS_MAX", 3)
    entry = mapping(to="orders")

    got = mapped(entry, *(Change(dataclasses.replace(ORDERS), INSERT, None, (at, "a", "b")) for at in range(20)))

    assert [item.after[0] for item in got if isinstance(item, Change) and item.after] == list(range(20))


def test_parts_of_a_large_transaction_stay_parts() -> None:
    given = batch([insert(1, "a", "b")])
    part = dataclasses.replace(given.transactions[0], part=3, last=False)

    (got,) = mapping(to="orders").apply(dataclasses.replace(given, transactions=[part])).transactions

    assert (got.part, got.last, got.version, got.position) == (3, False, part.version, part.position)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_mapping_is_taken_as_it_is(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdcsync.config._Loading._ends", lambda *_: {Role.SOURCE: None, Role.SINK: None})
    file = tmp_path / "example.yaml"
    file.write_text(f"source: {{any: {{}}}}\nsink: {{any: {{}}}}\nmappings: ['{path}']\n")

    mapping = Mapping(config.load(file, environ={}).rules)
    exact = [pattern for rule in mapping.rules if (pattern := Pattern.parse(rule.mapping.from_).exact) is not None]
    assert all(mapping.wants(*names) for names in exact)
    assert exact or mapping.wants("tenant_1", "x")
