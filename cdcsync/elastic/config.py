"""What a pipeline's file says about Elasticsearch or OpenSearch: as a sink and as a store of positions."""

from __future__ import annotations

import enum
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from cdcsync.addresses import Host, Tls, TlsMode
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.units import Duration, Size

PORT: Final = 9200
HTTPS_PORT: Final = 443


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ElasticServerConfig(_Section):
    """Where a cluster is and who we are there; what sink and store share."""

    hosts: tuple[str, ...] = ()
    """URLs, as https://es1.example:9200; a node that fails is left out for a while."""
    cloud_id: str | None = None
    """Elastic Cloud's word for where the cluster is; instead of `hosts`."""
    api_key: SecretStr | None = None
    """The encoded form; a reference as ${credential:NAME}."""
    user: str | None = None
    """With `password`: HTTP's basic authentication."""
    password: SecretStr | None = None
    token: SecretStr | None = None
    """A bearer token."""
    tls: Tls = Tls()
    request_timeout: Duration = timedelta(seconds=30)
    """How long one answer may take; never more than half of an index's `gc_deletes`."""

    @model_validator(mode="after")
    def _reachable(self) -> ElasticServerConfig:
        if (self.cloud_id is None) == (not self.hosts):
            msg = "name either `hosts` or `cloud_id`"
            raise ValueError(msg)
        if sum(each is not None for each in (self.api_key, self.user, self.token)) > 1:
            msg = "name one of `api_key`, `user` and `token`"
            raise ValueError(msg)
        if (self.user is None) != (self.password is None):
            msg = "`user` and `password` go together"
            raise ValueError(msg)
        for text in self.hosts:
            host = urlsplit(text)
            if host.scheme == "http" and not address(text).is_local and self.tls.mode is not TlsMode.DISABLE:
                msg = f"{text} is not encrypted; write https://, or add `tls: {{mode: disable}}`"
                raise ValueError(msg)
        return self

    @field_validator("hosts")
    @classmethod
    def _urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parts = urlsplit(text)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
                msg = f"not a host: {text!r}; write https://name:9200, who you are in fields of its own"
                raise ValueError(msg)
        return value

    @property
    def where(self) -> str:
        """For messages: hosts, without a secret."""
        return ",".join(self.hosts) if self.hosts else str(self.cloud_id).partition(":")[0]


class Refresh(enum.StrEnum):
    """When what was written can be searched."""

    FALSE = "false"
    """At the index's own interval."""
    TRUE = "true"
    """At once: each request makes the index search anew; costs much."""
    WAIT_FOR = "wait_for"
    """Requests wait for the index's interval; costs latency."""


class Bulk(_Section):
    """Bounds of one request, and of those under way."""

    actions_max: int = Field(default=5000, ge=1)
    """Documents in one request."""
    bytes_max: Size = Field(default=Size(4 << 20), ge=1 << 10)
    """Bytes of one request, before compression; a document larger than this goes alone."""
    in_flight: int = Field(default=4, ge=1, le=64)
    """Requests under way at once."""


class IndexConfig(_Section):
    """What is particular to one index, or to all whose name fits a pattern."""

    id: str | None = None
    """A template of the document's `_id`, as "{tenant}-{number}": it names every column of the key."""
    routing: str | None = None
    """The column by which a document finds its shard."""
    pipeline: str | None = None
    """The ingest pipeline that each document goes through."""
    properties: dict[str, Any] = Field(default_factory=dict)
    """Fields as Elasticsearch's mapping has them, in place of those made from the source's types."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of an index that is made, over the sink's own."""


class ElasticStoreConfig(ElasticServerConfig):
    """A cluster that keeps a pipeline's position."""

    index: str = "cdcsync_positions"
    """Made when it is missing."""


class ElasticSinkConfig(ElasticServerConfig):
    """A cluster that gets a document for each row."""

    create_indexes: bool = True
    """Whether a missing index is made; else it is an error."""
    mapping: Literal["source", "template"] = "source"
    """Where the fields of an index that is made come from: the source's types, or your own index template alone."""
    dynamic: Literal["strict", "true", "false", "runtime"] = "strict"
    """What an index that is made does with a field it does not know."""
    decimals: Literal["exact", "double", "keyword", "scaled_float"] = "exact"
    """`exact`: double up to 15 digits, else keyword with a double beside it; the document keeps every digit always."""
    timestamps: Literal["nanos", "millis"] = "nanos"
    """`nanos`: date_nanos where the source has more than milliseconds, which takes 1970 to 2262; `millis`: date."""
    json_: Literal["flattened", "stored"] = Field("flattened", alias="json")
    """`flattened`: objects can be searched, other JSON is rejected; `stored`: any JSON, kept and not searched."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of every index that is made."""
    indexes: dict[str, IndexConfig] = Field(default_factory=dict)
    """By name or pattern (`orders_*`); the first that fits."""
    gc_deletes: Duration = timedelta(hours=1)
    """How long an index that is made remembers what was deleted: twice the longest that a request can be late."""
    refresh: Refresh = Refresh.FALSE
    bulk: Bulk = Bulk()
    gzip: bool | None = None
    """Whether requests are compressed; absent: where a host is not on this machine."""

    @property
    def compresses(self) -> bool:
        """Whether requests are compressed."""
        if self.gzip is not None:
            return self.gzip
        return self.cloud_id is not None or not all(address(text).is_local for text in self.hosts)

    def index(self, name: str) -> IndexConfig:
        """Return what is said of one index."""
        for pattern, found in self.indexes.items():
            if fnmatchcase(name, pattern):
                return found
        return _PLAIN


_PLAIN: Final = IndexConfig()


def address(url: str) -> Host:
    """Return a host's name and port."""
    parts = urlsplit(url)
    return Host(parts.hostname or "", parts.port or (HTTPS_PORT if parts.scheme == "https" else PORT))


def from_url(url: str) -> dict[str, Any]:
    """Return the section of `elasticsearch://user:password@host:9200,..`; `elasticsearch+http://` is not encrypted.

    Raises Fatal.
    """
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    local = [host for host in hosts.split(",") if address(f"https://{host}").is_local]
    scheme = "http" if parts.scheme.endswith("+http") or len(local) == len(hosts.split(",")) else "https"
    if not hosts or parts.path.strip("/"):
        msg = "not the URL of a cluster: write elasticsearch://user:password@host:9200"
        raise Fatal(msg, hint="an index is named by the mapping's `to`", status=ExitStatus.CONFIG)
    section: dict[str, Any] = {"hosts": [f"{scheme}://{_with_port(host)}" for host in hosts.split(",")]}
    if at:
        user, _, password = credentials.partition(":")
        section |= {"user": unquote(user), "password": unquote(password)}
    if scheme == "http" and len(local) < len(hosts.split(",")):
        section["tls"] = {"mode": "disable"}
    for key, value in parse_qsl(parts.query):
        if key not in {"api_key", "token", "refresh"}:
            msg = f"an elasticsearch URL has no option {key!r}"
            raise Fatal(msg, hint="there are: api_key, refresh, token", status=ExitStatus.CONFIG)
        section[key] = value
    return section


def _with_port(host: str) -> str:
    return host if urlsplit(f"http://{host}").port else f"{host}:{PORT}"
