"""Replays a stretch of the log: the pipeline itself goes back, or the changes as logged go to another sink."""

from __future__ import annotations

import hashlib
import threading
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cdcsync import mending
from cdcsync.assembly import Assembly
from cdcsync.change import Change, in_epoch
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.following import Origin
from cdcsync.lines import commit_time
from cdcsync.mapping.transform import Mapping
from cdcsync.ports import Guarantee
from cdcsync.positions import LockFile
from cdcsync.stretch import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from cdcsync.change import Batch, Position, Transaction
    from cdcsync.config import PipelineConfig
    from cdcsync.pipeline import Pipeline, Surroundings
    from cdcsync.ports import Selection, Stored, Wanted
    from cdcsync.sections import Section


@dataclass
class Count:
    """What a stretch of the log holds."""

    transactions: int = 0
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows by source table and operation."""
    first_us: int | None = None
    """Commit time of the first transaction."""
    last_us: int | None = None

    def add(self, part: Transaction) -> None:
        """Count a transaction, or a part of a large one."""
        if not part.part:
            self.transactions += 1
        self.first_us = part.commit_time_us if self.first_us is None else self.first_us
        self.last_us = part.commit_time_us
        for item in part.items:
            if isinstance(item, Change):
                counts = self.tables.setdefault(item.table.qualified, {})
                counts[item.operation.value] = counts.get(item.operation.value, 0) + 1

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> Count:
        """Return the count of all these batches."""
        count = cls()
        for part in chain.from_iterable(batch.transactions for batch in batches):
            count.add(part)
        return count

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(sum(counts.values()) for counts in self.tables.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay will do."""

    pipeline: str
    kind: str
    start: Position
    bounds: Bounds
    end_words: str
    log_words: str
    """What still has the log."""
    count: Count
    means: str
    """What it means for the target, in so many words."""

    def figures(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "pipeline": self.pipeline,
            "kind": self.kind,
            "from": self.start.encode(),
            "to": self.end_words,
            "log": self.log_words,
            "transactions": self.count.transactions,
            "rows": self.count.rows,
            "tables": self.count.tables,
            "first_commit": None if self.count.first_us is None else commit_time(self.count.first_us),
            "last_commit": None if self.count.last_us is None else commit_time(self.count.last_us),
            "means": self.means,
        }

    def lines(self) -> list[str]:
        """Return it for a person."""
        figures, count = self.figures(), self.count
        span = f"{figures['first_commit']} to {figures['last_commit']}" if count.transactions else "nothing"
        lines = [
            f"replay of {self.pipeline}: {self.kind}",
            f"  from          {figures['from']}",
            f"  up to         {self.end_words}",
            f"  log           {self.log_words}",
            f"  committed     {span}",
            f"  transactions  {count.transactions}",
        ]
        for table, counts in sorted(count.tables.items()):
            lines.append(f"  {table:<13} {', '.join(f'{number} {word}' for word, number in sorted(counts.items()))}")
        return [*lines, f"  means         {self.means}"]


class Narrowed:
    """A pipeline's tables, of them only some."""

    def __init__(self, mapping: Selection, some: Selection) -> None:
        self._mapping = mapping
        self._some = some

    def wants(self, schema: str, name: str) -> Wanted | None:
        """Return how the mapping wants the table, None when it is not among those chosen."""
        return self._mapping.wants(schema, name) if self._some.wants(schema, name) is not None else None


def origin_of(assembly: Assembly, tables: Sequence[str] = ()) -> Origin:
    """Return the pipeline's source, to be read beside it. Raises Fatal when a table is none of the pipeline's."""
    config, context = assembly.config, assembly.source_context
    if tables:
        some = Mapping.of(tables)
        there = assembly.source.tables(config.source.config, context)
        missing = some.missing(there)
        if missing or not any(some.wants(table.schema, table.name) for table in there):
            names = ", ".join(table.qualified for table in there)
            msg = f"the pipeline has no table {', '.join(tables)}"
            raise Fatal(msg, hint=f"name some of: {names}", status=ExitStatus.CONFIG)
        context = replace(context, selection=Narrowed(assembly.mapping, some))
    return Origin(config.source.system, assembly.source, config.source.config, context)


