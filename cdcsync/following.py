"""Changes as an iterator, for programs: no sink, and nothing left behind at the source."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from cdcsync import config, folders, sections
from cdcsync.change import in_epoch
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mapping.transform import Mapping
from cdcsync.ports import SourceContext
from cdcsync.reader import Limits, Reader
from cdcsync.stretch import Bounds, Stretch
from cdcsync.units import is_moment, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from pydantic import BaseModel

    from cdcsync.change import Batch, Position
    from cdcsync.connectors import Log, Reach, SourceSpec
    from cdcsync.ports import Source
    from cdcsync.redo import Dialect

WAIT_S: Final = 0.5
ALL_TABLES: Final = ("*.*",)
EARLIEST: Final = "earliest"


def stream(url: str, tables: Sequence[str] = ()) -> Generator[Batch, None, None]:
    """Yield what is committed from now on in these tables (all when none is named), as long as you ask.

    `tables` are as in a pipeline's file: `schema.name`, a glob, or a /regex/. A batch is acknowledged when the next
    is asked for. Raises Fatal, and Transient when the connection is lost: what came meanwhile cannot be had again.
    """
    return Origin.of_url(url, tables).live()


def of_pipeline(name_or_path: str, tables: Sequence[str] = ()) -> Generator[Batch, None, None]:
    """Yield as `stream` does from a pipeline's source; absent `tables`, those that its mapping takes."""
    return Origin.of_pipeline(name_or_path, tables).live()


