"""Texts put aside on disk in order and read backwards, whatever their number."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, Self

from cdcsync.errors import ExitStatus, Fatal

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH: Final = 8
"""Bytes of the length that follows each text."""
BLOCK: Final = 1 << 20
"""Read at once on the way back."""


class Spool:
    """A temporary file without a name, for its owner alone. To be used in a `with`; gone after it."""

    def __init__(self) -> None:
        with _judged():
            self._file: IO[bytes] = tempfile.TemporaryFile(prefix="cdcsync-")  # noqa: SIM115  closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, text: bytes) -> None:
        """Add one text. Raises Fatal when the disk is full."""
        with _judged():
            self._file.write(text)
            self._file.write(len(text).to_bytes(_LENGTH, "big"))

    def backwards(self) -> Iterator[bytes]:
        """Yield every text, the last first; memory holds a block, or one text that is longer."""
        with _judged():
            self._file.flush()
            start = self._file.seek(0, 2)
        block, end = b"", 0
        while start or end:
            start, block, end = self._widened(start, block, end, _LENGTH)
            length = int.from_bytes(block[end - _LENGTH : end], "big")
            start, block, end = self._widened(start, block, end, _LENGTH + length)
            end -= _LENGTH + length
            yield block[end : end + length]

    def _widened(self, start: int, block: bytes, end: int, wanted: int) -> tuple[int, bytes, int]:
        """Return where the block begins in the file, the block, and its end, with at least `wanted` bytes before that."""
        if end >= wanted:
            return start, block, end
        first = max(0, start - max(BLOCK, wanted - end))
        with _judged():
            self._file.seek(first)
            block = self._file.read(start - first) + block[:end]
        return first, block, len(block)


@contextmanager
def _judged() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"a temporary file in {tempfile.gettempdir()}: {error.strerror}"
        hint = "free space there, or name another folder with TMPDIR"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG) from error
