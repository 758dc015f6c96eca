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
from cdcsync.mysql.position import MysqlPosition, file_number
from cdcsync.postgres.position import PostgresPosition
from cdcsync.testing.trace import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.testing.mysql_servers import MysqlServer
    from cdcsync.testing.servers import PostgresServer

    End = Callable[[str], bool]
    """Whether a position, encoded, lies past the end of an input."""

CHECKOUT = Path(__file__).parent.parent
COMPILED = Path(sys.executable).parent / "cdcsync"
INTERPRETED = CHECKOUT / ".venv-pure" / "bin" / "cdcsync"


@dataclass(frozen=True, slots=True)
class Ours:
    """One pipeline in a private folder."""

    name: str
    folder: Path
    command: Path = COMPILED

    def configure(self, source: dict[str, Any], sink: dict[str, Any], *, tables: list[Any] | None = None) -> None:
        """Write the pipeline's file; source and sink are its sections."""
        document = {
            "name": self.name,
            "source": source,
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

    def reached(self, is_past: End) -> int | None:
        """Return when, on the monotonic clock in ns, all before an end was durable; None while it is not."""
        step = self._newest("durable")
        if step is None or not step.position:
            return None
        return step.at_ns if is_past(step.position) else None

    def take_position(self, password: str) -> None:
        """Run until a first position is saved, then stop: what is written next is this contender's input."""
        contender = self.start(password)
        contender.wait_for(lambda: self._newest("acknowledge") is not None)
        contender.finish()

    def run_until(self, is_past: End, password: str) -> Usage:
        """Run until all before an end is durable."""
        contender = self.start(password)
        contender.wait_for(lambda: self.reached(is_past) is not None)
        return contender.finish(self.reached(is_past), stop=signal.SIGTERM)

    def _newest(self, event: str) -> Step | None:
        if not self.trace.exists():
            return None
        with self.trace.open("rb") as file:
            file.seek(max(0, self.trace.stat().st_size - 4096))
            lines = file.read().splitlines(keepends=True)
        steps = (Step(**orjson.loads(line)) for line in lines[-8:] if line.startswith(b"{") and line.endswith(b"}\n"))
        return next((step for step in reversed(list(steps)) if step.event == event), None)


def postgres(server: PostgresServer) -> dict[str, Any]:
    """Return the section of a PostgreSQL source."""
    end = {"host": server.host, "port": server.port, "user": server.user, "database": "postgres"}
    return {"postgres": {**end, "password": "${env:BENCH_PASSWORD}", "tls": {"mode": "disable"}, "start": "now"}}


def past_lsn(lsn: int) -> End:
    """Return the end of an input: all before that LSN."""
    return lambda position: PostgresPosition.decode(position).lsn > lsn


def mysql(server: MysqlServer) -> dict[str, Any]:
    """Return the section of a MySQL source that reads the whole log."""
    end = {"host": server.host, "port": server.port, "user": server.user}
    return {"mysql": {**end, "password": "${env:BENCH_PASSWORD}", "tls": {"mode": "disable"}, "start": "earliest"}}


def past_offset(file: str, offset: int) -> End:
    """Return the end of an input: all before that place in the binlog."""

    def is_past(text: str) -> bool:
        position = MysqlPosition.decode(text)
        return position.within is None and (file_number(position.file), position.offset) >= (file_number(file), offset)

    return is_past