def plan_rewind(assembly: Assembly, word: str) -> Plan:
    """Return what it would mean that the pipeline goes back to the place that a word means. Raises Fatal."""
    origin, stored = origin_of(assembly), assembly.stored()
    if stored is None:
        msg = f"no position of pipeline {assembly.config.name} is stored: there is nothing to go back from"
        raise Fatal(msg, hint=f"`cdcsync run {assembly.config.name}` begins", status=ExitStatus.CONFIG)
    here = origin.place(stored.position).position
    located = origin.place(word)
    start = in_epoch(located.position, here.epoch)
    if start.covers(here):
        msg = f"{word} is not before the stored position {stored.position}: nothing would be read again"
        hint = "`cdcsync positions set` goes forward, past changes that are then not delivered"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    bounds = Bounds(start, end=here)
    return Plan(
        pipeline=assembly.config.name,
        kind="the pipeline itself goes back",
        start=start,
        bounds=bounds,
        end_words=f"its stored position {stored.position}, and on from there",
        log_words=located.words or origin.reach().words,
        count=_counted(origin, bounds),
        means=_means(assembly),
    )


def _means(assembly: Assembly) -> str:
    """Say what going back does to the target."""
    said = f"{assembly.sink.again}. New fence, same epoch: versions stay what they were"
    appended = [rule.mapping.from_ for rule in assembly.config.rules if rule.mapping.key == "none"]
    if appended:
        said += f". Tables without a key get their rows a second time: {', '.join(appended)}"
    return said


def rewind(assembly: Assembly, plan: Plan) -> list[str]:
    """Let the pipeline go back as planned; return what was done, a line each. Raises Fatal while it runs."""
    assembly.make_state()
    return [*assembly.move(plan.start), f"the stored position is {plan.start.encode()}: `cdcsync run` goes on there"]


class Outcome(NamedTuple):
    """What came of a replay to another sink."""

    over: bool
    """All of the stretch is durable there."""
    transactions: int
    changes: int


@dataclass(frozen=True, slots=True)
class Copying:
    """Changes as logged on their way to another sink."""

    plan: Plan
    origin: Origin
    target: Assembly
    """Of the same mapping with the other sink, under a name of its own."""
    resumed: Stored | None
    """Where the same replay was interrupted before."""

    def run(self, surroundings: Surroundings, guard: Callable[[Pipeline], AbstractContextManager[None]]) -> Outcome:
        """Deliver until the stretch is over, or the pipeline is stopped by what `guard` gives it to.

        Raises Fatal. What is over is forgotten; what was stopped, or killed, goes on where it was.
        """
        over = threading.Event()

        def end() -> None:
            over.set()
            pipeline.stop()

        self.target.make_state()
        pipeline = self.target.pipeline(surroundings, self.origin.stretch(self.plan.bounds, end))
        with guard(pipeline):
            pipeline.run()
        if over.is_set():
            self.target.clear()
            LockFile.at(self.target.config.state, self.target.config.name, "").path.unlink(missing_ok=True)
        return Outcome(over.is_set(), pipeline.progress.transactions, pipeline.progress.changes)


def plan_copying(assembly: Assembly, words: tuple[str, str | None], sink: Section, tables: Sequence[str]) -> Copying:
    """Return what it would mean to give a stretch of the log, from one word to another, to another sink."""
    origin = origin_of(assembly, tables)
    stored = assembly.stored()
    epoch = stored.epoch if stored else 0
    located = origin.place(words[0])
    bounds = origin.bounds(in_epoch(located.position, epoch), words[1])
    target = Assembly(_other(assembly.config, sink, bounds.start, words[1], tables), alone=True)
    _refuse_own(assembly, target)
    target.refuse_itself(target.facts())
    plan = Plan(
        pipeline=assembly.config.name,
        kind=f"the changes as logged go to {target.config.sink.system}, under the name {target.config.name}",
        start=bounds.start,
        bounds=bounds,
        end_words=_end_words(bounds, words[1]),
        log_words=located.words or origin.reach().words,
        count=_counted(origin, bounds),
        means="the other sink gets the changes through the pipeline's mapping; pipeline and position stay as they are",
    )
    return Copying(plan, origin, target, target.stored())


