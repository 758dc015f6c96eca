"""GTID sets and lists against plain sets of numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcsync.mysql.gtid import GtidList, GtidSet, parse

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "3e11fa47-71ca-11e1-9e33-c80aa9429563"

Plain = frozenset[tuple[str, int]]

plain_sets = st.frozensets(st.tuples(st.sampled_from([A, B]), st.integers(1, 12)))
plain_lists = st.dictionaries(st.integers(0, 2), st.tuples(st.integers(1, 2), st.integers(0, 9)))


def made(plain: Plain) -> GtidSet:
    return GtidSet.parse(",".join(f"{uuid}:{number}" for uuid, number in plain))


def plain_of(gtids: GtidSet) -> Plain:
    return frozenset(
        (uuid, number)
        for uuid, intervals in gtids.intervals().items()
        for first, last in intervals
        for number in range(first, last + 1)
    )


@given(plain_sets, plain_sets)
def test_sets_are_joined_taken_away_and_compared_as_plain_sets_are(one: Plain, other: Plain) -> None:
    ours, theirs = made(one), made(other)

    assert plain_of(ours.union(theirs)) == one | other
    assert plain_of(ours.subtract(theirs)) == one - other
    assert ours.covers(theirs) is (one >= other)
    assert (ours == theirs) is (one == other)
    assert bool(ours) is bool(one)


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 12))), plain_sets)
def test_transactions_added_in_any_order_are_in_the_set_and_the_set_before_has_not_changed(
    added: list[tuple[str, int]], start: Plain
) -> None:
    got, seen, want = made(start), [(made(start), start)], set(start)
    for uuid, number in added:
        got = got.with_one(uuid, number)
        want.add((uuid, number))
        seen.append((got, frozenset(want)))

    for value, plain in seen:
        assert plain_of(value) == plain
        assert value == made(plain)
        assert all(gtid in value for gtid in plain)


@given(plain_sets)
def test_a_set_survives_its_text_in_its_shortest_form(plain: Plain) -> None:
    gtids = made(plain)

    assert GtidSet.parse(str(gtids)) == gtids
    for intervals in gtids.intervals().values():
        assert all(after[0] > before[1] + 1 for before, after in pairwise(intervals))


def test_a_uuid_that_only_the_left_set_has_stays_when_another_is_taken_away() -> None:
    got = GtidSet.parse(f"{A}:1-5,{B}:1-3").subtract(GtidSet.parse(f"{B}:2"))

    assert str(got) == f"{A}:1-5,{B}:1:3"


def test_text_is_taken_as_a_server_writes_it() -> None:
    assert str(parse(f"{A.upper()}:1-5:7,\n{B}:3")) == f"{A}:1-5:7,{B}:3"
    assert str(parse(f"{A}:6-7:1-5")) == f"{A}:1-7"
    assert str(parse(A.replace("-", "") + ":1")) == f"{A}:1"
    assert str(parse("2-3-7,0-1-100")) == "0-1-100,2-3-7"
    assert not parse("")


@pytest.mark.parametrize(
    "text",
    ["x", A, f"{A}:", f"{A}:0", f"{A}:5-1", f"{A}:1-", "0-1", "0-1-2,0-2-3", "0-1-x", f"0-1-2,{A}:1", f"{A}:{1 << 63}"],
)
def test_what_is_no_gtid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"GTID|domain 0 is named twice|numbers begin at 1"):
        parse(text)


def test_a_tagged_gtid_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="tagged GTIDs are not read yet"):
        parse(f"{A}:blue:1-5")


@given(plain_lists, plain_lists)
def test_lists_are_compared_domain_by_domain(
    one: dict[int, tuple[int, int]], other: dict[int, tuple[int, int]]
) -> None:
    ours, theirs = GtidList(one), GtidList(other)

    want = all(domain in one and one[domain][1] >= number for domain, (_, number) in other.items())
    both = ours.union(theirs)

    assert ours.covers(theirs) is want
    assert both.covers(ours)
    assert both.covers(theirs)
    assert set(both.domains().items()) <= {*one.items(), *other.items()}
    assert set(ours.subtract(theirs).domains()) == {
        domain for domain, (_, number) in one.items() if number > other.get(domain, (0, -1))[1]
    }


@given(plain_lists, st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 9))))
def test_a_list_holds_the_last_transaction_of_each_domain(
    start: dict[int, tuple[int, int]], added: list[tuple[int, int, int]]
) -> None:
    got, want = GtidList(start), dict(start)
    for domain, server, number in added:
        before = str(got)
        after = got.with_one(domain, server, number)
        want[domain] = server, number
        assert str(got) == before
        got = after

    assert got.domains() == want
    assert GtidList.parse(str(got)) == got


def test_of_a_binlog_state_the_highest_number_of_each_domain_counts() -> None:
    assert str(GtidList.last_of("0-1-5,0-2-7,0-3-6,1-1-2")) == "0-2-7,1-1-2"
