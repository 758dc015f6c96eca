"""Real MySQL and MariaDB servers, run unprivileged on loopback in private directories, and gone when this process is."""

from __future__ import annotations

import contextlib
import shutil
import signal
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode

import pymysql
from pymysql.constants import CLIENT
from pymysql.cursors import DictCursor
from trustme import KeyType

from cdcsync.testing import certificates, processes
from cdcsync.testing.mysql_builds import BUILDS
from cdcsync.testing.processes import SOCKET_PATH_MAX, Process, ServerFault, free_port, private_directory, unprivileged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SETTINGS: Final[Mapping[str, str]] = {
    "bind_address": "127.0.0.1",
    "log_bin": "binlog",
    "binlog_format": "ROW",
    "sync_binlog": "0",
    "innodb_flush_log_at_trx_commit": "2",
    "innodb_buffer_pool_size": "64M",
    "innodb_log_file_size": "48M",
    "max_connections": "100",
    "default_time_zone": "+05:45",
    "character_set_server": "utf8mb4",
    "skip_name_resolve": "ON",
    "local_infile": "ON",
    "secure_file_priv": "",
    "log_bin_trust_function_creators": "ON",
}
"""What every server starts with; the build's settings win, then the constructor's.

A crash of the process loses nothing that the operating system has, so no commit waits for the disk. The time zone is
one that nobody takes for UTC.
"""
ANSWER_MAX_S: Final = 5
"""For a connection; a server that has just started answers in milliseconds."""
READ: Final = "has read all relay log"
"""What the thread that applies says, in every version, when it has nothing to do."""


