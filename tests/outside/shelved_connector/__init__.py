"""A connector outside the tree: rows and position in one file of Python's pickle, replaced as a whole.

It imports what cdcsync shows to third parties and nothing else: the nouns, ports, errors, the lock file, folding.
"""

from __future__ import annotations

import os
import pickle
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cdcsync.change import Batch, CopyStart, SchemaChange
from cdcsync.connectors import Connector, Finding, Severity, SinkSpec, StoreSpec
from cdcsync.errors import Fatal, Rejected
from cdcsync.folding import Barrier, Effect, TableEffects, complete, fold, merged, refs_of
from cdcsync.ports import Guarantee, PositionStore, Sink, SinkContext, Stored
from cdcsync.positions import LockFile, fence_lost

if TYPE_CHECKING:
    from cdcsync.change import Position


class ShelvedConfig(BaseModel):
    """One file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: Path


@dataclass
class Content:
    """All that the file holds."""

    rows: dict[str, dict[Any, Any]] = field(default_factory=dict)
    appended: dict[str, list[Any]] = field(default_factory=dict)
    stored: Stored | None = None
    epoch: int = 0
    fence: int = 0


def read(path: Path) -> Content:
    """Return what the file holds."""
    if not path.exists():
        return Content()
    content: Content = pickle.loads(path.read_bytes())
    return content


def replace(path: Path, content: Content) -> None:
    """Put new content in place, durably, as a whole."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        pickle.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


class ShelvedStore:
    """The position, in the same file."""

    def __init__(self, config: ShelvedConfig, context: SinkContext, *, kept: bool = False) -> None:
        self.path = config.path
        self._context = context
        self._kept = kept
        self._fence = 0
        self._lock: LockFile | None = None

    def open(self, lane: str) -> None:
        """Take the lock and, once, the fence."""
        self._lock = self._lock or LockFile.at(self._context.state, self._context.pipeline, lane)
        self._lock.acquire()
        content = read(self.path)
        if not self._fence:
            content.fence += 1
            self._fence = content.fence
            replace(self.path, content)
        self.check(content)

    def check(self, content: Content) -> None:
        """Raise Fatal when the fence is lost."""
        if content.fence != self._fence:
            raise fence_lost(self._context.pipeline, None)

    def load(self) -> Stored | None:
        """Return what is stored, to the one whose fence it is."""
        content = read(self.path)
        if self._fence:
            self.check(content)
        return content.stored

    def save(self, position: Position) -> None:
        """Store on condition of the fence."""
        if not self._kept:
            self.commit(read(self.path), position)

    def commit(self, content: Content, position: Position) -> None:
        """Store content and position together."""
        self.check(read(self.path))
        content.stored = Stored(position.encode(), position.epoch)
        content.epoch = position.epoch
        replace(self.path, content)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()


class ShelvedSink:
    """Folds a batch and puts the file in place with its position."""

    guarantee = Guarantee.EXACTLY_ONCE

    def __init__(self, config: ShelvedConfig, context: SinkContext) -> None:
        self._store = ShelvedStore(config, context, kept=True)
        self._open: Content | None = None

    def positions(self) -> ShelvedStore:
        """Return the store that shares the fence."""
        return self._store

    def open(self) -> int:
        """Return the epoch."""
        return read(self._store.path).epoch

    def write(self, batch: Batch) -> Position | None:
        """Write; a part is kept in memory until its transaction is complete."""
        stored = self._store.load()
        copies = any(isinstance(item, CopyStart) for each in batch.transactions for item in each.items)
        if stored is not None and stored.position == batch.position.encode() and not copies:
            return batch.position
        first = batch.transactions[0] if batch.transactions else None
        begun = self._open if first is not None and first.part else None
        content = deepcopy(begun or read(self._store.path))
        reasons: dict[tuple[int, int], str] = {}
        for part in fold(batch):
            if isinstance(part, Barrier):
                passed(content, part)
            else:
                for effects in part.tables:
                    reasons |= applied(content, effects)
        if reasons:
            raise Rejected(reasons)
        if first is not None and not first.last:
            self._open = content
            return None
        self._open = None
        self._store.commit(content, batch.position)
        return batch.position

    def flush(self) -> Position | None:
        """Nothing waits but an unfinished transaction."""
        return None

    def close(self) -> None:
        """Forget an unfinished transaction."""
        self._open = None


def passed(content: Content, barrier: Barrier) -> None:
    """Clear what a truncate or the start of a copy clears."""
    item = barrier.item
    if isinstance(item, SchemaChange):
        return
    rows = content.rows.setdefault(item.table.qualified, {})
    appended = content.appended.setdefault(item.table.qualified, [])
    if isinstance(item, CopyStart) and not item.again and (rows or appended):
        msg = f"target table {item.table.qualified} is not empty"
        raise Fatal(msg, hint="remove the file, or set `start: now`")
    rows.clear()
    appended.clear()


def applied(content: Content, effects: TableEffects) -> dict[tuple[int, int], str]:
    """Apply net effects; return what is rejected."""
    rows = content.rows.setdefault(effects.table.qualified, {})
    content.appended.setdefault(effects.table.qualified, []).extend(each.row for each in effects.appended)
    for effect in effects.deletes:
        rows.pop(effect.origin, None)
    missed: list[Effect] = []
    for step in effects.steps:
        there = rows.pop(step.old, None)
        if there is not None:
            rows[step.new] = merged(step.effect.row, there) if step.last else there
        elif step.last:
            put(rows, step.effect, missed)
    for effect in (*effects.inserts, *effects.upserts):
        rows[effect.key] = effect.row
    for updates in effects.updates.values():
        for effect in updates:
            put(rows, effect, missed)
    return refs_of(missed, "an incomplete row of which the target has nothing")


def put(rows: dict[Any, Any], effect: Effect, missed: list[Effect]) -> None:
    """Put a row in place of what is there under its key."""
    row = merged(effect.row, rows[effect.key]) if effect.key in rows else effect.row
    if complete(row):
        rows[effect.key] = row
    else:
        missed.append(effect)


def _sink(config: ShelvedConfig, context: SinkContext) -> Sink:
    return ShelvedSink(config, context)


def _store(config: ShelvedConfig, context: SinkContext) -> PositionStore:
    return ShelvedStore(config, context)


def _check(config: ShelvedConfig, _context: SinkContext) -> list[Finding]:
    return [Finding(Severity.OK, str(config.path), "a file")]


def _clear(config: ShelvedConfig, _context: SinkContext) -> bool:
    content = read(config.path)
    had, content.stored = content.stored is not None, None
    content.fence += 1
    replace(config.path, content)
    return had


def _put(config: ShelvedConfig, context: SinkContext, position: Position) -> None:
    store = ShelvedStore(config, context)
    store.open("")
    store.save(position)
    store.close()


CONNECTOR = Connector(
    name="shelved",
    sink=SinkSpec(ShelvedConfig, _sink, lambda _: Guarantee.EXACTLY_ONCE, lambda config: str(config.path), _check),
    store=StoreSpec(ShelvedConfig, _store, _clear, _put),
)
