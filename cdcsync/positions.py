"""What the position stores share: the table `cdcsync_positions`, its statements, the lock file and the fence.

A process first takes the lock, then raises the fence once; every save is conditional on that fence, so that a
process which was stopped, replaced and woken up again changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote as url_quote

from cdcsync.change import Column, Table
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from cdcsync.ports import SinkContext

NAME: Final = "cdcsync_positions"

_TEXT: Final = Type(Kind.TEXT)
_BIG: Final = Type(Kind.INTEGER, bits=64)

POSITIONS: Final = Table(
    "",
    NAME,
    (
        Column("pipeline", _TEXT, nullable=False),
        Column("lane", _TEXT, nullable=False),
        Column("epoch", _BIG, nullable=False),
        Column("fence", _BIG, nullable=False),
        Column("position", _TEXT),
        Column("source", _TEXT, nullable=False),
        Column("tables", _TEXT, nullable=False),
        Column("holder", _TEXT, nullable=False),
        Column("updated_at", _TEXT, nullable=False),
    ),
    ("pipeline", "lane"),
)
"""The layout in every SQL store. `position` is null until one is saved and after `positions clear`, which keeps the
epoch; `source` is the identity of the source; `tables` a JSON list of the target tables; `updated_at` ISO 8601."""


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements on `cdcsync_positions`, the same for all stores that speak ON CONFLICT and RETURNING."""

    take: str
    """pipeline, lane, source, tables, holder, updated_at -> fence. Raises the fence; no source and no tables leave those there."""
    check: str
    """pipeline, lane -> fence, holder."""
    load: str
    """pipeline, lane -> position, epoch, source."""
    save: str
    """position, epoch, updated_at, pipeline, lane, fence; no row: the fence is lost."""
    clear: str
    """updated_at, pipeline, lane; no row: there was no position. Raises the fence, keeps the epoch."""
    put: str
    """position, epoch, updated_at, pipeline, lane; after `take`."""

    @classmethod
    def of(cls, table: str, placeholder: str) -> Self:
        """Return the statements for a quoted table name and the driver's placeholder."""
        row = f"pipeline = {placeholder} AND lane = {placeholder}"
        return cls(
            take=f"INSERT INTO {table} AS there (pipeline, lane, source, tables, holder, updated_at, epoch, fence)"  # noqa: S608
            f" VALUES ({', '.join([placeholder] * 6)}, 0, 1) ON CONFLICT (pipeline, lane) DO UPDATE SET"
            " fence = there.fence + 1, holder = excluded.holder, updated_at = excluded.updated_at,"
            " source = CASE excluded.source WHEN '' THEN there.source ELSE excluded.source END,"
            " tables = CASE excluded.tables WHEN '[]' THEN there.tables ELSE excluded.tables END RETURNING fence",
            check=f"SELECT fence, holder FROM {table} WHERE {row}",  # noqa: S608
            load=f"SELECT position, epoch, source FROM {table} WHERE {row}",  # noqa: S608
            save=f"UPDATE {table} SET position = {placeholder}, epoch = {placeholder},"  # noqa: S608
            f" updated_at = {placeholder} WHERE {row} AND fence = {placeholder}",
            clear=f"UPDATE {table} SET position = NULL, fence = fence + 1,"  # noqa: S608
            f" updated_at = {placeholder} WHERE {row} AND position IS NOT NULL",
            put=f"UPDATE {table} SET position = {placeholder}, epoch = {placeholder},"  # noqa: S608
            f" updated_at = {placeholder} WHERE {row}",
        )


def holder() -> str:
    """Return who this process is, for the one that finds the lane taken."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


def fence_lost(pipeline: str, by: str | None) -> Fatal:
    """Return the error of a process whose lane another has taken; `by` is the holder that the row names."""
    who = f" by {by}" if by else ""
    msg = f"the position of pipeline {pipeline} was taken over{who}; nothing was written since"
    return Fatal(
        msg,
        hint="two daemons run one pipeline: stop one; after `positions set` or `positions clear` start it again",
        status=ExitStatus.OWNERSHIP,
    )


def kept_elsewhere(pipeline: str) -> Fatal:
    """Return the error of a sink that commits the position with its rows, and whose own store was not opened."""
    msg = f"the sink of pipeline {pipeline} commits the position with its rows, and another store was given"
    return Fatal(msg, hint="give no store beside this sink", status=ExitStatus.CONFIG)


def now() -> str:
    """Return the time for `updated_at`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def refuse_other_source(context: SinkContext, stored: str) -> None:
    """Raise Fatal when a stored position is of another server or database than the configured source.

    Both are identities, "" where none is known. Under `moves` what stands before the first ":", which a failover
    leaves as it is, has to be the same.
    """
    ours = context.source
    if not stored or not ours or stored == ours:
        return
    if context.moves and stored.partition(":")[0] == ours.partition(":")[0]:
        return
    msg = f"the stored position of pipeline {context.pipeline} is of {stored}, the configured source is {ours}"
    raise Fatal(
        msg,
        hint=f"configure the former source, or forget the position with `cdcsync positions clear {context.pipeline}`",
        status=ExitStatus.CONFIG,
    )


def refuse_gone(pipeline: str, missing: Iterable[Table], known: Collection[str]) -> None:
    """Raise Fatal when a target table is missing that was there when the position was stored: its rows are lost."""
    gone = [table.qualified for table in missing if table.qualified in known]
    if gone:
        msg = f"target table {', '.join(gone)} is gone, though pipeline {pipeline} has a stored position"
        hint = (
            f"bring it back as it was; or `cdcsync drop {pipeline}`, empty the other target tables, and run again "
            "to copy everything"
        )
        raise Fatal(msg, hint=hint)


class LockFile:
    """An exclusive lock on a file that names its holder; gone with the process, however it ends."""

    def __init__(self, path: Path, pipeline: str) -> None:
        self._path = path
        self._pipeline = pipeline
        self._file: int | None = None

    @classmethod
    def at(cls, state: Path, pipeline: str, lane: str) -> Self:
        """Return the lock of one lane in the state directory."""
        name = url_quote(pipeline, safe="") + (f"@{url_quote(lane, safe='')}" if lane else "")
        return cls(state / f"{name}.lock", pipeline)

    @property
    def path(self) -> Path:
        """Where the file is; it stays when the lock is released."""
        return self._path

    def acquire(self) -> None:
        """Take the lock; nothing happens when it is held already by this object. Raises Fatal naming the holder."""
        if self._file is not None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            msg = f"cannot open the lock file {self._path}: {error.strerror}"
            hint = "make the state directory writable for this user"
            raise Fatal(msg, hint=hint, status=ExitStatus.PERMISSION) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(file)
            msg = f"pipeline {self._pipeline} is run by {who} (lock file {self._path})"
            hint = "stop that process first, or give this pipeline another name"
            raise Fatal(msg, hint=hint, status=ExitStatus.OWNERSHIP) from error
        os.ftruncate(file, 0)
        os.pwrite(file, holder().encode(), 0)
        self._file = file

    def release(self) -> None:
        """Give the lock back. Never raises; may be called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
