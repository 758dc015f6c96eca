"""The trace of a pipeline's steps, and the checker of the line on the wall.

At every instant: acknowledged to the source <= saved position <= durable in the sink.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from cdcsync.change import Position


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a trace."""

    event: str
    """start, durable, save or acknowledge."""
    position: str
    """Encoded; empty for a start with nothing stored."""
    changes: int
    """Items in the batch; durable steps only."""
    process: int
    at_ns: int
    """CLOCK_MONOTONIC, which all processes of a machine share."""


class FileTrace:
    """Appends every step to a file, unbuffered, so that a SIGKILL loses none."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._process = os.getpid()

    def __call__(self, event: str, position: str, changes: int) -> None:
        """Append one step."""
        step = Step(event, position, changes, self._process, time.monotonic_ns())
        os.write(self._file, orjson.dumps(step, option=orjson.OPT_APPEND_NEWLINE))


def read_steps(path: Path) -> list[Step]:
    """Return the steps in the order in which they were written; a line torn by a kill ends the file."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [Step(**orjson.loads(line)) for line in lines if line.endswith(b"\n")]


def check_steps(steps: Iterable[Step], decode: Callable[[str], Position]) -> None:
    """Raise AssertionError at the first step that breaks acknowledged <= saved <= durable.

    A start may stand before the last durable step (a store of its own was not reached), never before
    the last saved one; what the sink committed just before a kill may be saved without a durable step.
    """
    durable: Position | None = None
    saved: Position | None = None
    for step in steps:
        position = decode(step.position) if step.position else None
        if step.event == "start":
            if saved is not None and not (position is not None and position.covers(saved)):
                msg = f"started at {step.position}, before what was saved"
                raise AssertionError(msg)
            durable = saved = position
            continue
        if position is None:
            msg = f"a {step.event} step without a position"
            raise AssertionError(msg)
        if step.event == "durable":
            durable = position
        elif step.event == "save":
            _require(durable, position, "saved, not durable")
            saved = position
        else:
            _require(saved, position, "acknowledged, not saved")


def _require(reached: Position | None, position: Position, fault: str) -> None:
    if reached is None or not reached.covers(position):
        msg = f"{fault}: {position.encode()}"
        raise AssertionError(msg)


def deliveries_around(steps: Sequence[Step], kills_ns: Sequence[int]) -> list[tuple[int, int]]:
    """Return for each kill the deliveries of rows recorded since the kill before, and until the next.

    A kill counts as evidence when both are above zero.
    """
    edges = [0, *kills_ns, time.monotonic_ns()]
    times = [step.at_ns for step in steps if step.event == "durable" and step.changes]
    counts = [sum(low < at <= high for at in times) for low, high in pairwise(edges)]
    return list(pairwise(counts))
