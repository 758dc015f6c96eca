"""What the client says to a server, who it says it is, and whom it trusts."""

from __future__ import annotations

import ssl
import threading
from base64 import b64encode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from elastic_transport import NodeConfig

from cdcsync.elastic.client import Client, nodes
from cdcsync.elastic.config import ElasticServerConfig
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.testing import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFUSAL = b'{"error":{"type":"security_exception","reason":"who is that"},"status":401}'


class Porter(BaseHTTPRequestHandler):
    """Lets nobody in, and notes who says what of himself."""

    heard: list[str | None]

    def do_GET(self) -> None:
        """Refuse."""
        self.heard.append(self.headers.get("authorization"))
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(REFUSAL)))
        self.end_headers()
        self.wfile.write(REFUSAL)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def porter(certificate: certificates.Certificate | None = None) -> Iterator[tuple[int, list[str | None]]]:
    """Give a server's port and what it heard; with a certificate it speaks TLS alone."""
    heard: list[str | None] = []
    server = HTTPServer(("127.0.0.1", 0), type("Noting", (Porter,), {"heard": heard}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asked(section: dict[str, Any]) -> Fatal:
    """Return what comes of one question."""
    client = Client(ElasticServerConfig.model_validate(section), End.SINK)
    with pytest.raises(Fatal) as caught:
        client.ask("GET", "/_cluster/health", doing="asking")
    client.close()
    return caught.value


@pytest.mark.parametrize(
    ("who", "want"),
    [
        ({"api_key": "a2V5"}, "ApiKey a2V5"),
        ({"token": "abc"}, "Bearer abc"),
        ({"user": "me", "password": "ü"}, f"Basic {b64encode('me:ü'.encode()).decode()}"),
        ({}, None),
    ],
)
def test_who_we_are_is_said_and_its_refusal_is_one_of_permission(who: dict[str, str], want: str | None) -> None:
    with porter() as (port, heard):
        error = asked({"hosts": [f"http://127.0.0.1:{port}"], **who})

    assert heard == [want]
    assert error.status is ExitStatus.PERMISSION
    assert not any(secret in str(error) for secret in who.values())


def test_a_certificate_is_trusted_by_its_authority_alone(tmp_path: Path) -> None:
    certificate = certificates.issue(tmp_path)
    with porter(certificate) as (port, heard):
        section: dict[str, Any] = {"hosts": [f"https://127.0.0.1:{port}"], "token": "abc"}
        stranger = asked({**section, "tls": {"mode": "verify-full"}})
        friend = asked({**section, "tls": {"ca": str(certificate.authority)}})

    assert stranger.status is ExitStatus.CONFIG
    assert "tls: {ca:" in stranger.hint
    assert friend.status is ExitStatus.PERMISSION
    assert heard == ["Bearer abc"]


def test_a_cloud_id_says_where_the_cluster_is() -> None:
    word = b64encode(b"eu.cloud.example:9243$abc123$kibana456").decode()

    (node,) = nodes(ElasticServerConfig.model_validate({"cloud_id": f"orders:{word}", "api_key": "k"}))

    assert isinstance(node, NodeConfig)
    assert (node.scheme, node.host, node.port) == ("https", "abc123.eu.cloud.example", 9243)
    assert node.ssl_context is not None
    assert node.ssl_context.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(Fatal, match="not one of Elastic Cloud's"):
        nodes(ElasticServerConfig.model_validate({"cloud_id": "orders:nothing", "api_key": "k"}))
