"""Folding: applying the net effects equals applying the changes one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcsync.change import UNCHANGED, Batch, Change, Column, Operation, Row, SchemaChange, Table, Transaction
from cdcsync.errors import Rejected
from cdcsync.folding import Barrier, Group, fold
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

INT = Type(Kind.INTEGER, bits=64)
T = Table("s", "t", (Column("id", INT), Column("a", INT), Column("b", INT)), ("id",))
LOG = Table("s", "log", (Column("a", INT),))
KEYS = range(5)


def batch(items: list[Any]) -> Batch:
    place = MemoryPosition(1, 1)
    return Batch((Transaction("1", 0, place, 1, items, range(len(items))),), place, len(items), 0)


def only(items: list[Any]) -> Any:
    (group,) = fold(batch(items))
    assert isinstance(group, Group)
    (effects,) = group.tables
    return effects


def insert(*row: Any) -> Change:
    return Change(T, Operation.INSERT, None, row)


def update(key: int, *row: Any) -> Change:
    return Change(T, Operation.UPDATE, (key, UNCHANGED, UNCHANGED), row)


def delete(key: int) -> Change:
    return Change(T, Operation.DELETE, (key, UNCHANGED, UNCHANGED), None)


def applied(rows: dict[int, Row], items: list[Any]) -> dict[int, Row]:
    """Write the effects as a SQL sink does, with a primary key that is checked at once."""
    rows = dict(rows)
    for group in fold(batch(items)):
        assert isinstance(group, Group)
        for effects in group.tables:
            for effect in effects.deletes:
                rows.pop(effect.origin, None)
            for step in effects.steps:
                row = step.effect.row if step.last else (step.new, UNCHANGED, UNCHANGED)
                there = rows.pop(step.old, None)
                assert step.new not in rows
                if there is None:
                    assert UNCHANGED not in step.effect.row
                    if not step.last:
                        continue
                    there = row
                rows[step.new] = tuple(o if n is UNCHANGED else n for n, o in zip(row, there, strict=True))
            for effect in [*effects.inserts, *effects.upserts]:
                rows[effect.key] = effect.row
            for columns, updates in effects.updates.items():
                for effect in updates:
                    there = rows[effect.key]
                    rows[effect.key] = tuple(effect.row[at] if at in columns else there[at] for at in range(3))
    return rows


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[int, Row], list[Any], dict[int, Row]]:
    """Rows at the start, changes as a source would log them, rows at the end."""
    start: dict[int, Row] = {key: (key, 100 + key, 200) for key in draw(st.sets(st.sampled_from(KEYS)))}
    rows, items = dict(start), []
    for number in range(draw(st.integers(0, 14))):
        key, other = draw(st.sampled_from(KEYS)), draw(st.sampled_from(KEYS))
        if key not in rows:
            rows[key] = (key, number, number)
            operation = draw(st.sampled_from([Operation.INSERT, Operation.READ]))
            items.append(Change(T, operation, None, rows[key]))
            continue
        action = draw(st.sampled_from(["delete", "update", "partial", "move", "read"]))
        before = rows[key] if draw(st.booleans()) else (key, UNCHANGED, UNCHANGED)
        if action == "delete":
            del rows[key]
            items.append(Change(T, Operation.DELETE, before, None))
        elif action == "read":
            rows[key] = (key, number, number)
            items.append(Change(T, Operation.READ, None, rows[key]))
        else:
            new = other if action == "move" and other not in rows else key
            there = rows.pop(key)
            kept = action == "partial" or draw(st.booleans())
            rows[new] = (new, number, there[2] if kept else number)
            items.append(Change(T, Operation.UPDATE, before, (new, number, UNCHANGED if kept else number)))
    return start, items, rows


@settings(max_examples=400, deadline=None)
@given(histories())
def test_folded_effects_equal_the_changes_one_by_one(history: tuple[dict[int, Row], list[Any], dict[int, Row]]) -> None:
    start, items, want = history

    got = applied(start, items)

    assert got == want


@settings(max_examples=100, deadline=None)
@given(histories())
def test_every_change_belongs_to_an_effect_or_is_undone_by_one(
    history: tuple[dict[int, Row], list[Any], dict[int, Row]],
) -> None:
    _, items, _ = history

    for group in fold(batch(items)):
        assert isinstance(group, Group)
        for effects in group.tables:
            every = [*effects.deletes, *effects.inserts, *effects.upserts, *(s.effect for s in effects.steps)]
            every += [each for updates in effects.updates.values() for each in updates]
            assert all(0 <= index < len(items) for each in every for _, index in each.refs())


def test_rows_only_inserted_are_told_apart() -> None:
    effects = only([insert(1, 1, 1), insert(2, 2, 2), update(1, 1, 5, UNCHANGED)])

    assert [each.row for each in effects.inserts] == [(1, 5, 1), (2, 2, 2)]
    assert effects.inserts[0].refs() == [(0, 0), (0, 2)]
    assert not effects.upserts
    assert not effects.updates


def test_a_delete_and_an_insert_of_one_key_is_an_upsert() -> None:
    effects = only([delete(1), insert(1, 2, 3)])

    assert [each.row for each in effects.upserts] == [(1, 2, 3)]
    assert not effects.deletes


def test_a_row_inserted_and_deleted_is_a_delete() -> None:
    effects = only([insert(1, 2, 3), delete(1)])

    assert [each.origin for each in effects.deletes] == [1]


def test_a_key_that_moves_is_an_update_and_no_delete() -> None:
    effects = only([update(1, 2, 7, UNCHANGED), update(2, 3, UNCHANGED, UNCHANGED)])

    assert [(step.old, step.new, step.last) for step in effects.steps] == [(1, 2, False), (2, 3, True)]
    assert effects.steps[1].effect.row == (3, 7, UNCHANGED)
    assert not effects.deletes


def test_a_row_that_moved_and_was_deleted_is_deleted_where_the_target_has_it() -> None:
    effects = only([update(1, 2, 7, UNCHANGED), delete(2)])

    assert [each.origin for each in effects.deletes] == [1]
    assert not effects.steps


def test_rows_that_change_places_through_a_deferred_key_are_told_apart_by_their_images() -> None:
    items = [
        Change(T, Operation.UPDATE, (1, 10, 10), (2, 10, 10)),
        Change(T, Operation.UPDATE, (2, 20, 20), (1, 20, 20)),
    ]

    effects = only(items)

    assert [(step.old, step.new, step.effect.row) for step in effects.steps] == [
        (1, 2, (2, 10, 10)),
        (2, 1, (1, 20, 20)),
    ]


def test_an_incomplete_update_of_a_deleted_row_is_rejected() -> None:
    with pytest.raises(Rejected) as caught:
        fold(batch([delete(1), update(1, 1, 5, UNCHANGED)]))

    assert list(caught.value.reasons) == [(0, 1)]


def test_an_update_without_a_key_to_find_its_row_is_rejected() -> None:
    with pytest.raises(Rejected, match="REPLICA IDENTITY FULL"):
        fold(batch([Change(T, Operation.UPDATE, (UNCHANGED,) * 3, (1, 2, 3))]))


def test_a_table_without_a_key_is_appended_to_and_its_update_rejected() -> None:
    rows = [Change(LOG, Operation.INSERT, None, (1,)), Change(LOG, Operation.INSERT, None, (1,))]

    assert [each.row for each in only(rows).appended] == [(1,), (1,)]
    with pytest.raises(Rejected, match="without a key"):
        fold(batch([*rows, Change(LOG, Operation.DELETE, (1,), None)]))


def test_truncate_schema_changes_and_versions_are_barriers() -> None:
    wider = Table("s", "t", (*T.columns, Column("c", INT)), ("id",))
    items = [
        insert(1, 1, 1),
        Change(T, Operation.TRUNCATE, None, None),
        insert(1, 2, 2),
        Change(wider, Operation.INSERT, None, (2, 2, 2, 2)),
        SchemaChange(T, wider, None),
    ]

    got = [part.item if isinstance(part, Barrier) else len(part.tables) for part in fold(batch(items))]

    assert got == [1, items[1], 1, 1, items[4]]


def test_nan_as_a_key_is_one_key() -> None:
    table = Table("s", "f", (Column("f", Type(Kind.FLOAT, bits=64)),), ("f",))
    rows = [Change(table, Operation.INSERT, None, (float(text),)) for text in ("nan", "nan")]

    assert len(only(rows).inserts) == 1