@dataclass(frozen=True, slots=True)
class Mending:
    """Keys that changes in the log name, whose present rows are to be written in the pipeline's own stream."""

    plan: Plan
    origin: Origin
    assembly: Assembly

    def run(self) -> tuple[int, int]:
        """Have the running pipeline read them; return how many keys, of how many tables. Raises Fatal."""
        emptied: set[str] = set()
        keys, tables = 0, set[str]()
        with closing(self.origin.between(self.plan.bounds)) as batches:
            for table, found in mending.keys_in(batches, emptied):
                mending.order(self.assembly, table, found)
                keys += len(found)
                tables.add(table)
        for table, found in mending.whole(self.assembly, sorted(emptied)):
            mending.order(self.assembly, table, found, gone=True)
            keys += len(found)
        return keys, len(tables | emptied)


def plan_mending(assembly: Assembly, words: tuple[str, str | None], tables: Sequence[str]) -> Mending:
    """Return what it would mean to write the present rows of the keys that a stretch of the log names. Raises Fatal."""
    origin = origin_of(assembly, tables)
    located = origin.place(words[0])
    stored = assembly.stored()
    bounds = origin.bounds(in_epoch(located.position, stored.epoch if stored else 0), words[1])
    plan = Plan(
        pipeline=assembly.config.name,
        kind="the present rows of the keys in it are written",
        start=bounds.start,
        bounds=bounds,
        end_words=_end_words(bounds, words[1]),
        log_words=located.words or origin.reach().words,
        count=_counted(origin, bounds),
        means="the running pipeline reads these rows at the source and writes them in its own stream; one that is gone "
        "is deleted. Nothing goes back to an older state; rows without a key are left as they are",
    )
    return Mending(plan, origin, assembly)


def _end_words(bounds: Bounds, word: str | None) -> str:
    if bounds.until_us is not None:
        return f"the first transaction committed at {word} or later"
    end = bounds.end.encode() if bounds.end is not None else ""
    return end if word else f"the end of the log now, {end}"


def _other(
    config: PipelineConfig, sink: Section, start: Position, to: str | None, tables: Sequence[str]
) -> PipelineConfig:
    """Return the pipeline with another sink; the same replay has the same name, so that it goes on where it was cut.

    It puts no dead letters aside: nobody would look for them under that name.
    """
    what = "\0".join([in_epoch(start, 0).encode(), to or "", *sorted(tables)])
    stops: Literal["stop", "skip"] = "skip" if config.on_rejected == "skip" else "stop"
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    return replace(
        config, name=f"{config.name}.replay-{digest}", sink=sink, positions=None, heartbeat_s=0.0, on_rejected=stops
    )


def _refuse_own(assembly: Assembly, target: Assembly) -> None:
    """Raise Fatal when the other sink is the pipeline's own: two would write the same rows, in two orders."""
    own, other = assembly.config.sink, target.config.sink
    if target.guarantee is Guarantee.AT_LEAST_ONCE or own.system != other.system:
        return
    places = [
        (each.sink.identity(each.config.sink.config), getattr(each.config.sink.config, "schema_", ""))
        for each in (assembly, target)
    ]
    if places[0] == places[1]:
        msg = f"--sink names the pipeline's own target {places[0][0]}"
        raise Fatal(msg, hint="to deliver there again use `--rewind`", status=ExitStatus.CONFIG)


def _counted(origin: Origin, bounds: Bounds) -> Count:
    with closing(origin.between(bounds)) as batches:
        return Count.of(batches)
