"""What a pipeline's file says about MySQL and MariaDB: as a source, as a sink and as a store of positions."""

from __future__ import annotations

import enum
from datetime import timedelta
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from cdcsync.addresses import Host, Tls, TlsMode, parse_host
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql import gtid
from cdcsync.mysql.position import FIRST_OFFSET, file_number
from cdcsync.units import Duration, Moment, first_word

PORT: Final = 3306
WRITE_WAIT_S: Final = 3600
"""How long the server waits for a reader whose sink is slow; its default, 60 s, throws such a reader out."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MysqlServerConfig(_Section):
    """Where a server is and who we are there; what source, sink and store share."""

    host: str | None = None
    """A name, an address, or the path of a unix socket."""
    hosts: tuple[str, ...] = ()
    """Several, `host` or `host:port`, in the order to try them; one that is read-only is passed over."""
    port: int = Field(PORT, ge=1, le=65535)
    user: str
    password: SecretStr | None = None
    """A reference: `${env:NAME}`, `${file:PATH}` or `${credential:NAME}`."""
    tls: Tls = Tls()
    connect_timeout_s: int = Field(10, ge=2)

    @model_validator(mode="after")
    def _hosts(self) -> MysqlServerConfig:
        if (self.host is None) == (not self.hosts):
            msg = "name either `host` or `hosts`"
            raise ValueError(msg)
        for text in self.hosts:
            parse_host(text, self.port)
        return self

    @property
    def addresses(self) -> list[Host]:
        """All hosts, in the order to try them."""
        return [parse_host(text, self.port) for text in (self.hosts or (str(self.host),))]

    @property
    def tls_mode(self) -> TlsMode:
        """The mode in force."""
        if self.tls.mode is not None:
            return self.tls.mode
        return TlsMode.PREFER if all(host.is_local for host in self.addresses) else TlsMode.VERIFY_FULL

    @property
    def where(self) -> str:
        """For messages: user and hosts, without the secret."""
        return f"{self.user}@{','.join(map(str, self.addresses))}"

    def session(self) -> dict[str, str | int]:
        """Return the variables that a session sets besides those of every session."""
        return {}


class FromFile(_Section):
    """Start at a place in a binlog file that the server still has."""

    file: str
    """As `binlog.000123`."""
    offset: int = Field(FIRST_OFFSET, ge=FIRST_OFFSET)
    """Where a transaction begins."""

    @field_validator("file")
    @classmethod
    def _form(cls, value: str) -> str:
        file_number(value)
        return value


class FromGtid(_Section):
    """Start after the transactions named: a set of MySQL's, or a list of MariaDB's."""

    gtid: str
    """As `uuid:1-100`, or `0-1-100`."""

    @field_validator("gtid")
    @classmethod
    def _form(cls, value: str) -> str:
        return str(gtid.parse(value))


class FromTime(_Section):
    """Start at the first transaction that was committed at that time or later."""

    time: Moment
    """As `2026-11-24T08:00:00Z`."""


class OnLostPosition(enum.StrEnum):
    """What happens where the server has removed the log that comes next."""

    STOP = "stop"
    SNAPSHOT = "snapshot"


class ZeroDates(enum.StrEnum):
    """What a date such as 0000-00-00 or 2020-02-00 becomes, which no calendar has."""

    STOP = "stop"
    """Nothing: the pipeline stops at it."""
    NULL = "null"
    TEXT = "text"
    """Itself, as text; for targets that take it."""


Start = Literal["initial", "initial_only", "now", "earliest"] | FromFile | FromGtid | FromTime

_STARTS: Final = "initial, initial_only, now, earliest, {file: .., offset: ..}, {gtid: ..}, {time: ..}"
_REFUSED: Final = {
    "lsn": "that is PostgreSQL's; use {gtid: ..} or {file: .., offset: ..}",
}


class MysqlSource(MysqlServerConfig):
    """The server whose binlog is read; MySQL and MariaDB are told apart by themselves."""

    database: str | None = None
    """Where a table of the mapping lies that is named without one."""
    start: Start = Field("initial", validate_default=True)
    """Of the first run: `initial` copies the rows while it follows the log, `initial_only` ends when they are copied;
    `now`, `earliest`, `{file: .., offset: ..}`, `{gtid: ..}` or `{time: ..}` only follow the log from there."""
    on_lost_position: OnLostPosition = OnLostPosition.STOP
    """When the log since the stored position is gone: stop, or clear the targets and copy everything again."""
    on_table_error: Literal["stop", "isolate"] = "stop"
    """When a table cannot be read: stop, or leave that one alone, shown by `status`, until `cdcsync rebuild`."""
    snapshot_parallel: int = Field(2, ge=1, le=16)
    """Chunks of rows read at once, each in a session of its own."""
    snapshot_chunk: Duration = Field(timedelta(milliseconds=500), gt=timedelta(0))
    """How long reading one chunk should take; its size follows what is measured."""
    snapshot_timeout: Duration = Field(timedelta(minutes=10), gt=timedelta(0))
    """Of one statement that reads a chunk; past it the chunk is read in smaller ones."""
    snapshot_where: dict[str, str] = Field(default_factory=dict)
    """By `database.table`: which rows the first copy takes, in the server's SQL; absent: all."""
    snapshot_order: tuple[str, ...] = ()
    """Tables, as `database.table`, that are copied before the others, in this order."""
    rows_per_s_max: int | None = Field(None, ge=1)
    """Rows read per second by a copy; absent: as fast as they are written."""
    server_id: int | None = Field(None, ge=1, lt=1 << 32)
    """As which replica we read; absent: made of the pipeline's name, and another where that is taken."""
    zero_dates: ZeroDates = ZeroDates.STOP
    """`stop`, `null` or `text`: what a date such as 0000-00-00 becomes."""
    heartbeat: Duration = Field(timedelta(seconds=10), gt=timedelta(0))
    """How often a silent server says that it is alive."""
    silence_max: Duration = timedelta(seconds=60)
    """After which a server that says nothing is deaf, and connected to anew."""

    @field_validator("start", mode="before")
    @classmethod
    def _start(cls, value: Any) -> Any:
        word = first_word(value)
        if word in _REFUSED:
            msg = f"start: {word}: {_REFUSED[word]}"
            raise ValueError(msg)
        if word is not None and word not in {
            "initial",
            "initial_only",
            "now",
            "earliest",
            "file",
            "offset",
            "gtid",
            "time",
        }:
            msg = f"start: one of {_STARTS}"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _silence(self) -> MysqlSource:
        if self.silence_max < 2 * self.heartbeat:
            msg = "`silence_max` has to be at least twice `heartbeat`"
            raise ValueError(msg)
        return self

    def session(self) -> dict[str, str | int]:
        """Nothing may throw out a reader whose sink is slow."""
        return {"net_write_timeout": WRITE_WAIT_S, "wait_timeout": 28800, "transaction_isolation": "REPEATABLE-READ"}


