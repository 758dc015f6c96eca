"""Where a source of topics begins, and whether it can go on where it was: a gap is never passed over in silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.kafka import topics
from cdcsync.kafka.position import KafkaPosition, Place, Topic
from cdcsync.kafka.source_config import FromTime, OnLostPosition, Versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Consumer

    from cdcsync.kafka.source_config import KafkaSource
    from cdcsync.ports import SourceContext

    Partition = tuple[str, int]

LOST_HINT: Final = (
    "what was there is gone: raise the topic's retention.ms; to go on with what is left, in a new epoch, set "
    "`on_lost_position: earliest`, and know that the target lacks what lies between"
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What of the topics this source reads."""

    found: Mapping[str, Topic]
    lane: Partition | None = None
    """One partition alone; None: all."""

    def partitions(self, counts: Mapping[str, Topic] | None = None) -> list[Partition]:
        """Return the partitions, as many as these topics have."""
        if self.lane is not None:
            return [self.lane]
        return [(name, at) for name, topic in (counts or self.found).items() for at in range(topic.partitions)]


@dataclass(frozen=True, slots=True)
class Begin:
    """Where to read from."""

    here: KafkaPosition
    fresh: bool = False
    """It is to be stored before anything is read."""
    ends: Mapping[Partition, int] = field(default_factory=dict)
    """Partitions were added: the old ones are read up to here before the new ones, as keys have moved."""


def first(consumer: Consumer, config: KafkaSource, context: SourceContext, chosen: Chosen, epoch: int) -> Begin:
    """Return where to begin with nothing stored. Raises Fatal when the group was told offsets: the position is lost."""
    partitions = chosen.partitions()
    group = config.group_of(context.pipeline)
    told = topics.told(consumer, partitions, group)
    if told:
        (name, number), (offset, _) = min(told.items())
        msg = (
            f"no position of pipeline {context.pipeline} is stored, though it has read {name}-{number} up to {offset}, "
            f"as group {group} was told"
        )
        hint = (
            f"bring the stored position back; or begin anew: `cdcsync drop {context.pipeline}` forgets the group too, "
            "then empty the target"
        )
        raise Fatal(msg, hint=hint)
    bounds = topics.ends(consumer, partitions)
    if isinstance(config.start, FromTime):
        offsets = topics.at_time(consumer, partitions, int(config.start.time.timestamp() * 1000))
        places = {key: Place(bounds[key][1] if offsets[key] < 0 else offsets[key]) for key in partitions}
    else:
        at = 1 if config.start == "now" else 0
        places = {key: Place(bounds[key][at]) for key in partitions}
    return Begin(KafkaPosition(epoch, _of(chosen), places), fresh=True)


def at_end(chosen: Chosen, bounds: Mapping[Partition, tuple[int, int]], config: KafkaSource) -> Begin:
    """Return where a reader begins that is nobody's pipeline."""
    at = 0 if config.start == "earliest" else 1
    return Begin(KafkaPosition(1, _of(chosen), {key: Place(bound[at]) for key, bound in bounds.items()}))


def again(consumer: Consumer, config: KafkaSource, stored: KafkaPosition, chosen: Chosen, epoch: int) -> Begin:
    """Return where to go on. Raises Fatal for a gap, unless the configuration says to pass over it."""
    judge = _Judge(config, stored)
    known, places = dict(stored.topics), stored.all
    if chosen.lane is not None:
        known = {name: topic for name, topic in known.items() if name == chosen.lane[0]}
    for name, topic in known.copy().items():
        if name not in chosen.found:
            judge.lose(f"topic {name} is gone")
            places = {key: place for key, place in places.items() if key[0] != name}
            del known[name]
        elif chosen.found[name].id != topic.id or chosen.found[name].partitions < topic.partitions:
            judge.lose(f"topic {name} is another one than that which was read: it was deleted and made again")
            places = {key: place for key, place in places.items() if key[0] != name}
            del known[name]
    grown = [name for name, topic in known.items() if topic.partitions < chosen.found[name].partitions]
    new = [name for name in chosen.found if name not in known]
    known |= {name: chosen.found[name] for name in new}
    bounds = topics.ends(consumer, chosen.partitions(known))
    for key, (low, high) in bounds.items():
        places[key] = judge.place(key, places.get(key), low, high)
    moved = judge.lost + _decided(config, known)
    if chosen.lane is not None and grown:
        known = {name: topic._replace(partitions=chosen.found[name].partitions) for name, topic in known.items()}
        moved += 1
    here = KafkaPosition(max(epoch, stored.epoch) + min(1, moved), known, {key: places[key] for key in bounds})
    old = {key: high for key, (_, high) in bounds.items() if key[0] in grown} if chosen.lane is None else {}
    return Begin(here, fresh=bool(moved or new), ends=old)


