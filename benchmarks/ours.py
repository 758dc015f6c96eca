"""cdcsync as a contender: its own command, a file of its own, timed by the trace that it writes."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from ruamel.yaml import YAML

from benchmarks.process import Contender, Usage
from cdcsync import connectors
from cdcsync.testing.trace import Step

if TYPE_CHECKING:
    from cdcsync.testing.servers import PostgresServer

CHECKOUT = Path(__file__).parent.parent
COMPILED = Path(sys.executable).parent / "cdcsync"
INTERPRETED = CHECKOUT / ".venv-pure" / "bin" / "cdcsync"


@dataclass(frozen=True, slots=True)
class Ours:
    """One pipeline in a private folder."""

    name: str
    folder: Path
    command: Path = COMPILED

    def configure(self, source: PostgresServer, sink: dict[str, Any], *, tables: list[Any] | None = None) -> None:
        """Write the pipeline's file."""
        document = {
            "name": self.name,
            "source": {
                "postgres": {
                    "host": source.host,
                    "port": source.port,
                    "user": source.user,
                    "password": "${env:BENCH_PASSWORD}",
                    "database": "postgres",
                    "tls": {"mode": "disable"},
                    "start": "now",
                }
            },
            "sink": sink,
            "tables": tables or [{"from": "public.bench", "to": "bench"}],
        }
        with self._file.open("w") as file:
            YAML().dump(document, file)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.yaml"

    @property
    def trace(self) -> Path:
        """Where the steps are written."""
        return self.folder / f"{self.name}.trace"

    def start(self, password: str) -> Contender:
        """Start the daemon."""
        return Contender(
            [str(self.command), "run", str(self._file)],
            self.folder / f"{self.name}.log",
            {
                "CDCSYNC_TRACE": str(self.trace),
                "STATE_DIRECTORY": str(self.folder),
                "BENCH_PASSWORD": password,
            },
        )

    def reached(self, lsn: int) -> int | None:
        """Return when, on the monotonic clock in ns, all before `lsn` was durable; None while it is not."""
        step = self._newest("durable")
        if step is None or not step.position:
            return None
        position: Any = connectors.load("postgres").source.decode(step.position)  # type: ignore[union-attr]
        return step.at_ns if position.lsn > lsn else None

    def take_position(self, password: str) -> None:
        """Run until a first position is saved, then stop: what is written next is this contender's input."""
        contender = self.start(password)
        contender.wait_for(lambda: self._newest("acknowledge") is not None)
        contender.finish()

    def run_to(self, lsn: int, password: str) -> Usage:
        """Run until all before `lsn` is durable."""
        contender = self.start(password)
        contender.wait_for(lambda: self.reached(lsn) is not None)
        return contender.finish(self.reached(lsn), stop=signal.SIGTERM)

    def _newest(self, event: str) -> Step | None:
        if not self.trace.exists():
            return None
        with self.trace.open("rb") as file:
            file.seek(max(0, self.trace.stat().st_size - 4096))
            lines = file.read().splitlines(keepends=True)
        steps = (Step(**orjson.loads(line)) for line in lines[-8:] if line.startswith(b"{") and line.endswith(b"}\n"))
        return next((step for step in reversed(list(steps)) if step.event == event), None)
