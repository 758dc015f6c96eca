"""What a pipeline's file says about PostgreSQL: as a source, as a sink and as a store of positions."""

from __future__ import annotations

import enum
import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from cdcsync.addresses import Host, Tls, TlsMode, parse_host
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.units import Duration, Size, first_word

PORT: Final = 5432
NAME_BYTES_MAX: Final = 63
"""NAMEDATALEN - 1; slot names are bound by it as well."""

_LSN: Final = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PostgresServerConfig(_Section):
    """Where a server is and who we are there; what source, sink and store share."""

    host: str | None = None
    """A name, an address, or the directory of a unix socket."""
    hosts: tuple[str, ...] = ()
    """Several, `host` or `host:port`; the one that is the primary is taken."""
    port: int = Field(PORT, ge=1, le=65535)
    user: str
    password: SecretStr | None = None
    """A reference: `${env:NAME}`, `${file:PATH}` or `${credential:NAME}`."""
    database: str
    tls: Tls = Tls()
    connect_timeout_s: int = Field(10, ge=2)

    @model_validator(mode="after")
    def _hosts(self) -> PostgresServerConfig:
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
        """For messages: user, hosts and database, without the secret."""
        return f"{self.user}@{','.join(map(str, self.addresses))}/{self.database}"

    def session(self) -> dict[str, str]:
        """Return what a session sets besides the output formats."""
        return {}


class PublicationMode(enum.StrEnum):
    """Which tables the publication has."""

    FILTERED = "filtered"
    """The tables that the mapping names; cdcsync makes it and adds to it."""
    ALL_TABLES = "all_tables"
    """FOR ALL TABLES; cdcsync makes it."""
    EXISTING = "existing"
    """Somebody else makes it; cdcsync only checks it."""


class Publication(_Section):
    """The publication to read."""

    name: Annotated[str, Field(min_length=1)] | None = None
    """Absent: the slot's name."""
    mode: PublicationMode = PublicationMode.FILTERED
    """`filtered`: the mapping's tables, made by cdcsync; `all_tables`: FOR ALL TABLES, made by cdcsync; `existing`:
    somebody else's, only checked."""


class FromLsn(_Section):
    """Start at a place in the log, which a slot still holds."""

    lsn: str
    """As `16/B374D848`."""

    @field_validator("lsn")
    @classmethod
    def _form(cls, value: str) -> str:
        if not _LSN.fullmatch(value):
            msg = f"not an LSN: {value!r}; write it as 16/B374D848"
            raise ValueError(msg)
        return value


class Retain(_Section):
    """How much of the log a second slot keeps, to be replayed; whichever limit is reached first."""

    time: Duration | None = None
    """Log no older than this."""
    bytes: Size | None = None
    """Log no longer than this."""

    @model_validator(mode="after")
    def _some(self) -> Retain:
        if self.time is None and self.bytes is None:
            msg = "give `time`, `bytes` or both"
            raise ValueError(msg)
        return self


class Partitions(enum.StrEnum):
    """As which table a partition's changes come."""

    ROOT = "root"
    LEAF = "leaf"


Start = Literal["initial", "initial_only", "now"] | FromLsn

_OTHER_STARTS: Final = {
    "earliest": "a PostgreSQL slot keeps nothing from before it was made; use initial, or {lsn: ..} with `retain`",
    "file": "that is a binlog's; use {lsn: ..}",
    "gtid": "that is MySQL's; use {lsn: ..}",
    "time": "the WAL has no index by time; use {lsn: ..}",
}


class PostgresSource(PostgresServerConfig):
    """The database whose log is read."""

    slot: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,56}$")] | None = None
    """Absent: `cdcsync_` and the pipeline's name. 56, so that `_retain` still fits into 63."""
    publication: Publication = Publication()
    start: Start = "initial"
    """Of the first run: `initial` copies the rows while it follows the log; `initial_only` ends when they are copied;
    `now` follows the log from here on."""
    on_lost_position: Literal["stop", "snapshot"] = "stop"
    """When the log since the stored position is gone: stop, or clear the targets and copy everything again."""
    on_table_error: Literal["stop", "isolate"] = "stop"
    """When a table cannot be read: stop, or leave that one alone, shown by `status`, until `cdcsync rebuild`."""
    snapshot_parallel: int = Field(2, ge=1, le=16)
    """Chunks of rows read at once, each on a connection of its own."""
    snapshot_chunk: Duration = timedelta(milliseconds=500)
    """How long reading one chunk should take; its size follows what is measured."""
    snapshot_timeout: Duration = timedelta(minutes=10)
    """Of one statement that reads a chunk; past it the chunk is read in smaller ones."""
    snapshot_where: dict[str, str] = Field(default_factory=dict)
    """By `schema.table`: which rows the first copy takes, in the server's SQL; absent: all."""
    snapshot_order: tuple[str, ...] = ()
    """Tables, as `schema.table`, that are copied before the others, in this order."""
    rows_per_s_max: int | None = Field(None, ge=1)
    """Rows read per second by a copy; absent: as fast as they are written."""
    retain: Retain | None = None
    failover: bool | None = None
    """Whether standbys synchronise the slot; absent: on servers from 17 on."""
    partitions: Partitions = Partitions.ROOT
    """As which table a partition's changes come."""
    messages: bool = False
    """Whether logical messages (pg_logical_emit_message) are read."""

    @field_validator("start", mode="before")
    @classmethod
    def _start(cls, value: Any) -> Any:
        word = first_word(value)
        if word in _OTHER_STARTS:
            msg = f"start: {word}: {_OTHER_STARTS[word]}"
            raise ValueError(msg)
        if word not in {"initial", "initial_only", "now", "lsn"} and not isinstance(value, FromLsn):
            msg = "start: one of initial, initial_only, now, {lsn: ..}"
            raise ValueError(msg)
        return value

    def slot_of(self, pipeline: str) -> str:
        """Return the slot's name; a pipeline's own letters are folded to what a slot may have."""
        if self.slot is not None:
            return self.slot
        return "cdcsync_" + re.sub(r"[^a-z0-9_]", "_", pipeline.lower())[:48]

    def publication_of(self, pipeline: str) -> str:
        """Return the publication's name."""
        return self.publication.name or self.slot_of(pipeline)

    def session(self) -> dict[str, str]:
        """Nothing may cut a copy short, hide a row, or make a name depend on who reads it."""
        return {"statement_timeout": "0", "lock_timeout": "0", "row_security": "off", "search_path": ""}


