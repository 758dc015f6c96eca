"""The jsonl sinks: a stream that takes lines as they come, and a file that is cut back to its position."""

from __future__ import annotations

import os
import select
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from cdcsync.change import CopyStart
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.jsonl.store import FileStore, sync_folder, verdict
from cdcsync.lines import Lines
from cdcsync.ports import Guarantee

if TYPE_CHECKING:
    from pathlib import Path

    from cdcsync.change import Batch, Position
    from cdcsync.ports import SinkContext

WRITE_BYTES = 1 << 20
"""Lines are gathered up to about this size before they are written."""


class StreamSink:
    """Writes lines to standard output, a pipe or a device. Parts of a large transaction are written as they come."""

    guarantee = Guarantee.AT_LEAST_ONCE

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = Lines()
        self._file: int | None = None

    def open(self) -> None:
        """Open the stream; it keeps no epoch."""
        if self._file is None:
            self._file = _stream(self._path)

    def write(self, batch: Batch) -> Position | None:
        """Write all lines. Ends the process quietly, by SystemExit, when the reader of a pipe has gone."""
        try:
            _write(_opened(self._file), self._lines, batch)
        except BrokenPipeError as error:
            raise SystemExit(0) from error
        except OSError as error:
            raise verdict(error, self._path) from error
        return batch.position

    def flush(self) -> Position | None:
        """Nothing waits."""
        return None

    def close(self) -> None:
        """Close the stream, but not standard output, which is the process's."""
        if self._file is not None and str(self._path) != "-":
            os.close(self._file)
        self._file = None


class FileSink:
    """Appends lines to a file, exactly once: what lies beyond the committed length is cut off at `open`.

    Parts of a large transaction are visible as they come; positions inside a transaction are stored.
    """

    guarantee = Guarantee.EXACTLY_ONCE

    def __init__(self, path: Path, context: SinkContext) -> None:
        self._path = path
        self._pipeline = context.pipeline
        self._store = FileStore(path, context.pipeline, context.source)
        self._lines = Lines()
        self._file: int | None = None
        self._last: Position | None = None

    def positions(self) -> FileStore:
        """Return the store that shares the fence."""
        return self._store

    def open(self) -> int:
        """Cut the file back to its position; return the epoch stored. The store is open."""
        try:
            new = not self._path.exists()
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if new:
                sync_folder(self._path.parent)
            length = os.fstat(self._file).st_size
            mark = self._store.mark
            if self._store.fresh:
                self._store.commit(replace(mark, length=length))
            elif length < mark.length:
                raise self._too_short(length, mark.length)
            else:
                os.ftruncate(self._file, mark.length)
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError as error:
            self.close()
            raise verdict(error, self._path) from error
        self._last = None
        return self._store.mark.epoch

    def write(self, batch: Batch) -> Position | None:
        """Append, sync, then commit length and position. Ignores a batch that is there already."""
        begins = self._copy_start(batch)
        encoded = batch.position.encode()
        covered = self._last is not None and begins is None and self._last.covers(batch.position)
        if covered or self._store.mark.position == encoded:
            return batch.position
        file = _opened(self._file)
        try:
            if begins is not None:
                self._begin_copy(file, begins)
            length = self._store.mark.length + _write(file, self._lines, batch)
            if length != self._store.mark.length:
                os.fdatasync(file)
        except OSError as error:
            raise verdict(error, self._path) from error
        mark = replace(self._store.mark, position=encoded, epoch=batch.position.epoch, length=length)
        self._store.commit(mark)
        self._last = batch.position
        return batch.position

    def flush(self) -> Position | None:
        """Nothing waits: every write is durable on return."""
        return None

    def close(self) -> None:
        """Close the file; what was not committed is cut off at the next `open`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _copy_start(self, batch: Batch) -> CopyStart | None:
        """Return the first copy start of a batch, if it begins with one."""
        for transaction in batch.transactions:
            for item in transaction.items:
                return item if isinstance(item, CopyStart) else None
        return None

    def _begin_copy(self, file: int, start: CopyStart) -> None:
        """Find the file empty, or make it so when an interrupted copy begins again."""
        if start.again:
            self._store.commit(replace(self._store.mark, length=0))
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
        elif self._store.mark.length:
            msg = f"{self._path} is not empty at the start of the first copy"
            raise Fatal(msg, hint="move it away, or set `start: now` at the source", status=ExitStatus.CONFIG)

    def _too_short(self, length: int, wanted: int) -> Fatal:
        self.close()
        msg = f"{self._path} has {length} bytes, its position says {wanted}: lines were lost"
        return Fatal(
            msg,
            hint=f"bring the file back, or move it away and forget the position with "
            f"`cdcsync positions clear {self._pipeline}`",
        )


def _stream(path: Path) -> int:
    if str(path) == "-":
        sys.stdout.flush()
        return sys.stdout.fileno()
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise verdict(error, path) from error


def _opened(file: int | None) -> int:
    if file is None:
        msg = "the sink is not open"
        raise RuntimeError(msg)
    return file


def _write(file: int, lines: Lines, batch: Batch) -> int:
    """Write the lines of a batch in few large calls; return their length in bytes."""
    length = 0
    text = bytearray()
    for transaction in batch.transactions:
        lines.put(text, transaction)
        if len(text) >= WRITE_BYTES:
            _write_all(file, text)
            length += len(text)
            text = bytearray()
    _write_all(file, text)
    return length + len(text)


def _write_all(file: int, text: bytearray) -> None:
    left = memoryview(text)
    while left:
        try:
            left = left[os.write(file, left) :]
        except BlockingIOError:
            select.select([], [file], [], 1.0)
