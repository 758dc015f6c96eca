"""A pipeline from one database to another whose tables change under it: run in this process, stopped, run again."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from click.testing import CliRunner

from cdcsync.assembly import Assembly
from cdcsync.cli import commands
from cdcsync.config import load
from cdcsync.pipeline import Surroundings
from cdcsync.testing.faults import Victim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdcsync.pipeline import Pipeline

WAIT_S = 40
PATIENCE_S = 0.05


class Flow:
    """One pipeline's file, and its lives."""

    def __init__(self, folder: Path, source: Any, sink: Any, *tables: Any) -> None:
        self.folder = folder
        self.source = source
        self.sink = sink
        self.tables: list[Any] = list(tables)
        self.heartbeat = "200ms"

    def write(self) -> str:
        """Write its file; return where."""
        document = {
            "name": "flow",
            "heartbeat": self.heartbeat,
            "state": str(self.folder / "state"),
            "source": self.source,
            "sink": self.sink,
            "tables": self.tables,
        }
        path = self.folder / "flow.yaml"
        path.write_bytes(orjson.dumps(document))
        path.chmod(0o600)
        return str(path)

    def victim(self) -> Victim:
        """Return its daemon, a process of its own, not yet started."""
        command = [str(Path(sys.executable).with_name("cdcsync")), "run", self.write()]
        return Victim(command, self.folder / "log", {})

    def asked(self, command: str) -> list[dict[str, str]]:
        """Return what a command says as JSON."""
        got = CliRunner().invoke(commands, [command, self.write(), "--json"])
        shown: list[dict[str, str]] = orjson.loads(got.stdout)
        return shown

    @contextmanager
    def running(self) -> Iterator[Life]:
        """Run it; at the end it is stopped, and has delivered all that it took."""
        assembly = Assembly(load(self.write()))
        assembly.make_state()
        life = Life(assembly.pipeline(Surroundings()))
        life.thread.start()
        try:
            yield life
        finally:
            life.pipeline.stop()
            life.thread.join(WAIT_S)
            assert not life.thread.is_alive()

    def fails(self, change: Callable[[], None]) -> str:
        """Run it, and change something that ends it; return what it said."""
        with self.running() as life:
            life.until(life.streams)
            change()
            end = time.monotonic() + WAIT_S
            while life.thread.is_alive():
                assert time.monotonic() < end, "it goes on"
                time.sleep(PATIENCE_S)
        return str(life.fault)


class Life:
    """One run."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.fault: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.pipeline.run()
        except Exception as fault:  # noqa: BLE001  told to the test
            self.fault = fault

    def streams(self) -> bool:
        """Return whether the first position is stored."""
        return bool(self.pipeline.progress.position)

    def until(self, reached: Callable[[], Any]) -> None:
        """Wait until it is so, while the pipeline runs."""
        end = time.monotonic() + WAIT_S
        while not reached():
            if self.fault is not None:
                raise self.fault
            assert time.monotonic() < end, f"never reached; {self.pipeline.progress.fault}"
            time.sleep(PATIENCE_S)
