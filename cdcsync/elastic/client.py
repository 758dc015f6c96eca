"""Talks HTTP with a cluster, by Elastic's own transport, which asks no server what product it is."""

from __future__ import annotations

import ssl
import zlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import orjson
from elastic_transport import NodeConfig, Serializer, Transport, TransportError
from elastic_transport.client_utils import parse_cloud_id

from cdcsync.addresses import TlsMode
from cdcsync.elastic.config import address
from cdcsync.elastic.errors import lost, verdict
from cdcsync.errors import End, ExitStatus, Fatal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.elastic.config import ElasticServerConfig

JSON: Final = {"content-type": "application/json", "accept": "application/json"}
LINES: Final = {"content-type": "application/x-ndjson", "accept": "application/json"}
GZIP_LEVEL: Final = 1
"""Rows repeat their field names: the least effort takes most of the size."""
OK: Final = 300
NOT_FOUND: Final = 404


class _Raw(Serializer):
    """Leaves bytes as they are: requests are built, and answers read, by orjson where they are needed."""

    mimetype = "application/json"

    def dumps(self, data: Any) -> bytes:
        """Return the bytes given."""
        return bytes(data) if not isinstance(data, bytes) else data

    def loads(self, data: bytes) -> Any:
        """Return the bytes given."""
        return data


class Answer(NamedTuple):
    """What a cluster said."""

    status: int
    body: bytes

    def parsed(self) -> Any:
        """Return the JSON; a proxy's page becomes its text."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return self.body[:300].decode(errors="replace")


class Client:
    """One cluster. Threads may share it."""

    def __init__(self, config: ElasticServerConfig, end: End) -> None:
        self._end = end
        self.where = config.where
        self._timeout_s = config.request_timeout.total_seconds()
        serializers = dict.fromkeys(
            ["application/json", "application/x-ndjson", "text/plain", "text/html", "application/octet-stream"], _Raw()
        )
        self._transport = Transport(
            nodes(config),
            serializers=serializers,
            max_retries=0,
            meta_header=False,
            dead_node_backoff_factor=0.1,
            max_dead_node_backoff=5.0,
        )
        self._headers = _authorization(config)

    def send(
        self, method: str, path: str, body: bytes | None, doing: str, *, gzip: bool = False, timeout_s: float = 0.0
    ) -> Answer:
        """Send text as it is; return the answer whatever its status. Raises Transient and Fatal when none came."""
        headers = {**(LINES if path.startswith("/_bulk") else JSON), **self._headers}
        if body is not None and gzip:
            body = zlib.compress(body, GZIP_LEVEL, wbits=31)
            headers["content-encoding"] = "gzip"
        return self._perform(method, path, body, headers, doing, timeout_s or self._timeout_s)

    def ask(self, method: str, path: str, body: Any = None, *, doing: str, missing: bool = False) -> Any:
        """Return the answer's JSON; None for a 404 with `missing`. Raises Transient and Fatal when it is an error."""
        text = None if body is None else orjson.dumps(body)
        headers = {**(JSON if text is not None else {"accept": "application/json"}), **self._headers}
        answer = self._perform(method, path, text, headers, doing, self._timeout_s)
        if answer.status == NOT_FOUND and missing:
            return None
        if answer.status >= OK:
            raise verdict(answer.status, answer.parsed(), self._end, doing)
        return answer.parsed()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _perform(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], doing: str, timeout_s: float
    ) -> Answer:
        try:
            answer = self._transport.perform_request(
                method, path, body=body, headers=headers, request_timeout=timeout_s
            )
        except TransportError as error:
            raise lost(error, self._end, doing, self.where) from error
        return Answer(answer.meta.status, answer.body or b"")


def named(*names: str) -> str:
    """Return names as a part of a path."""
    return ",".join(quote(name, safe="") for name in names)


def _authorization(config: ElasticServerConfig) -> dict[str, str]:
    if config.api_key is not None:
        return {"authorization": f"ApiKey {config.api_key.get_secret_value()}"}
    if config.token is not None:
        return {"authorization": f"Bearer {config.token.get_secret_value()}"}
    if config.user is not None and config.password is not None:
        text = f"{config.user}:{config.password.get_secret_value()}"
        return {"authorization": f"Basic {b64encode(text.encode()).decode()}"}
    return {}


def nodes(config: ElasticServerConfig) -> list[NodeConfig]:
    """Return where the cluster is, each node with what is trusted. Raises Fatal."""
    if config.cloud_id is not None:
        try:
            cloud = parse_cloud_id(config.cloud_id)
        except ValueError as error:
            msg = "`cloud_id` is not one of Elastic Cloud's"
            raise Fatal(msg, hint="copy it whole from the deployment's page", status=ExitStatus.CONFIG) from error
        host, port = cloud.es_address or ("", 0)
        return [NodeConfig("https", host, port, ssl_context=_context(config, local=False))]
    nodes = []
    for url in config.hosts:
        parts, place = urlsplit(url), address(url)
        context = _context(config, local=place.is_local) if parts.scheme == "https" else None
        path = parts.path.rstrip("/")
        nodes.append(NodeConfig(parts.scheme, place.name, place.port, path_prefix=path, ssl_context=context))
    return nodes


def _context(config: ElasticServerConfig, *, local: bool) -> ssl.SSLContext:
    tls = config.tls
    mode = tls.mode or (TlsMode.PREFER if local and tls.ca is None else TlsMode.VERIFY_FULL)
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
        if tls.cert is not None and tls.key is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        msg = f"the files of `tls` cannot be read: {error}"
        raise Fatal(msg, hint="name PEM files that this user may read", status=ExitStatus.CONFIG) from error
    context.check_hostname = mode is TlsMode.VERIFY_FULL
    if mode in {TlsMode.PREFER, TlsMode.REQUIRE, TlsMode.DISABLE}:
        context.verify_mode = ssl.CERT_NONE
    return context
