"""Runs one contender as a process and measures it from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process used."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    rows: int | None = None
    """How many rows came in `wall_s`, where that is not all of them: see `peers.Arrivals`."""


class Contender:
    """A process under measurement."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.started_ns = time.monotonic_ns()
        self._log = log
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env={**inherited, **(environment or {})}
            )
        self.pid = self._process.pid
        self._peak_mb = 0.0

    def wait_for(self, reached: Callable[[], bool], timeout_s: float = 900) -> None:
        """Wait until `reached`; raise when the process ends before, or time is up."""
        end = time.monotonic() + timeout_s
        while not reached():
            if self._process.poll() is not None or time.monotonic() > end:
                msg = f"the contender did not get there: {self._log.read_text()[-2000:]}"
                raise RuntimeError(msg)
            time.sleep(0.01)
        self._look()

    def finish(self, finished_ns: int | None = None, stop: int | None = signal.SIGTERM) -> Usage:
        """End the process (or wait for its own end) and return its usage up to `finished_ns`."""
        if stop is not None:
            self._look()
            self._process.send_signal(stop)
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._look()
            time.sleep(0.01)
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        ended_ns = finished_ns or time.monotonic_ns()
        return Usage(
            wall_s=(ended_ns - self.started_ns) / 1e9,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_mb=self._peak_mb,
        )

    def _look(self) -> None:
        """Note the process's own peak; that of `wait4` is its parent's too, whose memory it had until its exec."""
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            found = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
            self._peak_mb = max([self._peak_mb, *found])
