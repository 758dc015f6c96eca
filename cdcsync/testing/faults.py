"""Faults on purpose: a proxy that stalls and cuts, and a program that is killed at random moments."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from cdcsync.testing.trace import read_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from random import Random

CHUNK_BYTES: Final = 1 << 16
STEP_S: Final = 0.05
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that turns a close into a reset (socket(7))."""


class Proxy:
    """Stands between clients and one server on loopback. `go` is the state at the start."""

    host: Final = "127.0.0.1"

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self.passed_bytes = 0
        """From the server to clients, of all connections."""
        self.lost = 0
        """Answers that `lose` has swallowed."""
        self._losing = b""
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._closed = False
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def __enter__(self) -> Self:
        """Return itself: it listens from the constructor on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening and cut everything."""
        self._closed = True
        self._listener.close()
        self._flowing.set()
        self.cut()

    def stall(self) -> None:
        """Let nothing pass in either direction; connections stay open, new ones hang."""
        self._flowing.clear()

    def go(self) -> None:
        """End a `stall` or a `refuse`."""
        self._refusing = False
        self._flowing.set()

    def refuse(self) -> None:
        """Cut every connection, and each new one at once."""
        self._refusing = True
        self.cut()

    def lose(self, answer: bytes) -> None:
        """Cut, once, the connection whose server says this next: the server has done it, the client never hears."""
        self._losing = answer

    def cut(self) -> None:
        """Reset every connection, what is under way is lost; new ones pass."""
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._join(client)

    def _join(self, client: socket.socket) -> None:
        try:
            if self._refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(self._server, timeout=10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            self._ends |= {client, server}
        for giver, taker in ((client, server), (server, client)):
            counts = giver is server
            threading.Thread(target=self._pump, args=(giver, taker, counts), name="proxy-pump", daemon=True).start()

    def _pump(self, giver: socket.socket, taker: socket.socket, counts: bool) -> None:  # noqa: FBT001  a thread's argument
        with contextlib.suppress(OSError):
            while chunk := giver.recv(CHUNK_BYTES):
                self._flowing.wait()
                if counts and self._losing and self._losing in chunk:
                    self._losing = b""
                    self.lost += 1
                    break
                if counts:
                    self.passed_bytes += len(chunk)
                taker.sendall(chunk)
        with self._lock:
            self._ends -= {giver, taker}
        for end in (giver, taker):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Victim:
    """A program that is killed and started again; it does not outlive this process."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._command = ["setpriv", "--pdeathsig=KILL", *command]
        self._environment = {**os.environ, **environment}
        self.log = log
        """Its output, of all its lives."""
        self.started_ns = 0
        """When it was started last, on the monotonic clock."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Return itself, not yet started."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it if it still runs."""
        if self.running:
            self.kill()

    @property
    def running(self) -> bool:
        """Whether it is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        return self._alive().pid

    def start(self) -> None:
        """Start it once more."""
        self.started_ns = time.monotonic_ns()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def kill(self) -> int:
        """SIGKILL it; return the moment on the monotonic clock in ns, after which it did nothing more."""
        process = self._alive()
        process.kill()
        process.wait()
        return time.monotonic_ns()

    def stop(self, within_s: float = 30.0) -> int:
        """Ask it by SIGTERM to end; return its exit status."""
        process = self._alive()
        process.send_signal(signal.SIGTERM)
        return process.wait(within_s)

    def pause(self) -> None:
        """SIGSTOP it: it hangs, its connections and locks stay."""
        self._alive().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        self._alive().send_signal(signal.SIGCONT)

    def await_end(self, within_s: float = 30.0) -> int:
        """Return the exit status with which it ends by itself. Raises subprocess.TimeoutExpired."""
        if self._process is None:
            msg = "the program was never started"
            raise AssertionError(msg)
        return self._process.wait(within_s)

    def rest(self, seconds: float) -> None:
        """Let it work. Raises AssertionError with its log when it ends by itself meanwhile."""
        process = self._alive()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        self._alive()

    def work_until(self, reached: Callable[[], bool], within_s: float = 30.0) -> None:
        """Let it work until `reached` says so. Raises AssertionError with its log when that takes longer."""
        deadline = time.monotonic() + within_s
        while not reached():
            if time.monotonic() > deadline:
                msg = f"not reached within {within_s} s\n{self.log.read_text(errors='replace')[-3000:]}"
                raise AssertionError(msg)
            self.rest(STEP_S)

    def _alive(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            status = self._process.returncode if self._process is not None else "none: never started"
            said = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
            msg = f"the program does not run, exit status {status}\n{said}"
            raise AssertionError(msg)
        return self._process


def await_delivery(victim: Victim, trace: Path, since_ns: int, within_s: float = 60.0) -> None:
    """Return once the victim has recorded a delivery of rows after `since_ns`."""
    deadline = time.monotonic() + within_s
    while not any(step.at_ns > since_ns and step.event == "durable" and step.changes for step in read_steps(trace)):
        if time.monotonic() > deadline:
            msg = f"no delivery of rows within {within_s} s\n{victim.log.read_text(errors='replace')[-3000:]}"
            raise AssertionError(msg)
        victim.rest(STEP_S)


def kill_at_random(victim: Victim, trace: Path, *, kills: int, apart_s: float, dice: Random) -> list[int]:
    """Kill a running victim that often, each time at a random moment after a delivery; return the moments in ns.

    It is running when this returns, and has not necessarily delivered since.
    """
    moments = [time.monotonic_ns()]
    for _ in range(kills):
        await_delivery(victim, trace, moments[-1])
        victim.rest(dice.uniform(0, apart_s))
        moments.append(victim.kill())
        victim.start()
    return moments[1:]
