"""Connects: several hosts, TLS, either flavour; the one file over PyMySQL, beside the table of its errors."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import pymysql
from pymysql import converters
from pymysql.constants import CLIENT, COMMAND, CR, FIELD_TYPE
from pymysql.cursors import DictCursor, SSCursor

from cdcsync.addresses import TlsMode
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.mysql.errors import MysqlError, describe, said, verdict
from cdcsync.mysql.server import VARIABLES, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdcsync.addresses import Host
    from cdcsync.mysql.config import MysqlServerConfig

Answer: TypeAlias = tuple[Any, ...]
"""One row: integers as int, all else as the server writes it: text, or bytes where it has no character set."""

SESSION: Final[Mapping[str, str | int]] = {
    "time_zone": "+00:00",
    "sql_mode": "NO_AUTO_VALUE_ON_ZERO,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
    "sql_auto_is_null": 0,
    "sql_safe_updates": 0,
    "sql_select_limit": (1 << 64) - 1,
    "sql_big_selects": 1,
    "net_read_timeout": 600,
}
"""In force in every session, whatever the server's init_connect says; zero dates are taken and shown as they are."""
READ_WAIT_S: Final = 600.0
"""How long a statement may take before the connection counts as dead, unless asked otherwise."""

_CONVERSIONS: Final = {
    **{kind: encode for kind, encode in converters.conversions.items() if not isinstance(kind, int)},
    **dict.fromkeys(
        (FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.INT24, FIELD_TYPE.LONG, FIELD_TYPE.LONGLONG, FIELD_TYPE.YEAR),
        int,
    ),
}
_MULTI_STATEMENTS_ON: Final = bytes(2)
"""Of COM_SET_OPTION."""
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
)
_CA: Final = "tls: {mode: verify-full, ca: /path/to/ca.pem}"
_OWN: Final = (
    "tls: {mode: verify-ca, ca: /path/to/ca.pem} with the ca.pem of the server's data directory: the certificates that "
    "MySQL makes for itself carry no host name"
)
_CLIENT: Final = "tls: {cert: /path/to/client.crt, key: /path/to/client.key}"
_TLS_REFUSALS: Final = (
    ("doesn't support it", "tls: {mode: disable}"),
    ("Hostname mismatch", _OWN),
    ("IP address mismatch", _OWN),
    ("doesn't match", _OWN),
    ("self-signed certificate", _CA),
    ("self signed certificate", _CA),
    ("unable to get local issuer", _CA),
    ("unable to get issuer", _CA),
    ("certificate verify failed", _CA),
    ("certificate required", _CLIENT),
    ("unsupported protocol", "tls: {mode: disable}, or a server that speaks TLS 1.2"),
    ("wrong version number", "tls: {mode: disable}"),
)


