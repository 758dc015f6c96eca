"""The real command as a subprocess, and a small system from a package outside the tree for it to read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from cdcsync import control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

COUNTER = '''
"""A source that counts: one row per transaction, as many as it is told."""
import time
from pydantic import BaseModel, ConfigDict, SecretStr
from cdcsync.change import Change, Column, Operation, Table
from cdcsync.connectors import Connector, Finding, Severity, SourceSpec
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.testing.memory import MemoryPosition, MemorySource
from cdcsync.types import Kind, Type

TABLE = Table("shop", "orders", (Column("id", Type(Kind.INTEGER, bits=64)),), ("id",))
STARTED = time.monotonic()


class Counter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int = 3
    away_s: float = 0
    fault: str = ""
    password: SecretStr | None = None


def tables(config, context):
    if time.monotonic() - STARTED < config.away_s:
        raise Transient(End.SOURCE, "connection refused")
    if config.fault == "bug":
        raise ZeroDivisionError(f"password {config.password.get_secret_value()}")
    if config.fault == "permission":
        raise Fatal("password authentication failed", hint="set `password:`", status=ExitStatus.PERMISSION)
    return [TABLE] if context.selection.wants("shop", "orders") else []


def make(config, context):
    return MemorySource([[Change(TABLE, Operation.INSERT, None, (n,))] for n in range(config.rows)])


CONNECTOR = Connector(
    name="counter",
    schemes=("counter",),
    from_url=lambda url: {"rows": int(url.partition(":")[2] or 3)},
    source=SourceSpec(
        config=Counter,
        make=make,
        decode=MemoryPosition.decode,
        identity=lambda config, context: "counter",
        tables=tables,
        check=lambda config, context: [Finding(Severity(config.fault or "ok"), "rows", "counted", "COUNT AGAIN")],
        drop=lambda config, context: ["slot counter"],
        tail=make,
        stored=lambda config, context, word: f"1:{word}:0" if word.isdecimal() else word,
    ),
)
'''


@dataclass
class Command:
    """Runs `cdcsync` in a folder of its own."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run to its end."""
        return subprocess.run(
            self._line(words),
            cwd=self.folder,
            env={**self.environ, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start it; ended with the test."""
        process = subprocess.Popen(
            self._line(words),
            cwd=self.folder,
            env={**self.environ, **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def write(self, text: str, name: str = "orders.yaml") -> str:
        """Write a pipeline's file, for its owner alone; return its path."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def socket(self, name: str = "orders") -> Path:
        """Return a pipeline's control socket."""
        return self.folder / "run" / f"{name}.sock"

    def status(self, name: str = "orders") -> dict[str, object]:
        """Return the running pipeline's figures, nothing when it does not answer."""
        try:
            return control.ask(self.socket(name), "status")
        except control.NotRunning:
            return {}

    def wait(self, reached: Callable[[dict[str, object]], bool], name: str = "orders") -> dict[str, object]:
        """Wait until the figures are as wanted; return them."""
        end = time.monotonic() + 30
        while not reached(got := self.status(name)):
            assert time.monotonic() < end, f"never reached; last: {got}"
            time.sleep(0.02)
        return got

    def _line(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "cdcsync", *words]


def stopped(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str, str]:
    """Send a signal; return status, output and errors of the process's end."""
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """`cdcsync` with a state and a run directory of the test's own, and the system `counter` installed."""
    package = tmp_path / "site"
    notes = package / "counter-1.0.dist-info"
    notes.mkdir(parents=True)
    (package / "counter.py").write_text(COUNTER)
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: counter\nVersion: 1.0\n")
    (notes / "entry_points.txt").write_text("[cdcsync.connectors]\ncounter = counter:CONNECTOR\n")
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in {"STATE_DIRECTORY", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"}
    }
    environ |= {
        "PYTHONPATH": str(package),
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "RUNTIME_DIRECTORY": str(tmp_path / "run"),
        "HOME": str(tmp_path),
    }
    made = Command(tmp_path, environ)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
