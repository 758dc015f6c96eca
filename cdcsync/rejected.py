"""Dead letters: changes that the mapping or the sink will never take, kept where nothing loses them."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from cdcsync.change import UNCHANGED, Change, CopyStart, Operation, SchemaChange, Unreadable
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.lines import commit_time, encode_key, encode_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from cdcsync.change import Batch, Item, Transaction

FILE_NAME: Final = "rejected.db"
SIEVE_BITS: Final = 1 << 20
BUSY_MAX_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Letter:
    """One change put aside. (pipeline, version, ordinal, target) names it: storing it twice stores it once."""

    pipeline: str
    target: str
    """Qualified name of the table that did not take it; empty for a message."""
    version: int
    ordinal: int
    """Of the raw change in its transaction."""
    operation: str
    key: str | None
    """The row's key as JSON text; None when there is none."""
    reason: str
    position: str
    """Encoded: where the source goes on after its transaction."""
    transaction: str
    commit_time_us: int
    before: bytes | None
    """The row before as `lines.encode_row` writes it."""
    after: bytes | None
    id: int = 0
    """Given by the store."""
    healed: bool = False
    """A later complete row, or the delete, of this key has made it needless."""

    @classmethod
    def of(cls, pipeline: str, transaction: Transaction, index: int, reason: str, mapped: Item | None = None) -> Letter:
        """Return the letter of one item of a transaction, or of what the mapping made of it."""
        item = transaction.items[index] if mapped is None else mapped
        before = after = key = None
        if isinstance(item, Change):
            operation, target = item.operation.value, item.table.qualified
            before = encode_row(item.table, item.before) if item.before is not None else None
            after = encode_row(item.table, item.after) if item.after is not None else None
            row = item.after if item.after is not None else item.before
            key = encode_key(item.table, row) if row is not None else None
        elif isinstance(item, CopyStart):
            operation, target = "copy", item.table.qualified
        elif isinstance(item, SchemaChange):
            table = item.new or item.old
            operation, target = "schema", table.qualified if table else ""
        elif isinstance(item, Unreadable):
            operation, target, after = "unreadable", item.table.qualified, item.raw
        else:
            operation, target = "message", ""
        return cls(
            pipeline=pipeline,
            target=target,
            version=transaction.version,
            ordinal=transaction.ordinals[index],
            operation=operation,
            key=key,
            reason=reason,
            position=transaction.position.encode(),
            transaction=transaction.id,
            commit_time_us=transaction.commit_time_us,
            before=before,
            after=after,
        )

    def summary(self) -> dict[str, Any]:
        """Return what may be shown without showing the row: no values but the key's."""
        return {
            "id": self.id,
            "target": self.target,
            "operation": self.operation,
            "key": orjson.loads(self.key) if self.key else None,
            "reason": self.reason,
            "commit_time": commit_time(self.commit_time_us),
            "transaction": self.transaction,
            "position": self.position,
            "version": self.version,
            "ordinal": self.ordinal,
            "healed": self.healed,
        }

    def content(self) -> dict[str, Any]:
        """Return the summary and the rows, for the operator who asked for them."""
        return {
            **self.summary(),
            "before": orjson.loads(self.before) if self.before else None,
            "after": orjson.loads(self.after) if self.after else None,
        }


class Letters(Protocol):
    """What the pipeline needs of a dead letter store."""

    def store(self, letters: Sequence[Letter]) -> None:
        """Keep them; durable on return. Storing again is storing once."""
        ...

    def parked(self, batch: Batch) -> Sequence[tuple[int, int]]:
        """Return the (transaction, item) indexes of incomplete changes whose key has an open letter before them."""
        ...

    def heal(self, batch: Batch) -> None:
        """Close the letters that this delivered batch made needless: a later complete row or delete of the key."""
        ...


