"""What a benchmark finds: figures of contenders by turns, proved by value, on a machine that is named."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.process import Usage

PROVED: Final = 1000
"""How many of the last rows every contender is checked on, by value."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One contender's figures: medians of the rounds."""

    contender: str
    rate: float
    """Rows (or transactions) a second; 0 where a rate is not what is measured."""
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    wall_s: float = 0.0
    ratio: float | None = None
    """This rate by that of the first contender, median of the rounds' ratios."""


@dataclass(slots=True)
class Result:
    """What one benchmark found."""

    name: str
    rows: int
    unit: str = "rows/s"
    figures: list[Figure] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    """Single values, units in their names."""
    proved: str = ""
    """What was checked by value."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A benchmark by name."""

    name: str
    summary: str
    rows: int
    """Rows a round, unless said otherwise."""
    run: Callable[[int, int], Result]
    """Called with rows and rounds."""


@contextmanager
def folder() -> Iterator[Path]:
    """Yield a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="cdcsync-bench-") as name:
        yield Path(name)


def figures(rounds: dict[str, list[Usage]], rows: int) -> list[Figure]:
    """Return medians; the ratio is taken round by round against the first contender."""

    def rate(usage: Usage) -> float:
        return (rows if usage.rows is None else usage.rows) / usage.wall_s

    first = next(iter(rounds.values()))
    return [
        Figure(
            contender=name,
            rate=statistics.median(map(rate, usages)),
            cpu_s=statistics.median(usage.cpu_s for usage in usages),
            peak_mb=max(usage.peak_mb for usage in usages),
            wall_s=statistics.median(usage.wall_s for usage in usages),
            ratio=statistics.median(
                rate(usage) / rate(base) for base, usage in zip(first[-len(usages) :], usages, strict=True)
            ),
        )
        for name, usages in rounds.items()
    ]


def tail(path: Path) -> list[dict[str, Any]]:
    """Return the last lines of a jsonl file."""
    lines = subprocess.run(["tail", "-n", str(PROVED), path], check=True, capture_output=True)
    return [orjson.loads(line) for line in lines.stdout.splitlines()]


def prove(got: list[tuple[object, ...]], want: list[tuple[object, ...]]) -> None:
    """Raise unless the last rows are equal, every column by value."""
    if len(want) < PROVED or got != want:
        wrong = next((pair for pair in zip(got, want, strict=False) if pair[0] != pair[1]), (len(got), len(want)))
        msg = f"the last rows differ: {wrong}"
        raise RuntimeError(msg)


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    return {"python": sys.version.split()[0], "cpu": cpu, "cores": str(os.cpu_count())}