class Isolation(enum.StrEnum):
    """Of the sink's transactions."""

    READ_COMMITTED = "READ-COMMITTED"
    REPEATABLE_READ = "REPEATABLE-READ"
    SERIALIZABLE = "SERIALIZABLE"


class MysqlSink(MysqlServerConfig):
    """The database that is kept in step."""

    model_config = ConfigDict(defer_build=True)

    database: str = Field(min_length=1)
    """Where a target table lies whose mapping names no database, and `cdcsync_positions`."""
    create_tables: bool = True
    """Whether missing target tables are created."""
    isolation: Isolation = Isolation.READ_COMMITTED
    """Of the sink's transactions."""
    lock_timeout: Duration = Field(timedelta(seconds=30), ge=timedelta(seconds=1))
    """How long a statement waits for a lock before the batch is tried again."""

    @property
    def schema_(self) -> str:
        """Where a table lies that names no database; as other sinks call it."""
        return self.database

    def session(self) -> dict[str, str | int]:
        """Return the limits and the isolation of every transaction."""
        wait_s = max(1, round(self.lock_timeout.total_seconds()))
        return {
            "innodb_lock_wait_timeout": wait_s,
            "lock_wait_timeout": wait_s,
            "transaction_isolation": self.isolation.value,
            "sql_mode": "NO_AUTO_VALUE_ON_ZERO,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES",
            "foreign_key_checks": 1,
            "unique_checks": 1,
        }


class MysqlStore(MysqlServerConfig):
    """A database that stores positions for sinks that cannot."""

    model_config = ConfigDict(defer_build=True)

    database: str = Field(min_length=1)
    """Where `cdcsync_positions` lies."""

    def session(self) -> dict[str, str | int]:
        """A position is durable when its commit returns."""
        return {"innodb_lock_wait_timeout": 30, "lock_wait_timeout": 30}


def from_url(url: str) -> dict[str, Any]:
    """Return what the section of a file would hold for `mysql://user:password@host:port/database?options`.

    Several hosts are separated by commas. Options are the clients' ssl-mode, ssl-ca, ssl-cert, ssl-key,
    connect-timeout and socket, and the section's own plain ones. Raises Fatal with CONFIG.
    """
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    section: dict[str, Any] = {"user": unquote(user) or "root"}
    if parts.path[1:]:
        section["database"] = unquote(parts.path[1:])
    if password:
        section["password"] = unquote(password)
    _put_hosts(section, [unquote(name) for name in hosts.split(",") if name])
    tls: dict[str, str] = {}
    for key, value in parse_qsl(parts.query):
        name = key.replace("-", "_")
        if name == "ssl_mode":
            tls["mode"] = _SSL_MODES.get(value.upper(), value)
        elif name in _TLS_OPTIONS:
            tls[_TLS_OPTIONS[name]] = value
        elif name in _INTEGERS:
            section[_INTEGERS[name]] = int(value)
        elif name in _URL_OPTIONS:
            section[_URL_OPTIONS[name]] = value
        else:
            msg = f"a mysql URL has no option {key!r}"
            there = sorted(["ssl-mode", *_TLS_OPTIONS, *_INTEGERS, *_URL_OPTIONS])
            hint = f"there are: {', '.join(word.replace('ssl_', 'ssl-') for word in there)}"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    if tls:
        section["tls"] = tls
    if "host" not in section and "hosts" not in section:
        section["host"] = "localhost"
    return section


_SSL_MODES: Final = {
    "DISABLED": "disable",
    "PREFERRED": "prefer",
    "REQUIRED": "require",
    "VERIFY_CA": "verify-ca",
    "VERIFY_IDENTITY": "verify-full",
}
_TLS_OPTIONS: Final = {"ssl_ca": "ca", "ssl_cert": "cert", "ssl_key": "key"}
_INTEGERS: Final = {"connect_timeout": "connect_timeout_s", "server_id": "server_id", "port": "port"}
_URL_OPTIONS: Final = {"host": "host", "socket": "host", "start": "start", "zero_dates": "zero_dates"}


def _put_hosts(section: dict[str, Any], names: list[str]) -> None:
    if len(names) > 1:
        section["hosts"] = names
    elif names:
        section["host"], port = parse_host(names[0], PORT)
        if port != PORT:
            section["port"] = port