class MysqlServer:
    """One server of a build in `mysql_builds`, with TLS, GTIDs, and rows in its log; the user root may do everything."""

    host: Final = "127.0.0.1"
    user: Final = "root"

    def __init__(
        self,
        build: str = "mysql8",
        *,
        settings: Mapping[str, str] | None = None,
        directory: Path | None = None,
        port: int = 0,
        password: str = "harness",  # noqa: S107  of a server that lives as long as a test run
    ) -> None:
        self.build = BUILDS[build]
        self.password = password
        self.port = port or free_port()
        self.server_id = self.port
        """No other server of this machine has it."""
        self.settings = {**SETTINGS, "server_id": str(self.server_id), **self.build.settings, **(settings or {})}
        self._own_directory = directory is None
        self.directory = directory or private_directory(f"{build}-")
        """Private: data, log, socket, certificates; kept on `stop` when it was given."""
        self._process = Process(build, self.directory / "log", death="KILL")

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor."""
        return self.build.version

    @property
    def data(self) -> Path:
        """The data directory; the files of the log lie in it."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """The server's own messages."""
        return self._process.log

    @property
    def authority(self) -> Path:
        """The certificate to verify the server against."""
        return self.directory / "ca.crt"

    @property
    def has_tls(self) -> bool:
        """Whether this build speaks TLS."""
        return self.build.has_tls

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._process.running

    @classmethod
    def replica_of(cls, primary: MysqlServer, *, settings: Mapping[str, str] | None = None, port: int = 0) -> Self:
        """Return a replica that runs, reads by GTID from the start of the primary's log, and takes no other writes.

        `port` is a proxy's before the primary.
        """
        made = {**primary.settings, "read_only": "ON", **(settings or {})}
        del made["server_id"]
        replica = cls(primary.build.name, settings=made, password=primary.password).start()
        replica.execute(
            f"CHANGE MASTER TO MASTER_HOST = '{primary.host}', MASTER_PORT = {port or primary.port}, "
            f"MASTER_USER = '{primary.user}', MASTER_PASSWORD = '{primary.password}', MASTER_CONNECT_RETRY = 1, "
            f"{primary.build.follow}"
        )
        replica.execute("START SLAVE")
        return replica

    def start(self) -> Self:
        """Initialise when new, start, and return once it answers. Raises ServerFault."""
        new = not self.data.exists()
        if new:
            self._initialise()
        first = [f"--init-file={self._users}"] if new else []
        self._process.start([str(self.build.home() / self.build.server), *self._options(), *first], self._answers)
        self._users.unlink(missing_ok=True)
        return self

    def stop(self) -> None:
        """Shut down in order; may be called twice."""
        self._process.end(signal.SIGTERM)
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL the server: a crash. `start` recovers."""
        self._process.kill()

    def restart(self) -> None:
        """Shut down in order and start again, on the same port."""
        self._process.end(signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """SIGSTOP the server: it hangs, its connections stay."""
        self._process.pause()

    def resume(self) -> None:
        """End a `pause`."""
        self._process.resume()

    def promote(self) -> None:
        """Apply what has been received and make this replica a primary."""
        self.execute("STOP SLAVE IO_THREAD")
        self.await_applied()
        self.execute("STOP SLAVE")
        self.execute("RESET SLAVE ALL")
        self.execute("SET GLOBAL read_only = OFF")

    def logged(self) -> str:
        """Return the GTIDs that this server has logged, as it writes them."""
        return str(self.query(self.build.logged)[0][0])

    def await_logged(self, gtids: str) -> None:
        """Return once a replica has applied that. Raises ServerFault after a minute."""
        if self.query(self.build.reached, [gtids]) != [(0,)]:
            raise ServerFault(self._process.told(f"has not applied {gtids}"))

    def await_applied(self) -> None:
        """Return once a replica has applied all that it has received. Raises ServerFault."""
        for _ in range(1200):
            state = self.replica_state()
            if state["Last_SQL_Error"]:
                raise ServerFault(self._process.told(f"does not apply: {state['Last_SQL_Error']}"))
            if READ in str(state["Slave_SQL_Running_State"]):
                return
            self._process.rest(0.05)
        raise ServerFault(self._process.told("does not come to the end of what it has received"))

    def replica_state(self) -> dict[str, Any]:
        """Return SHOW SLAVE STATUS."""
        with self.connect() as connection, connection.cursor(DictCursor) as cursor:
            cursor.execute("SHOW SLAVE STATUS")
            (state,) = cursor.fetchall()
        return dict(state)

    def binlogs(self) -> list[str]:
        """Return the names of the log's files, the oldest first."""
        return [str(row[0]) for row in self.query("SHOW BINARY LOGS")]

    def position(self) -> tuple[str, int]:
        """Return file and offset of the log's end."""
        name, offset, *_ = self.query("SHOW MASTER STATUS")[0]
        return str(name), int(offset)

    def url(self, database: str = "", *, user: str = "", password: str = "", **options: str) -> str:
        """Return a URL with the password in it."""
        who = f"{quote(user or self.user, safe='')}:{quote(password or self.password, safe='')}"
        query = f"?{urlencode(options)}" if options else ""
        return f"mysql://{who}@{self.host}:{self.port}/{quote(database, safe='')}{query}"

    def connect(self, database: str = "") -> pymysql.Connection[Any]:
        """Return a new connection in autocommit mode, which may send several statements at once."""
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database or None,
            charset="utf8mb4",
            autocommit=True,
            client_flag=CLIENT.MULTI_STATEMENTS,
            local_infile=True,
            connect_timeout=ANSWER_MAX_S,
        )

    def execute(self, sql: str, params: Sequence[object] | None = None, *, database: str = "") -> None:
        """Run one statement or several, in autocommit."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params)
            while cursor.nextset():
                pass

    def query(self, sql: str, params: Sequence[object] | None = None, *, database: str = "") -> list[tuple[Any, ...]]:
        """Return the rows of one statement."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    def end_session(self, session: int) -> None:
        """End a session by its number, if it is still there."""
        with contextlib.suppress(pymysql.err.OperationalError):
            self.execute("KILL %s", [session])

    @property
    def _users(self) -> Path:
        return self.directory / "users.sql"

    def _initialise(self) -> None:
        """Make data directory, certificates and users; 8.0.15 has no ciphers for an elliptic key."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        processes.give(self.directory)
        certificates.issue(self.directory, owner=unprivileged(), key_type=KeyType.RSA)
        program, *options = self.build.initialise
        processes.run([str(self.build.home() / program), *self._places(), *options])
        self._users.write_text(
            "SET sql_log_bin = 0;\n"
            f"DROP USER IF EXISTS '{self.user}'@'127.0.0.1', '{self.user}'@'::1';\n"
            f"CREATE USER '{self.user}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO '{self.user}'@'%' WITH GRANT OPTION;\n"
        )
        processes.give(self._users)

    def _places(self) -> list[str]:
        """Return the options that its data, its programs and its messages are found by."""
        home = self.build.home()
        return [
            "--no-defaults",
            f"--basedir={home}",
            f"--datadir={self.data}",
            f"--tmpdir={self.directory}",
            f"--lc-messages-dir={home / self.build.messages}",
            f"--innodb-log-file-size={self.settings['innodb_log_file_size']}",
        ]

    def _options(self) -> list[str]:
        socket = self.directory / "socket"
        settings = {
            "port": str(self.port),
            "socket": str(socket) if len(str(self.directory)) < SOCKET_PATH_MAX else f"/tmp/{self.port}.sock",  # noqa: S108  a path that fits
            "pid_file": str(self.directory / "pid"),
            **(self._tls() if self.has_tls else {"ssl": "OFF"}),
            **self.settings,
        }
        return [*self._places(), *(f"--{name}={value}" for name, value in settings.items())]

    def _tls(self) -> dict[str, str]:
        files = {"ssl_cert": "server.crt", "ssl_key": "server.key", "ssl_ca": "ca.crt"}
        return {name: str(self.directory / file) for name, file in files.items()}

    def _answers(self) -> bool:
        with contextlib.suppress(pymysql.err.OperationalError):
            self.connect().close()
            return True
        return False
