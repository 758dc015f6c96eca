"""Positions in PostgreSQL's log."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from cdcsync.errors import Fatal
from cdcsync.pending import Pending
from cdcsync.postgres.position import PostgresPosition, Within, format_lsn, parse_lsn

PENDING = Pending(1, "public.t", ("id",), ("17",), 16)


def at(lsn: int, copying: int | None = None, within: Within | None = None, epoch: int = 1) -> PostgresPosition:
    return PostgresPosition(epoch, "7", 1, lsn, "s", copying, within)


def test_positions_are_ordered_copy_first_then_the_log_and_inside_a_transaction() -> None:
    order = [
        at(0, copying=0),
        at(0, copying=3),
        at(100),
        replace(at(100), reads=1, pending=(PENDING,)),
        replace(at(100), reads=2),
        at(100, within=Within(5, 150, 10, 1)),
        at(100, within=Within(5, 150, 20, 1)),
        at(160),
        at(100, epoch=2),
    ]

    for lower, higher in pairwise(order):
        assert higher.covers(lower)
        assert not lower.covers(higher)
        assert lower.covers(lower)


@pytest.mark.parametrize(
    "position",
    [
        at(0x16B374D848),
        at(1, copying=2),
        at(9, within=Within(5, 6, 7, 8)),
        replace(at(9), reads=4, pending=(PENDING,)),
    ],
    ids=["log", "copy", "within", "pending"],
)
def test_a_position_survives_its_text(position: PostgresPosition) -> None:
    assert PostgresPosition.decode(position.encode()) == position


@pytest.mark.parametrize("text", ["", "{}", "null", "[1]", '{"lsn": 5}', '{"lsn": "x/y"}'])
def test_what_is_no_position_is_fatal(text: str) -> None:
    with pytest.raises(Fatal, match="not a position"):
        PostgresPosition.decode(text)


def test_an_lsn_is_written_as_postgresql_does() -> None:
    assert format_lsn(parse_lsn("16/B374D848")) == "16/B374D848"
