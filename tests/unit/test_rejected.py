"""Dead letters: idempotent, durable, healed by what comes later."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from cdcsync.change import UNCHANGED, Batch, Change, Column, Operation, Table, Transaction
from cdcsync.errors import Fatal, Transient
from cdcsync.rejected import DeadLetters, Letter
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from pathlib import Path

TABLE = Table("shop", "t", (Column("id", Type(Kind.INTEGER, bits=32)), Column("note", Type(Kind.TEXT))), ("id",))


def batch(version: int, *changes: Change) -> Batch:
    position = MemoryPosition(1, version)
    transaction = Transaction(str(version), 0, position, version, changes, range(len(changes)))
    return Batch((transaction,), position, len(changes), 1)


def insert(number: int, note: str = "secret") -> Change:
    return Change(TABLE, Operation.INSERT, None, (number, note))


def partial(number: int) -> Change:
    return Change(TABLE, Operation.UPDATE, (number, UNCHANGED), (number, UNCHANGED))


def letters_in(path: Path) -> DeadLetters:
    letters = DeadLetters(path, "orders")
    letters.open()
    return letters


def park(letters: DeadLetters, given: Batch, index: int = 0) -> None:
    letters.store([Letter.of("orders", given.transactions[0], index, "too wide")])


def test_a_letter_stored_twice_is_stored_once_and_survives(tmp_path: Path) -> None:
    letters = letters_in(tmp_path)
    park(letters, batch(5, insert(1)))
    park(letters, batch(5, insert(1)))
    letters.close()

    (got,) = letters_in(tmp_path).list()

    assert (got.target, got.reason, got.version) == ("shop.t", "too wide", 5)
    assert "secret" not in str(got.summary())
    assert got.content()["after"] == {"id": 1, "note": "secret"}
    assert stat.S_IMODE((tmp_path / "rejected.db").stat().st_mode) == 0o600


def test_a_partial_change_of_a_parked_key_joins_it_even_after_a_restart(tmp_path: Path) -> None:
    letters = letters_in(tmp_path)
    park(letters, batch(5, insert(1)))
    letters.close()
    letters = letters_in(tmp_path)

    assert letters.parked(batch(6, partial(2), partial(1))) == [(0, 1)]
    assert letters.parked(batch(6, insert(1), partial(1))) == []
    assert letters.parked(batch(4, partial(1))) == []


@pytest.mark.parametrize(
    "later",
    [
        insert(1),
        Change(TABLE, Operation.DELETE, (1, UNCHANGED), None),
        Change(TABLE, Operation.UPDATE, (1, UNCHANGED), (2, "moved")),
        Change(TABLE, Operation.TRUNCATE, None, None),
    ],
)
def test_a_later_complete_row_delete_or_truncate_heals(tmp_path: Path, later: Change) -> None:
    letters = letters_in(tmp_path)
    park(letters, batch(5, insert(1)))

    letters.heal(batch(6, later))

    assert letters.is_empty
    assert letters.list() == []
    assert [each.healed for each in letters.list(healed=True)] == [True]


@pytest.mark.parametrize("other", [batch(4, insert(1)), batch(6, insert(2)), batch(6, partial(1))])
def test_earlier_rows_other_keys_and_partial_rows_do_not_heal(tmp_path: Path, other: Batch) -> None:
    letters = letters_in(tmp_path)
    park(letters, batch(5, insert(1)))

    letters.heal(other)

    assert len(letters.list()) == 1


def test_a_rejected_change_is_not_healed_by_an_earlier_one_of_its_own_batch(tmp_path: Path) -> None:
    letters = letters_in(tmp_path)
    given = batch(5, insert(1), insert(1, "bad"))
    park(letters, given, 1)

    letters.heal(batch(5, insert(1)))

    assert letters.count() == 1


def test_nothing_parked_makes_no_file(tmp_path: Path) -> None:
    letters = letters_in(tmp_path)

    assert letters.parked(batch(1, partial(1))) == []
    letters.heal(batch(1, insert(1)))

    assert list(tmp_path.iterdir()) == []


def test_letters_are_dropped_by_number(tmp_path: Path) -> None:
    letters = letters_in(tmp_path)
    park(letters, batch(5, insert(1)))
    park(letters, batch(6, insert(2)))

    assert letters.drop([1]) == 1
    assert [each.id for each in letters.list()] == [2]
    with pytest.raises(Fatal, match="no dead letter 1"):
        letters.show(1)


def test_a_state_directory_that_is_away_is_transient(tmp_path: Path) -> None:
    with pytest.raises(Transient):
        park(DeadLetters(tmp_path / "missing", "orders"), batch(5, insert(1)))
