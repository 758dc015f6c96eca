"""The position of a jsonl file: a sidecar `FILE.position` that also says how long the file is at that position."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import orjson

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.ports import Stored
from cdcsync.positions import LockFile, fence_lost, holder

if TYPE_CHECKING:
    from pathlib import Path

    from cdcsync.change import Position

SUFFIX: Final = ".position"
_REFUSED: Final = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True, slots=True)
class Mark:
    """What the sidecar holds."""

    pipeline: str
    lane: str = ""
    position: str | None = None
    epoch: int = 0
    fence: int = 0
    length: int = 0
    """Of the file in bytes at that position; what lies beyond was never committed."""
    source: str = ""
    holder: str = ""


def verdict(error: OSError, path: Path) -> Transient | Fatal:
    """Return the verdict of an operating system's error: a full disk passes, a missing folder or right does not."""
    msg = f"{path}: {error.strerror}"
    if isinstance(error, PermissionError):
        return Fatal(msg, hint="let the daemon's user write there", status=ExitStatus.PERMISSION)
    if isinstance(error, _REFUSED):
        return Fatal(
            msg, hint="`path` of the jsonl sink has to be a file in a folder that exists", status=ExitStatus.CONFIG
        )
    return Transient(End.SINK, msg)


class FileStore:
    """The one store of a jsonl file, shared with its sink. Every write is temporary file, fsync, rename, fsync."""

    def __init__(self, path: Path, pipeline: str, source: str = "") -> None:
        self._path = path.with_name(path.name + SUFFIX)
        self._pipeline = pipeline
        self._source = source
        self._lock = LockFile(path.with_name(path.name + ".lock"), pipeline)
        self._fence = 0
        self.fresh = True
        """There was no sidecar when the store was opened: the file's lines, if any, are older than the pipeline."""
        self.mark = Mark(pipeline)
        """As last read or written."""

    def open(self, lane: str) -> None:
        """Take the lock and, once, the fence. Raises Fatal when another pipeline owns the file."""
        self._lock.acquire()
        stored = self._read()
        if stored is not None and (stored.pipeline, stored.lane) != (self._pipeline, lane):
            msg = f"{self._path} says that the file belongs to pipeline {stored.pipeline}"
            raise Fatal(msg, hint="give this pipeline a file of its own", status=ExitStatus.OWNERSHIP)
        self.fresh = stored is None
        self.mark = stored or Mark(self._pipeline, lane)
        if not self._fence:
            self._fence = self.mark.fence + 1
            if stored is not None:
                self.commit(replace(stored, fence=self._fence, holder=holder()), check=False)
            return
        self._check_fence(stored)

    def load(self) -> Stored | None:
        """Return what the sidecar holds; may be called without `open`, to look. Raises Fatal when the fence is lost."""
        mark = self._read()
        if self._fence:
            self._check_fence(mark)
        if mark is None or mark.position is None:
            return None
        return Stored(mark.position, mark.epoch)

    def save(self, position: Position) -> None:
        """Do nothing where the sink has committed this position, else store it."""
        encoded = position.encode()
        if self.mark.position != encoded:
            self.commit(replace(self.mark, position=encoded, epoch=position.epoch))

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    def clear(self) -> bool:
        """Forget the position under the lock; return whether there was one. Keeps epoch and length."""
        self.open("")
        try:
            had = self.mark.position is not None
            if had:
                self.commit(replace(self.mark, position=None))
        finally:
            self.close()
        return had

    def put(self, position: Position) -> None:
        """Store this position under the lock with a new fence."""
        self.open("")
        try:
            self.commit(replace(self.mark, position=position.encode(), epoch=position.epoch))
        finally:
            self.close()

    def commit(self, mark: Mark, *, check: bool = True) -> None:
        """Replace the sidecar; durable on return. Raises Fatal when the fence is no longer ours."""
        if check:
            self._check_fence(self._read())
        mark = replace(mark, fence=self._fence, source=self._source or mark.source, holder=holder())
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, orjson.dumps(asdict(mark), option=orjson.OPT_APPEND_NEWLINE))
                os.fsync(file)
            finally:
                os.close(file)
            temporary.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise verdict(error, self._path) from error
        self.mark = mark

    def _check_fence(self, stored: Mark | None) -> None:
        if stored is not None and stored.fence != self._fence:
            raise fence_lost(self._pipeline, stored.holder)

    def _read(self) -> Mark | None:
        try:
            return Mark(**orjson.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise verdict(error, self._path) from error
        except (orjson.JSONDecodeError, TypeError) as error:
            msg = f"{self._path} is damaged"
            hint = "move the file and its .position away, and copy everything again"
            raise Fatal(msg, hint=hint) from error


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in the folder durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
