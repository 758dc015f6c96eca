"""A pipeline's daemon in a folder of its own: its file, its life, and the steps that it records."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from cdcsync.testing.faults import Victim
from cdcsync.testing.trace import read_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cdcsync.testing.trace import Step


class Source(Protocol):
    """The database that is read, of either kind."""

    @property
    def server(self) -> Server:
        """Where it lies."""


class Server(Protocol):
    """Knows its password."""

    @property
    def password(self) -> str:
        """All servers of a run have the same."""


@dataclass(frozen=True)
class Daemon:
    """What does not depend on the system that is read."""

    source: Source
    folder: Path

    @property
    def file(self) -> Path:
        """The pipeline's file."""
        return self.folder / "bench.yaml"

    @property
    def trace(self) -> Path:
        """Where the daemon's steps are recorded."""
        return self.folder / "trace"

    def environment(self, who: str = "") -> dict[str, str]:
        """Return what this pipeline's commands need; `who` is a machine of its own, with its own state directory."""
        return {
            "CDCSYNC_TRACE": str(self.folder / f"trace{who}"),
            "STATE_DIRECTORY": str(self.folder / f"state{who}"),
            "SOURCE_PASSWORD": self.source.server.password,
        }

    def put(self, source: dict[str, Any], sink: dict[str, Any], tables: list[dict[str, Any]]) -> None:
        """Write the file; JSON is YAML."""
        document = {"name": "bench", "heartbeat": "1s", "source": source, "sink": sink, "tables": tables}
        self.file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))

    def victim(self, who: str = "") -> Victim:
        """Return the daemon, not yet started, on the machine `who`."""
        (self.folder / f"state{who}").mkdir(exist_ok=True)
        command = [str(Path(sys.executable).with_name("cdcsync")), "--log", "json", "run", str(self.file)]
        return Victim(command, self.folder / f"log{who}", self.environment(who))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command on this pipeline."""
        full = [str(Path(sys.executable).with_name("cdcsync")), *words]
        environment = {**self.environment(), "PATH": "/usr/bin:/bin"}
        del environment["CDCSYNC_TRACE"]
        return subprocess.run(full, capture_output=True, text=True, check=False, timeout=120, env=environment)

    def steps(self, who: str = "") -> list[Step]:
        """Return what the daemon has recorded on that machine."""
        return read_steps(self.folder / f"trace{who}")

    def await_step(self, victim: Victim, reached: Callable[[str], bool], within_s: float, who: str = "") -> None:
        """Return once the victim, as it was started last, has saved a position of which `reached` says so."""
        deadline = time.monotonic() + within_s
        while not any(reached(step.position) for step in self._saved(who, victim.started_ns)):
            assert time.monotonic() < deadline, f"not reached\n{victim.log.read_text()[-3000:]}"
            victim.rest(0.1)

    def _saved(self, who: str, since_ns: int) -> list[Step]:
        """Return the last step of saving."""
        return [step for step in self.steps(who) if step.event == "save" and step.at_ns > since_ns][-1:]


def differences(
    source: Callable[[str], Iterator[tuple[Any, ...]]],
    target: Callable[[str], Iterator[tuple[Any, ...]]],
    tables: Sequence[str],
) -> list[str]:
    """Compare every column of every row; return the first place where each table differs."""
    found = []
    for table in tables:
        want, got = source(table), target(table)
        pairs = enumerate(itertools.zip_longest(want, got))
        first = next((f"{table} row {at}: want {a}, got {b}" for at, (a, b) in pairs if a != b), None)
        found += [first] if first else []
    return found


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows go, and how they are read back without cdcsync."""

    sink: dict[str, Any]
    rows: Callable[[str], Iterator[tuple[Any, ...]]]
    execute: Callable[[str], object]
    query: Callable[[str], list[tuple[Any, ...]]]


def counts(rows: Callable[[str], Iterator[tuple[Any, ...]]], tables: Sequence[str]) -> dict[str, int]:
    """Return how many rows each table has."""
    return {table: sum(1 for _ in rows(table)) for table in tables}
