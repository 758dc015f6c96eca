"""Positions in topics: what they say, and which lies before which."""

from __future__ import annotations

import pytest

from cdcsync.change import in_epoch
from cdcsync.errors import Fatal
from cdcsync.kafka.position import KafkaPosition, Place, Topic, whole

TOPICS = {"shop.orders": Topic("dGhlIGlk", 2, by_sender=True), "words": Topic("b3RoZXI", 1)}


def at(first: int, second: int, epoch: int = 1, word: int = 7) -> KafkaPosition:
    places = {("shop.orders", 0): Place(first, 99), ("shop.orders", 1): Place(second), ("words", 0): Place(word)}
    return KafkaPosition(epoch, TOPICS, places)


def test_what_is_encoded_is_decoded() -> None:
    one = at(1, 2)

    assert KafkaPosition.decode(one.encode()) == one
    assert '"next":{"0":[1,99],"1":2}' in one.encode()


def test_a_place_that_moved_stands_for_the_shared_one() -> None:
    moved = KafkaPosition(1, TOPICS, at(1, 2).places, (("shop.orders", 1), Place(5)))

    assert moved.encode() == at(1, 5).encode()
    assert moved.covers(at(1, 2))
    assert not at(1, 2).covers(moved)


def test_a_position_covers_another_in_every_partition() -> None:
    assert at(2, 2).covers(at(1, 2))
    assert not at(2, 1).covers(at(1, 2))
    assert not at(1, 2).covers(at(2, 1))
    assert at(0, 0, epoch=2).covers(at(5, 5))
    assert not at(5, 5).covers(at(0, 0, epoch=2))


def test_a_position_without_a_partition_does_not_cover_it() -> None:
    fewer = KafkaPosition(1, {"words": TOPICS["words"]}, {("words", 0): Place(9)})

    assert at(1, 1).covers(KafkaPosition(1, fewer.topics, {("words", 0): Place(7)}))
    assert not fewer.covers(at(1, 1))


def test_the_same_place_in_a_later_epoch_covers_it() -> None:
    assert in_epoch(at(1, 1), 3).covers(at(1, 1))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"epoch":1,"topics":{"a":{"id":"x","partitions":1,"next":{"0":"y"}}}}']
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(Fatal, match="not a position in topics"):
        KafkaPosition.decode(text)


def test_the_position_of_a_group_is_that_of_its_lanes_and_each_has_its_part() -> None:
    lanes = [
        KafkaPosition(epoch, {name: Topic("id", 2)}, {(name, number): Place(offset)})
        for epoch, name, number, offset in ((1, "a", 0, 5), (3, "a", 1, 7), (2, "b.c", 0, 9))
    ]

    got = KafkaPosition.decode(whole(each.encode() for each in lanes))

    assert got.epoch == 3
    assert got.all == {("a", 0): Place(5), ("a", 1): Place(7), ("b.c", 0): Place(9)}
    part = got.part("b.c/0")
    assert part is not None
    assert (part.epoch, dict(part.topics), part.all) == (3, {"b.c": Topic("id", 2)}, {("b.c", 0): Place(9)})
    assert got.part("b.c/1") is None