def grown(consumer: Consumer, here: KafkaPosition, found: Mapping[str, Topic]) -> KafkaPosition:
    """Return the position with the partitions that were added, in a new epoch: keys have moved between them."""
    known = {name: topic._replace(partitions=found[name].partitions) for name, topic in here.topics.items()}
    new = [key for key in Chosen(known).partitions() if key not in here.places]
    lows = {key: Place(low) for key, (low, _) in topics.ends(consumer, new).items()}
    lost = [key for key, place in lows.items() if place.offset]
    if lost:
        msg = f"{lost[0][0]}-{lost[0][1]} was added, and its first records are gone already"
        raise Fatal(msg, hint=LOST_HINT)
    return KafkaPosition(here.epoch + 1, known, {**here.all, **lows})


class _Judge:
    """Counts what is lost, or stops at it."""

    def __init__(self, config: KafkaSource, stored: KafkaPosition) -> None:
        self._config = config
        self._stored = stored
        self.lost = 0

    def lose(self, what: str) -> None:
        """Raise Fatal, or note in the log that it was passed over."""
        if self._config.on_lost_position is OnLostPosition.STOP:
            raise Fatal(what, hint=LOST_HINT)
        self.lost += 1
        structlog.get_logger().warning("lost position, going on with what is left", said=what)

    def place(self, key: Partition, place: Place | None, low: int, high: int) -> Place:
        """Return where to go on in a partition."""
        if place is None:
            return Place(low)
        name = f"{key[0]}-{key[1]}"
        if place.offset < low:
            self.lose(f"{name} begins at {low}, and {place.offset} would have come next")
            return Place(low)
        if place.offset > high:
            self.lose(f"{name} ends at {high}, before {place.offset}, which would have come next")
            return Place(low)
        return place


def _of(chosen: Chosen) -> dict[str, Topic]:
    return {chosen.lane[0]: chosen.found[chosen.lane[0]]} if chosen.lane is not None else dict(chosen.found)


def _decided(config: KafkaSource, known: dict[str, Topic]) -> int:
    """Take offsets as versions where the configuration says so now; return how many topics that is new for."""
    if config.versions is not Versions.OFFSET:
        return 0
    changed = [name for name, topic in known.items() if topic.by_sender]
    for name in changed:
        known[name] = known[name]._replace(by_sender=False)
    return len(changed)


def refuse_behind(told: Mapping[Partition, tuple[int, int]], here: KafkaPosition, pipeline: str) -> None:
    """Raise Fatal when the stored position lies before what the pipeline had told its group in the same epoch."""
    for key, (offset, epoch) in sorted(told.items()):
        place = here.places.get(key)
        if place is not None and epoch == here.epoch and place.offset < offset:
            msg = f"the stored position of pipeline {pipeline} lies at {place.offset} of {key[0]}-{key[1]}, and was at {offset}"
            raise Fatal(
                msg,
                hint="the target or the store was brought back to an older state: if that is meant, say so with "
                f"`cdcsync positions set {pipeline}`",
                status=ExitStatus.DATA,
            )
