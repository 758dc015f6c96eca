"""Where to go on in topics: the next offset of each partition, and whose the topics were."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson

from cdcsync.change import value
from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Topic(NamedTuple):
    """Which topic it was whose offsets these are."""

    id: str
    """Another topic of the same name has another."""
    partitions: int
    """How many it had: with more of them, keys go to other ones."""
    by_sender: bool | None = None
    """Whether versions are those of the records' sender; None: no record was seen."""


class Place(NamedTuple):
    """Where to go on in one partition."""

    offset: int
    """The next one to read."""
    version: int = 0
    """The highest that the sender gave; 0: it gives none."""


@value
class KafkaPosition:
    """The next things to read. `last` stands for one partition's place in `places`, which others share with it."""

    epoch: int
    topics: Mapping[str, Topic]
    places: Mapping[tuple[str, int], Place] = field(hash=False)
    """By topic and partition."""
    last: tuple[tuple[str, int], Place] | None = None

    @property
    def all(self) -> dict[tuple[str, int], Place]:
        """All places."""
        places = dict(self.places)
        if self.last is not None:
            places[self.last[0]] = self.last[1]
        return places

    def part(self, lane: str) -> KafkaPosition | None:
        """Return what it says of one partition, `TOPIC/NUMBER`; None where it says nothing of it."""
        name, _, number = lane.rpartition("/")
        place = self.all.get((name, int(number)))
        return (
            None
            if place is None
            else KafkaPosition(self.epoch, {name: self.topics[name]}, {(name, int(number)): place})
        )

    def encode(self) -> str:
        """Return compact JSON: by topic its identifier, number of partitions and next offsets."""
        topics: dict[str, Any] = {}
        for name, topic in sorted(self.topics.items()):
            topics[name] = {"id": topic.id, "partitions": topic.partitions, "next": {}}
            if topic.by_sender is not None:
                topics[name]["by_sender"] = topic.by_sender
        for (name, partition), place in sorted(self.all.items()):
            topics[name]["next"][str(partition)] = [*place] if place.version else place.offset
        return orjson.dumps({"epoch": self.epoch, "topics": topics}).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the position of that text. Raises Fatal when it is none."""
        try:
            fields = orjson.loads(text)
            topics: dict[str, Topic] = {}
            places: dict[tuple[str, int], Place] = {}
            for name, said in fields["topics"].items():
                topics[name] = Topic(str(said["id"]), int(said["partitions"]), said.get("by_sender"))
                for partition, place in said["next"].items():
                    pair = place if isinstance(place, list) else [place]
                    places[name, int(partition)] = Place(*map(int, pair))
            return cls(int(fields["epoch"]), topics, places)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f"not a position in topics: {text!r}"
            raise Fatal(
                msg, hint="see it with `cdcsync positions show`, set one with `cdcsync positions set`"
            ) from error

    def covers(self, other: KafkaPosition) -> bool:
        """Return whether all before `other` lies before this position too: in every partition."""
        if self.epoch != other.epoch:
            return self.epoch > other.epoch
        mine = self.all
        return all(key in mine and mine[key].offset >= place.offset for key, place in other.all.items())


def whole(encoded: Iterable[str]) -> str:
    """Return the positions of partitions as one, in the highest of their epochs; of a topic made anew what is newer."""
    topics: dict[str, Topic] = {}
    places: dict[tuple[str, int], Place] = {}
    epoch = 0
    for each in sorted(map(KafkaPosition.decode, encoded), key=lambda position: position.epoch):
        topics |= each.topics
        places |= each.all
        epoch = each.epoch
    return KafkaPosition(epoch, topics, places).encode()