class Isolation(enum.StrEnum):
    """Of the sink's transactions."""

    READ_COMMITTED = "read committed"
    REPEATABLE_READ = "repeatable read"
    SERIALIZABLE = "serializable"


class SynchronousCommit(enum.StrEnum):
    """What a commit of the sink waits for; `off` and less would acknowledge what can still be lost."""

    ON = "on"
    REMOTE_APPLY = "remote_apply"
    LOCAL = "local"


class PostgresSink(PostgresServerConfig):
    """The database that is kept in step."""

    model_config = ConfigDict(defer_build=True)

    schema_: str = Field("public", alias="schema", min_length=1)
    """Where a target table lies whose mapping names no schema, and `cdcsync_positions`."""
    create_tables: bool = True
    """Whether missing target tables are created."""
    isolation: Isolation = Isolation.READ_COMMITTED
    """Of the sink's transactions."""
    lock_timeout: Duration = timedelta(seconds=30)
    """How long a statement waits for a lock before the batch is tried again."""
    statement_timeout: Duration = timedelta(0)
    """0: no limit."""
    synchronous_commit: SynchronousCommit = SynchronousCommit.ON
    """What a commit waits for; `off` would call durable what can still be lost."""

    def session(self) -> dict[str, str]:
        """Return the limits and the isolation of every transaction."""
        return {
            "lock_timeout": f"{_ms(self.lock_timeout)}ms",
            "statement_timeout": f"{_ms(self.statement_timeout)}ms",
            "default_transaction_isolation": self.isolation.value,
            "synchronous_commit": self.synchronous_commit.value,
        }


class PostgresStore(PostgresServerConfig):
    """A database that stores positions for sinks that cannot."""

    model_config = ConfigDict(defer_build=True)

    schema_: str = Field("public", alias="schema", min_length=1)
    """Where `cdcsync_positions` lies."""

    def session(self) -> dict[str, str]:
        """A position is durable when its commit returns."""
        return {"synchronous_commit": "on", "lock_timeout": "30s"}


def from_url(url: str) -> dict[str, Any]:
    """Return what the section of a file would hold for `postgres://user:password@host:port/database?options`.

    Several hosts are separated by commas. Options are libpq's sslmode, sslrootcert, sslcert, sslkey, host (a
    socket's directory), connect_timeout, and the section's own plain ones. Raises Fatal with CONFIG.
    """
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    section: dict[str, Any] = {"user": unquote(user) or "postgres", "database": unquote(parts.path[1:]) or "postgres"}
    if password:
        section["password"] = unquote(password)
    names = [unquote(name) for name in hosts.split(",") if name]
    _put_hosts(section, names)
    tls: dict[str, str] = {}
    for key, value in parse_qsl(parts.query):
        if (key, value) == ("sslrootcert", "system"):
            continue  # libpq's word for the system's authorities, which is what no `ca` means here
        if key in _TLS_OPTIONS:
            tls[_TLS_OPTIONS[key]] = value
        elif key == "connect_timeout":
            section["connect_timeout_s"] = int(value)
        elif key in _URL_OPTIONS:
            section[key] = value
        else:
            msg = f"a postgres URL has no option {key!r}"
            hint = f"there are: {', '.join(sorted([*_TLS_OPTIONS, *_URL_OPTIONS, 'connect_timeout']))}"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    if tls:
        section["tls"] = tls
    if "host" not in section and "hosts" not in section:
        section["host"] = "localhost"
    return section


_TLS_OPTIONS: Final = {"sslmode": "mode", "sslrootcert": "ca", "sslcert": "cert", "sslkey": "key"}
_URL_OPTIONS: Final = {"host", "port", "slot", "start", "schema", "partitions"}


def _put_hosts(section: dict[str, Any], names: list[str]) -> None:
    if len(names) > 1:
        section["hosts"] = names
    elif names:
        section["host"], port = parse_host(names[0], PORT)
        if port != PORT:
            section["port"] = port


def _ms(value: timedelta) -> int:
    return round(value / timedelta(milliseconds=1))