class NoLetters:
    """Keeps nothing: for pipelines that stop at, or skip, what is rejected."""

    def store(self, letters: Sequence[Letter]) -> None:
        """Refuse: losing them silently is what no pipeline wants."""
        msg = f"{len(letters)} rejected change(s) and no dead letter store"
        raise Fatal(msg, hint="give the pipeline one, or set `on_rejected: stop`", status=ExitStatus.CONFIG)

    def parked(self, batch: Batch) -> Sequence[tuple[int, int]]:  # noqa: ARG002  the protocol's
        """Return none."""
        return []

    def heal(self, batch: Batch) -> None:
        """Do nothing."""


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pipeline TEXT NOT NULL,
    target TEXT NOT NULL,
    version INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    operation TEXT NOT NULL,
    key TEXT,
    reason TEXT NOT NULL,
    position TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    commit_time_us INTEGER NOT NULL,
    before BLOB,
    after BLOB,
    stored_at_us INTEGER NOT NULL,
    healed_at_us INTEGER,
    UNIQUE (pipeline, version, ordinal, target)
);
CREATE INDEX IF NOT EXISTS open_letters ON letters (pipeline, target, key) WHERE healed_at_us IS NULL;
"""
_COLUMNS: Final = "pipeline, target, version, ordinal, operation, key, reason, position, transaction_id, commit_time_us, before, after"
_INSERT: Final = (
    f"INSERT INTO letters ({_COLUMNS}, stored_at_us) VALUES ({', '.join('?' * 13)})"  # noqa: S608  constants
    " ON CONFLICT (pipeline, version, ordinal, target) DO NOTHING"
)
_SELECT: Final = f"SELECT {_COLUMNS}, id, healed_at_us IS NOT NULL FROM letters WHERE pipeline = ?"  # noqa: S608  constants
_OPEN: Final = "SELECT count(*) FROM letters WHERE pipeline = ? AND healed_at_us IS NULL"
_IS_PARKED: Final = (
    "SELECT 1 FROM letters WHERE healed_at_us IS NULL AND pipeline = ? AND target = ? AND key = ?"
    " AND (version, ordinal) < (?, ?)"
)
_HEAL_KEY: Final = (
    "UPDATE letters SET healed_at_us = ? WHERE healed_at_us IS NULL AND pipeline = ? AND target = ? AND key = ?"
    " AND (version, ordinal) < (?, ?)"
)
_HEAL_TABLE: Final = (
    "UPDATE letters SET healed_at_us = ? WHERE healed_at_us IS NULL AND pipeline = ? AND target = ?"
    " AND (version, ordinal) < (?, ?)"
)


class DeadLetters:
    """The dead letters of one pipeline, in `rejected.db` of its state directory. One thread calls all methods.

    Every method raises Transient (of the store) when the file is busy or the disk is full. A sieve of one bit per
    hash of an open key keeps the cost of a batch without parked keys small, in bounded memory.
    """

    def __init__(self, state: Path, pipeline: str, *, clock: Callable[[], float] = time.time) -> None:
        self._path = state / FILE_NAME
        self._pipeline = pipeline
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._sieve = bytearray(SIEVE_BITS // 8)
        self.is_empty = True
        """No letter was open when last looked; another process may have dropped some since."""

    def open(self) -> None:
        """Look for open letters; makes no file. May be called again."""
        if not self._path.exists():
            return
        with self._guarded() as connection:
            open_count = connection.execute(_OPEN, (self._pipeline,)).fetchone()[0]
            self.is_empty = open_count == 0
            self._sieve = bytearray(SIEVE_BITS // 8)
            for target, key in connection.execute(
                "SELECT target, key FROM letters WHERE healed_at_us IS NULL AND pipeline = ?", (self._pipeline,)
            ):
                self._remember(target, key)

    def close(self) -> None:
        """Close the file. Never raises; may be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def store(self, letters: Iterable[Letter]) -> None:
        """Keep them; durable on return. One that is there already stays as it is."""
        stored_at_us = int(self._clock() * 1e6)
        with self._guarded() as connection:
            for letter in letters:
                connection.execute(_INSERT, (*_values(letter), stored_at_us))
                self._remember(letter.target, letter.key)
                self.is_empty = False

    def parked(self, batch: Batch) -> Sequence[tuple[int, int]]:
        """Return the indexes of incomplete changes whose key has an open letter before them."""
        if self.is_empty:
            return []
        found: list[tuple[int, int]] = []
        healed: set[tuple[str, str]] = set()
        with self._guarded() as connection:
            for at, transaction in enumerate(batch.transactions):
                for index, item in enumerate(transaction.items):
                    if type(item) is not Change or not item.table.key:
                        continue
                    keys = self._sifted(item)
                    if not keys:
                        continue
                    if not _is_partial(item):
                        healed.update(keys)
                    elif self._has_open(connection, transaction, index, [key for key in keys if key not in healed]):
                        found.append((at, index))
        return found

    def heal(self, batch: Batch) -> None:
        """Close the letters older than a complete row or a delete of their key, or a truncate of their table."""
        if self.is_empty:
            return
        now_us = int(self._clock() * 1e6)
        with self._guarded() as connection:
            healed = 0
            for transaction in batch.transactions:
                for item, ordinal in zip(transaction.items, transaction.ordinals, strict=True):
                    place = (transaction.version, ordinal)
                    if type(item) is CopyStart or (type(item) is Change and item.operation is Operation.TRUNCATE):
                        values = (now_us, self._pipeline, item.table.qualified, *place)
                        healed += connection.execute(_HEAL_TABLE, values).rowcount
                    elif type(item) is Change and item.table.key and not _is_partial(item):
                        for key in self._sifted(item):
                            healed += connection.execute(_HEAL_KEY, (now_us, self._pipeline, *key, *place)).rowcount
            if healed:
                self.is_empty = connection.execute(_OPEN, (self._pipeline,)).fetchone()[0] == 0

    def list(self, *, healed: bool = False, limit: int = 1000) -> Sequence[Letter]:
        """Return the open letters, oldest first; with `healed` those too."""
        if not self._path.exists():
            return []
        condition = "" if healed else " AND healed_at_us IS NULL"
        with self._guarded() as connection:
            rows = connection.execute(f"{_SELECT}{condition} ORDER BY id LIMIT ?", (self._pipeline, limit)).fetchall()
        return [_letter(row) for row in rows]

    def count(self) -> int:
        """Return how many letters are open."""
        if not self._path.exists():
            return 0
        with self._guarded() as connection:
            found: int = connection.execute(_OPEN, (self._pipeline,)).fetchone()[0]
        return found

    def show(self, number: int) -> Letter:
        """Return one letter. Raises Fatal when there is none of that id."""
        if self._path.exists():
            with self._guarded() as connection:
                row = connection.execute(f"{_SELECT} AND id = ?", (self._pipeline, number)).fetchone()
            if row is not None:
                return _letter(row)
        msg = f"pipeline {self._pipeline} has no dead letter {number}"
        raise Fatal(msg, hint=f"`cdcsync rejected list {self._pipeline}` shows what there is")

    def drop(self, numbers: Sequence[int] | None = None) -> int:
        """Delete these letters, or all; return how many there were."""
        if not self._path.exists():
            return 0
        with self._guarded() as connection:
            if numbers is None:
                return connection.execute("DELETE FROM letters WHERE pipeline = ?", (self._pipeline,)).rowcount
            delete = "DELETE FROM letters WHERE pipeline = ? AND id = ?"
            return sum(connection.execute(delete, (self._pipeline, number)).rowcount for number in numbers)

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside one transaction; turn its errors into verdicts."""
        try:
            connection = self._connected()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        except sqlite3.OperationalError as error:
            self.close()
            msg = f"dead letters in {self._path}: {error}"
            raise Transient(End.STORE, msg) from error
        except sqlite3.DatabaseError as error:
            self.close()
            msg = f"dead letters in {self._path}: {error}"
            raise Fatal(msg, hint="the file is damaged or not ours: move it away; a new one is made") from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._make_file()
            connection = sqlite3.connect(self._path, timeout=BUSY_MAX_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            self._connection = connection
        return self._connection

    def _make_file(self) -> None:
        """Make the file readable by its owner alone: it holds rows."""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        except PermissionError as error:
            msg = f"dead letters: {self._path} cannot be opened: {error.strerror}"
            raise Fatal(msg, hint="let the daemon's user write there", status=ExitStatus.PERMISSION) from error
        except OSError as error:
            msg = f"dead letters: {self._path}: {error.strerror}"
            raise Transient(End.STORE, msg) from error

    def _sifted(self, item: Change) -> Sequence[tuple[str, str]]:
        """Return the (target, key) of the rows before and after that may have a letter."""
        target = item.table.qualified
        keys: list[tuple[str, str]] = []
        for row in (item.after, item.before):
            if row is None or any(row[index] is UNCHANGED for index in item.table.key_at):
                continue
            key = (target, encode_key(item.table, row) or "")
            if key not in keys and self._may_hold(*key):
                keys.append(key)
        return keys

    def _has_open(
        self, connection: sqlite3.Connection, transaction: Transaction, index: int, keys: Sequence[tuple[str, str]]
    ) -> bool:
        place = (transaction.version, transaction.ordinals[index])
        return any(connection.execute(_IS_PARKED, (self._pipeline, *key, *place)).fetchone() for key in keys)

    def _remember(self, target: str, key: str | None) -> None:
        bit = hash((target, key)) % SIEVE_BITS
        self._sieve[bit >> 3] |= 1 << (bit & 7)

    def _may_hold(self, target: str, key: str) -> bool:
        bit = hash((target, key)) % SIEVE_BITS
        return bool(self._sieve[bit >> 3] & 1 << (bit & 7))


def _is_partial(item: Change) -> bool:
    return item.after is not None and UNCHANGED in item.after


def _values(letter: Letter) -> tuple[Any, ...]:
    return (
        letter.pipeline,
        letter.target,
        letter.version,
        letter.ordinal,
        letter.operation,
        letter.key,
        letter.reason,
        letter.position,
        letter.transaction,
        letter.commit_time_us,
        letter.before,
        letter.after,
    )


def _letter(row: tuple[Any, ...]) -> Letter:
    fields = [each.name for each in dataclass_fields(Letter)]
    return Letter(**dict(zip(fields, (*row[:-1], bool(row[-1])), strict=True)))
