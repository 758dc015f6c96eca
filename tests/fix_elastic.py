"""An Elasticsearch server per file of tests, and indexes of each test's own."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.elastic.config import ElasticSinkConfig
from cdcsync.testing.elastic_builds import ELASTIC8
from cdcsync.testing.elastic_servers import ElasticServer
from cdcsync.testing.jvm import lease

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cdcsync.testing.elastic_builds import Build

_NUMBERS = itertools.count(1)


@contextmanager
def running(build: Build, settings: Mapping[str, str] | None = None) -> Iterator[ElasticServer]:
    """Give a server that runs, with one of the machine's slots for JVMs."""
    with lease(1, f"tests with Elasticsearch {build.name}"):
        server = ElasticServer(build, settings={"http.max_content_length": "8mb", **(settings or {})})
        try:
            yield server.start()
        finally:
            server.stop()


@pytest.fixture(scope="module")
def elastic8() -> Iterator[ElasticServer]:
    """Elasticsearch 8, of few modules."""
    with running(ELASTIC8) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Cluster:
    """A server, as one test has it: empty."""

    server: ElasticServer

    def config(self, **options: Any) -> ElasticSinkConfig:
        """Return a sink's section."""
        return ElasticSinkConfig.model_validate({"hosts": [self.server.url], **options})

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request."""
        return self.server.ask(method, path, body)

    def documents(self, index: str) -> dict[str, dict[str, Any]]:
        """Return every document by its `_id`."""
        return self.server.documents(index)


def emptied(server: ElasticServer) -> Cluster:
    """Delete every index of a server."""
    for name in server.ask("GET", "/_all/_settings?expand_wildcards=all"):
        server.ask("DELETE", f"/{name}")
    return Cluster(server)


@pytest.fixture
def cluster(elastic8: ElasticServer) -> Cluster:
    """The file's server without any index."""
    return emptied(elastic8)
