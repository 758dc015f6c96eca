"""At most two JVMs are up at once on this machine: whoever starts one holds a slot."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Final

from cdcsync.testing.maven import cache
from cdcsync.testing.processes import ServerFault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOTS: Final = 2
WAIT_MAX_S: Final = 1500.0
"""For the slots of others; a whole file of tests may run meanwhile."""
LOOK_S: Final = 0.25


@contextmanager
def lease(count: int, who: str, *, wait_max_s: float = WAIT_MAX_S) -> Iterator[None]:
    """Hold `count` of the slots while the block runs; `who` is told to those that wait in vain.

    All are taken together, one request at a time: two that want two each never wait for each other. Do not ask for
    more inside the block. Raises ServerFault naming the holders.
    """
    if not 1 <= count <= SLOTS:
        msg = f"{who} asks for {count} JVMs; this machine runs {SLOTS}"
        raise ValueError(msg)
    folder = cache() / "jvm"
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + wait_max_s
    with ExitStack() as held:
        with ExitStack() as gate:
            _hold(gate, [folder / "gate"], 1, who, until)
            _hold(held, [folder / f"slot{number}" for number in range(SLOTS)], count, who, until)
        yield


def holders() -> dict[str, str]:
    """Return by slot who has it now, or had it last."""
    return {path.name: path.read_text() for path in sorted((cache() / "jvm").glob("slot*"))}


def _hold(held: ExitStack, files: list[Path], count: int, who: str, until: float) -> None:
    """Take `count` of the locks; keep those that are taken while waiting for the others."""
    left = list(files)
    while len(files) - len(left) < count:
        for path in left.copy():
            lock = _taken(path, who)
            if lock is not None:
                held.enter_context(lock)
                left.remove(path)
                if len(files) - len(left) == count:
                    return
        if time.monotonic() > until:
            msg = f"{who} waits for {count} of {files[0].parent}: {holders()}"
            raise ServerFault(msg)
        time.sleep(LOOK_S)


def _taken(path: Path, who: str) -> IO[str] | None:
    """Return the locked file with the holder's name in it, None while another has it."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"{who}, pid {os.getpid()}")
    file.flush()
    return file