@dataclass(frozen=True, slots=True)
class Located:
    """A place in the log, found by a word."""

    position: Position
    words: str = ""
    """What has the log, for a person."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A source to be read beside whatever pipeline it has."""

    system: str
    spec: SourceSpec
    section: BaseModel
    context: SourceContext

    @classmethod
    def of_url(cls, url: str, tables: Sequence[str] = ()) -> Origin:
        """Return the source of a URL. Raises Fatal with CONFIG when it is none."""
        scheme = sections.SCHEME.match(url)
        connector = sections.by_scheme(scheme[1]) if scheme else None
        if connector is None or connector.from_url is None or connector.source is None:
            hint = "write one such as postgres://me@db/shop"
            raise Fatal("not the URL of a source", hint=hint, status=ExitStatus.CONFIG)
        given = connector.from_url(url)
        if "start" in connector.source.config.model_fields:
            given.setdefault("start", "now")
        section = connector.source.config.model_validate(given)
        context = SourceContext("stream", Mapping.of(tables or ALL_TABLES), folders.state("stream", os.environ, None))
        return cls(connector.name, connector.source, section, context)

    @classmethod
    def of_pipeline(cls, name_or_path: str, tables: Sequence[str] = ()) -> Origin:
        """Return the source of a pipeline; absent `tables`, with those that its mapping takes."""
        loaded = config.load(name_or_path)
        spec = loaded.source.connector.source
        assert spec is not None  # noqa: S101  the config took the section for this role
        selection = Mapping.of(tables) if tables else Mapping(loaded.rules, loaded.secrets)
        return cls(
            loaded.source.system, spec, loaded.source.config, SourceContext(loaded.name, selection, loaded.state)
        )

    @property
    def log(self) -> Log:
        """How its log is read again. Raises Fatal when it cannot be."""
        if self.spec.log is None:
            msg = f"what {self.system} has logged cannot be read again beside a pipeline"
            raise Fatal(msg, hint="leave `--from` out to see what happens from now on", status=ExitStatus.CONFIG)
        return self.spec.log

    def live(self) -> Generator[Batch, None, None]:
        """Yield what is committed from now on."""
        if self.spec.tail is None:
            msg = f"{self.system} cannot be followed without leaving something behind"
            raise Fatal(msg, hint="run a pipeline with the jsonl sink", status=ExitStatus.CONFIG)
        return _batches(self.spec.tail(self.section, self.context), None, lambda _position: False)

    def between(self, bounds: Bounds) -> Generator[Batch, None, None]:
        """Yield what the log has within bounds, and end there; with no end, go on with what is committed."""
        stretch = self.stretch(bounds)
        return _batches(stretch, bounds.start.encode(), stretch.ended_at)

    def stretch(self, bounds: Bounds, over: Callable[[], None] = lambda: None) -> Stretch:
        """Return a source that gives what lies within bounds, and calls `over` when all of it is acknowledged."""
        return Stretch(self.log.make(self.section, self.context), bounds, self.spec.decode, over)

    def reach(self) -> Reach:
        """Return how far the log can be read. Raises Fatal when it cannot be at all."""
        return self.log.reach(self.section, self.context)

    def locate(self, word: str) -> Located:
        """Find the place that a word means: a time, `earliest`, or what the system takes for a position.

        Raises Fatal when it is none, lies in the future or before what is still there.
        """
        if is_moment(word):
            return self._at_time(word)
        if word == EARLIEST:
            reach = self.reach()
            return Located(self.spec.decode(reach.first), reach.words)
        if self.spec.stored is None:
            return Located(self.spec.decode(word))
        return Located(self.spec.decode(self.spec.stored(self.section, self.context, word)))

    def bounds(self, start: Position, word: str | None, *, ends: bool = True) -> Bounds:
        """Return the bounds from a place to what a word means; without one to the end of the log now, if it `ends`.

        Raises Fatal when nothing lies between.
        """
        if word is None and not ends:
            return Bounds(start)
        if word is None or is_moment(word):
            last = in_epoch(self.spec.decode(self.reach().last), start.epoch)
            return Bounds(start, last, time_of(word) if word else None)
        end = in_epoch(self.place(word).position, start.epoch)
        if start.covers(end):
            msg = f"`--to` {word} is not after `--from`: nothing lies between"
            hint = "`--to` names the first place that is not wanted any more"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
        return Bounds(start, end)

    @property
    def dialect(self) -> Dialect:
        """How its changes are written as SQL. Raises Fatal when it has no SQL."""
        if self.spec.dialect is None:
            msg = f"{self.system} has no SQL of its own to write changes in"
            raise Fatal(msg, hint="use `--format json`", status=ExitStatus.CONFIG)
        return self.spec.dialect

    def exact(self) -> Origin:
        """Return the same source, read as exactly as its SQL writes it."""
        return replace(self, section=self.dialect.exactly(self.section))

    def place(self, word: str) -> Located:
        """Find the place as `locate` does, so named that it can be compared with others of this log."""
        found = self.locate(word)
        if self.log.placed is None:
            return found
        return replace(found, position=self.spec.decode(self.log.placed(self.section, self.context, found.position)))

    def _at_time(self, word: str) -> Located:
        """Find the first transaction that was committed at that time or later, where need be by reading the log."""
        time_us, reach = time_of(word), self.reach()
        if self.log.at_time is not None:
            found = self.log.at_time(self.section, self.context, time_us)
            return Located(self.spec.decode(found), reach.words)
        start = self.spec.decode(reach.first)
        bounds = Bounds(start, end=self.spec.decode(reach.last))
        position, earlier = start, False
        with closing(self.between(bounds)) as batches:
            for transaction in chain.from_iterable(batch.transactions for batch in batches):
                if transaction.part == 0 and transaction.commit_time_us >= time_us:
                    if not earlier:
                        raise _unproved(word, reach)
                    return Located(position, reach.words)
                position, earlier = transaction.position, True
        msg = f"nothing in the log was committed at {word} or later"
        raise Fatal(msg, hint="a time without a zone is taken as UTC; see what is there with `cdcsync tail`")


def time_of(word: str) -> int:
    """Return microseconds since 1970 UTC. Raises Fatal with CONFIG."""
    try:
        return moment(word)
    except ValueError as error:
        msg = f"{word!r} is {error}"
        raise Fatal(msg, hint="for example 2026-11-24T10:00:00Z", status=ExitStatus.CONFIG) from error


def _unproved(word: str, reach: Reach) -> Fatal:
    msg = f"the log may no longer be there from {word} on: {reach.words}, and the first transaction there is later"
    hint = "`earliest` begins with that one; a position begins anywhere after it"
    return Fatal(msg, hint=hint)


def _batches(source: Source, start: str | None, ended_at: Callable[[Position], bool]) -> Generator[Batch, None, None]:
    """Read on a thread of its own, so that the server hears of us however slowly the batches are asked for."""
    reader = Reader(source, Limits())
    reader.start(start, 0)
    try:
        while True:
            batch = reader.take(WAIT_S)
            if batch is None:
                continue
            if batch.changes:
                yield batch
            reader.acknowledge(batch.position)
            if ended_at(batch.position):
                return
    finally:
        reader.stop()
