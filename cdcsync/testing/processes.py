"""What every real server needs: a private directory, a free port, and a process that is unprivileged and outlives nobody."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START_MAX_S: Final = 60.0
STOP_MAX_S: Final = 15.0
"""A shutdown waits for readers of the log that hang; past this it is a SIGKILL."""
SOCKET_PATH_MAX: Final = 90
"""Bytes; sun_path holds 107 with the socket's own name (unix(7))."""


class ServerFault(Exception):  # noqa: N818  named as the verdicts are
    """A server cannot be found, does not start, or does not stop; the message ends with its log."""


class Process:
    """One server's process and all of its children, which write one log."""

    def __init__(self, what: str, log: Path, *, death: str = "INT") -> None:
        self.log = log
        self._what = what
        """Begins what is told of a fault."""
        self._death = death
        """The signal that ends it when this process is gone."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, command: Sequence[str], answers: Callable[[], bool], *, within_s: float = START_MAX_S) -> None:
        """Start and return once it answers. Raises ServerFault."""
        with self.log.open("ab") as log:
            self._process = spawn(command, log, death=self._death)
        _STARTED.append(self)
        deadline = time.monotonic() + within_s
        while not answers():
            if time.monotonic() > deadline or not self._outlives(0.03):
                raise ServerFault(self.told("does not start"))

    def end(self, signal_number: int) -> None:
        """Ask it to end, return once it has; may be called twice."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            self._signal_all(signal.SIGKILL)
            process.wait(STOP_MAX_S)
        self._process = None
        _STARTED.remove(self)

    def end_with_us(self) -> None:
        """End it as it ends when this process is gone."""
        self.end(getattr(signal, f"SIG{self._death}"))

    def kill(self) -> None:
        """SIGKILL it with its children: a crash."""
        if self._process is None:
            return
        self._signal_all(signal.SIGKILL)
        self.end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP it with its children: it hangs, its connections stay."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        self._signal_all(signal.SIGCONT)

    def cpu_s(self) -> float:
        """Return the seconds of processor that it and its children have taken."""
        ticks = 0
        for pid in [self._process.pid, *children(self._process.pid)] if self._process is not None else []:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def rest(self, seconds: float) -> None:
        """Let it work. Raises ServerFault when it ends meanwhile."""
        if not self._outlives(seconds):
            raise ServerFault(self.told("has ended"))

    def told(self, fault: str) -> str:
        """Return a fault's message."""
        log = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        return f"{self._what} in {self.log.parent} {fault}\n{log}"

    def _outlives(self, seconds: float) -> bool:
        if self._process is None:
            return False
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _signal_all(self, signal_number: int) -> None:
        if self._process is None:
            raise ServerFault(self.told("is not running"))
        for pid in [self._process.pid, *children(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)


_STARTED: list[Process] = []
_LAUNCHER: Final = ThreadPoolExecutor(1, thread_name_prefix="servers")
"""Starts every server: PR_SET_PDEATHSIG fires when the *thread* that forked ends (prctl(2))."""


@atexit.register
def stop_all() -> None:
    """Stop every server that this process started."""
    for process in _STARTED.copy():
        process.end_with_us()


def spawn(command: Sequence[str], output: Any, *, death: str = "INT") -> subprocess.Popen[bytes]:
    """Start a server that gets the signal `death` when this process is gone, however it ends; unprivileged."""
    full = [*drop_privileges(death), *command]

    def launch() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            full,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=environment(),
            start_new_session=True,
        )

    return _LAUNCHER.submit(launch).result()


def run(command: Sequence[str]) -> None:
    """Run one of a server's programs to its end, unprivileged. Raises ServerFault with what it said."""
    done = subprocess.run(
        [*drop_privileges(), *command], capture_output=True, check=False, cwd="/", env=environment(), text=True
    )
    if done.returncode:
        msg = f"{Path(command[0]).name} failed: {done.stdout}{done.stderr}"
        raise ServerFault(msg)


def drop_privileges(death: str = "INT") -> list[str]:
    """Return the prefix of a command that runs it unprivileged and not longer than this process.

    SIGINT gets its default back: a job that a script runs in the background ignores it, and so would what it starts.
    """
    owner = unprivileged()
    prefix = ["env", "--default-signal=INT", "setpriv", f"--pdeathsig={death}"]
    if owner is not None:
        prefix += [f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups"]
    return prefix


@functools.cache
def unprivileged() -> tuple[int, int] | None:
    """Return (uid, gid) that servers run as, None when this process is not root."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def private_directory(prefix: str) -> Path:
    """Return a new directory of mode 0700 that belongs to the user that servers run as."""
    path = Path(tempfile.mkdtemp(prefix=f"cdcsync-{prefix}"))
    give(path)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def give(path: Path) -> None:
    """Make the path belong to the user that servers run as."""
    owner = unprivileged()
    if owner is not None:
        os.chown(path, *owner)


def free_port() -> int:
    """Return a port on loopback that nothing listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


_LOW: Final = range(15_000, 32_000)
"""Below the ports that the kernel gives to clients (ip_local_port_range, from 32768 on)."""


def low_port() -> int:
    """Return a free port that no client's connection takes before a slow server has bound it, or while it is down."""
    for port in random.SystemRandom().sample(_LOW, 200):
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    msg = "no free port on loopback"
    raise ServerFault(msg)


def children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(status.parent.name))
    return found


def is_reachable(path: Path) -> bool:
    """Return whether the user that servers run as can traverse to the path."""
    if unprivileged() is None:
        return True
    return all(parent.stat().st_mode & 0o001 for parent in [path, *path.parents])


def reachable(home: Path, *beside: Path) -> Path:
    """Return the folder, or a copy where servers reach it, with what it finds `beside` it by relative path."""
    if is_reachable(home):
        return home
    target = Path(tempfile.mkdtemp(prefix="cdcsync-programs-"))
    target.chmod(0o755)
    for source in (home, *beside):
        if source.exists():
            shutil.copytree(source, target / source.name, symlinks=True, copy_function=_link)
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    return target / home.name


def _link(source: str, target: str) -> None:
    """Copy in no time where both are on one file system."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)


def environment() -> dict[str, str]:
    """Return an environment in which nothing of the caller's changes a server or a client."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
