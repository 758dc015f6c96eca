"""Positions in a binlog."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from cdcsync.change import pack_version
from cdcsync.errors import Fatal
from cdcsync.mysql.gtid import GtidList, GtidSet
from cdcsync.mysql.position import MysqlPosition, Prepared, Within, version_of
from cdcsync.mysql.retention import Age

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


def at(file: int, offset: int, within: Within | None = None, epoch: int = 1) -> MysqlPosition:
    return MysqlPosition(epoch, A, f"binlog.{file:06}", offset, GtidSet.parse(f"{A}:1-5"), within=within)


def test_positions_are_ordered_by_file_offset_and_rows_inside_a_transaction() -> None:
    order = [
        MysqlPosition(1, A, "", 0),
        at(9, 400),
        at(9, 400, Within(f"{A}:6", 10, 1)),
        at(9, 400, Within(f"{A}:6", 20, 1)),
        at(9, 1000),
        at(10, 4),
        at(999999, 4),
        at(1000000, 4),
        at(1, 4, epoch=2),
    ]

    for lower, higher in pairwise(order):
        assert higher.covers(lower)
        assert not lower.covers(higher)
        assert lower.covers(lower)


@pytest.mark.parametrize(
    "position",
    [
        at(1, 4),
        replace(at(1, 4), gtids=None),
        replace(at(1, 4), gtids=GtidSet()),
        replace(at(1, 4), gtids=GtidList()),
        replace(at(1, 4), gtids=GtidList.parse("0-1-100,2-3-7"), born=1764000000),
        at(3, 7, Within(f"{A}:6", 7, 8)),
        replace(at(3, 7), prepared=(Prepared("X'61',X'',1", "binlog.000002", 1234),)),
    ],
    ids=["set", "none", "empty set", "empty list", "list", "within", "prepared"],
)
def test_a_position_survives_its_text(position: MysqlPosition) -> None:
    got = MysqlPosition.decode(position.encode())

    assert got == position
    assert type(got.gtids) is type(position.gtids)


@pytest.mark.parametrize(
    "text", ["", "{}", "null", "[1]", '{"file": 5}', at(1, 4).encode().replace("binlog.", "binlog")]
)
def test_what_is_no_position_is_fatal(text: str) -> None:
    with pytest.raises(Fatal, match="not a position in a binlog"):
        MysqlPosition.decode(text)


def test_a_position_moves_within_its_file_and_leaves_the_transaction() -> None:
    before = replace(
        at(3, 7, Within(f"{A}:6", 7, 8)), prepared=(Prepared("X'61',X'',1", "binlog.000002", 1234),), born=9
    )

    got = before.moved(500, GtidSet.parse(f"{A}:1-6"))

    assert got == replace(before, offset=500, gtids=GtidSet.parse(f"{A}:1-6"), within=None)


def test_versions_follow_the_log_over_files_and_epochs() -> None:
    places = [
        (1, "b.000001", 4),
        (1, "b.000001", (1 << 33) - 1),
        (1, "b.000002", 4),
        (1, "b.1048575", 4),
        (2, "b.000001", 4),
    ]

    got = [version_of(*place) for place in places]

    assert got == sorted(set(got))
    assert version_of(1, "b.000001", 1000) == version_of(1, "b.000001", 0) + 1000
    assert got[0] == pack_version(1, (1 << 33) + 4)


@pytest.mark.parametrize(("file", "offset"), [("b.1048576", 4), ("b.000001", 1 << 33)])
def test_a_version_that_does_not_fit_is_fatal(file: str, offset: int) -> None:
    with pytest.raises(Fatal, match="version overflow"):
        version_of(1, file, offset)


@pytest.mark.parametrize(
    ("ended_s", "kept_s", "near", "words"),
    [
        (0.0, 10.0, False, "written now"),
        (4.0, 10.0, False, "may be removed in 6 s"),
        (6.0, 10.0, True, "may be removed in 4 s"),
        (86400.0 * 3, 86400.0 * 2, True, "ended 3.0 days ago"),
        (86400.0 * 3, 0.0, False, "kept for ever"),
    ],
)
def test_a_position_nears_its_end_past_half_of_what_the_log_is_kept(
    ended_s: float, kept_s: float, near: bool, words: str
) -> None:
    age = Age("binlog.000001", ended_s, kept_s)

    assert age.is_near is near
    assert words in age.words


def test_a_copy_lies_before_the_log_that_it_leads_to() -> None:
    begun, going = (MysqlPosition(2, A, "", 0, copying=count) for count in (0, 3))

    assert MysqlPosition.decode(begun.encode()) == begun
    assert going.covers(begun)
    assert not begun.covers(going)
    assert at(1, 4, epoch=2).covers(going)
    assert not going.covers(at(1, 4, epoch=2))
    assert going.covers(at(9, 4, epoch=1))