class Connection:
    """One session, in autocommit mode. Statements raise MysqlError, `ask` raises the verdict."""

    def __init__(self, raw: pymysql.Connection[Any], end: End, address: Host) -> None:
        self._raw = raw
        self.end = end
        self.address = address
        """The host that took us."""
        self.affected = 0
        """Rows that the last statement found, changed or not."""
        self._many = False
        """Whether the server was told that a packet may hold several statements."""
        with _judged(end, f"asking the server at {address} what it is"):
            self.server = Server.of(dict(self.execute(VARIABLES)))
        """Who it is and how it is set, as it was when we connected."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def id(self) -> int:
        """The server's number of this session, as KILL takes it."""
        return int(self._raw.thread_id())

    @property
    def socket(self) -> socket.socket:
        """What the server's packets are read from, by whoever sent a `command`; plain or TLS."""
        found = self._raw._sock  # noqa: SLF001  there is no public name
        assert isinstance(found, socket.socket)  # noqa: S101  the connection is open
        return found

    @property
    def is_encrypted(self) -> bool:
        """Whether it is TLS."""
        return isinstance(self._raw._sock, ssl.SSLSocket)  # noqa: SLF001

    def execute(self, query: str, values: Sequence[object] | None = None) -> Sequence[Answer]:
        """Run a statement and return all its rows; `%s` stands for a value, and %% for % where there are values.

        Without values lone surrogates are bytes, as for `run`.
        """
        with self._raw.cursor() as cursor:
            text = query if values is not None else query.encode("utf-8", "surrogateescape")
            self.affected = cursor.execute(text, values)
            return cursor.fetchall() or ()

    def run(self, statements: Sequence[str]) -> list[int]:
        """Send statements at once, without results of rows; return how many rows each found.

        Lone surrogates are bytes (`surrogateescape`). On an error those before the one at fault have happened.
        """
        if len(statements) > 1 and not self._many:
            self._raw._execute_command(COMMAND.COM_SET_OPTION, _MULTI_STATEMENTS_ON)  # noqa: SLF001
            self._raw._read_packet()  # noqa: SLF001
            self._many = True
        found = [int(self._raw.query(";".join(statements).encode("utf-8", "surrogateescape")))]
        while self._raw._result is not None and self._raw._result.has_next:  # noqa: SLF001
            found.append(int(self._raw.next_result()))
        return found

    def each(self, query: str, values: Sequence[object] | None = None) -> Iterator[Answer]:
        """Run a query and yield its rows as they come; nothing else may run until they were all taken or it is closed."""
        with self._raw.cursor(SSCursor) as cursor:
            cursor.execute(query, values)
            yield from cursor

    def begin(self, query: str, values: Sequence[object] | None = None) -> None:
        """Send a query as `each` does; its answer is for whoever calls `receive`, to its end."""
        with self._raw.cursor() as cursor:
            text = cursor.mogrify(query, values)
        self.command(COMMAND.COM_QUERY, text.encode("utf-8", "surrogateescape"))

    def receive(self, bytes_max: int) -> bytes:
        """Return what is here of the answer to what was sent, once something is."""
        try:
            data = self.socket.recv(bytes_max)
        except OSError as error:
            raise said(CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query ({error})") from error
        if not data:
            raise said(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
        return data

    def ask(self, doing: str, query: str, values: Sequence[object] | None = None) -> Sequence[Answer]:
        """Run as `execute` does. Raises Transient and Fatal saying what was being done."""
        with _judged(self.end, doing):
            return self.execute(query, values)

    def named(self, doing: str, query: str) -> list[dict[str, Any]]:
        """Run a query and return its rows by the columns' names. Raises Transient and Fatal as `ask` does."""
        with _judged(self.end, doing), self._raw.cursor(DictCursor) as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def command(self, code: int, payload: bytes) -> None:
        """Send a command of the protocol; its answer is for whoever reads `socket`, the first packet being number 1."""
        self._raw._execute_command(code, payload)  # noqa: SLF001

    def close(self) -> None:
        """Disconnect; undoes what is not committed. Never raises; may be called twice."""
        with contextlib.suppress(MysqlError, OSError):
            self._raw.close()

    def abort(self) -> None:
        """Disconnect without a word to the server, where it may not listen. Never raises."""
        self._raw._force_close()  # noqa: SLF001


def connect(
    config: MysqlServerConfig,
    *,
    purpose: str,
    end: End = End.SOURCE,
    database: str | None = None,
    read_write: bool = False,
    read_wait_s: float = READ_WAIT_S,
) -> Connection:
    """Return a session at the first host that answers, with `SESSION` and the section's own settings in force.

    `purpose` is shown in the server's list of sessions. `read_write` passes over hosts that are read-only.
    Raises Transient when no host answers, else Fatal with the line to add.
    """
    faults: list[Transient] = []
    for address in config.addresses:
        try:
            return connect_to(
                address,
                config,
                purpose=purpose,
                end=end,
                database=database,
                read_write=read_write,
                read_wait_s=read_wait_s,
            )
        except Transient as fault:
            faults.append(fault)
    raise Transient(end, "; ".join(map(str, faults)))


def connect_to(  # noqa: PLR0913  as `connect`, at one host
    address: Host,
    config: MysqlServerConfig,
    *,
    purpose: str,
    end: End = End.SOURCE,
    database: str | None = None,
    read_write: bool = False,
    read_wait_s: float = READ_WAIT_S,
) -> Connection:
    """Return a session at this one host. Raises Transient and Fatal."""
    raw = _opened(address, config, purpose, end, database)
    try:
        raw._read_timeout = raw._write_timeout = read_wait_s  # noqa: SLF001
        connection = Connection(raw, end, address)
        settings = connection.server.settings({**SESSION, **config.session()})
        assignments = ", ".join(f"SESSION {name} = %s" for name in settings)
        connection.ask(f"connecting to {address}", f"SET {assignments}", list(settings.values()))
    except BaseException:
        raw._force_close()  # noqa: SLF001
        raise
    if read_write and connection.server.is_read_only:
        connection.close()
        raise Transient(end, f"{address} is read-only")
    return connection


def quoted(*names: str) -> str:
    """Return names as SQL takes them, joined by dots."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def _opened(
    address: Host, config: MysqlServerConfig, purpose: str, end: End, database: str | None
) -> pymysql.Connection[Any]:
    password = config.password.get_secret_value() if config.password is not None else ""
    is_socket = address.name.startswith(("/", "@"))
    context = None if is_socket else _tls(config)
    try:
        raw = pymysql.Connection(
            host="localhost" if is_socket else address.name,
            unix_socket=address.name if is_socket else None,
            port=address.port,
            user=config.user,
            password=password.encode(),  # as text it would be sent as Latin-1
            database=database,
            charset="utf8mb4",
            conv=_CONVERSIONS,
            autocommit=True,
            client_flag=CLIENT.FOUND_ROWS,
            connect_timeout=config.connect_timeout_s,
            read_timeout=float(config.connect_timeout_s),
            write_timeout=float(config.connect_timeout_s),
            program_name=purpose,
            ssl=context if config.tls_mode is not TlsMode.PREFER else None,
            ssl_disabled=context is None,
            max_allowed_packet=1 << 30,
        )
    except MysqlError as error:
        raise refusal(error, address, config, end) from error
    except RuntimeError as error:  # a package that an authentication plugin needs
        msg = f"connecting to {address}: {error}"
        hint = "pip install 'cdcsync[mysql]'; for MariaDB's ed25519: pip install pynacl"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG) from error
    _refuse_plain(raw, address, config, needed=context is not None)
    if not is_socket:
        for option in _KEEPALIVE:
            raw._sock.setsockopt(*option)  # noqa: SLF001
    return raw


def _refuse_plain(raw: pymysql.Connection[Any], address: Host, config: MysqlServerConfig, *, needed: bool) -> None:
    """Do not trust the client library to have asked for TLS: some of its releases went on without."""
    if not needed or config.tls_mode is TlsMode.PREFER or isinstance(raw._sock, ssl.SSLSocket):  # noqa: SLF001
        return
    raw._force_close()  # noqa: SLF001
    msg = f"connecting to {address}: the connection is not encrypted"
    raise Fatal(msg, hint="add to the section: tls: {mode: disable}, if that is wanted", status=ExitStatus.PERMISSION)


def _tls(config: MysqlServerConfig) -> ssl.SSLContext | None:
    """Return how the server is verified; None: not encrypted."""
    mode, tls = config.tls_mode, config.tls
    if mode is TlsMode.DISABLE:
        return None
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca is not None else None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = mode is TlsMode.VERIFY_FULL
        verified = mode in {TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL}
        context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
        if tls.cert is not None:
            context.load_cert_chain(str(tls.cert), str(tls.key))
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (tls.ca, tls.cert, tls.key) if path is not None)
        msg = f"TLS: {files}: {error}"
        raise Fatal(msg, hint="name readable PEM files under `tls`", status=ExitStatus.CONFIG) from error
    return context


def refusal(error: MysqlError, address: Host, config: MysqlServerConfig, end: End) -> Transient | Fatal:
    """Judge a connection that did not come about."""
    text = describe(error)
    message = f"connecting to {config.user}@{address}: {text}"
    if isinstance(getattr(error, "original_exception", None), ssl.SSLError) or "SSL is required" in text:
        for part, line in _TLS_REFUSALS:
            if part in text:
                hint = f"TLS mode {config.tls_mode.value} refused it; add to the section: {line}"
                return Fatal(message, hint=hint, status=ExitStatus.PERMISSION)
    return verdict(error, end, f"connecting to {config.user}@{address}")


@contextlib.contextmanager
def _judged(end: End, doing: str) -> Iterator[None]:
    try:
        yield
    except MysqlError as error:
        raise verdict(error, end, doing) from error
