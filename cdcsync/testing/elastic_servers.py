"""Real Elasticsearch and OpenSearch servers of one node, run unprivileged on loopback in private directories."""

from __future__ import annotations

import contextlib
import shutil
import socket
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from cdcsync.testing import processes
from cdcsync.testing.elastic_builds import ELASTIC8
from cdcsync.testing.processes import Process, ServerFault, free_port, private_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cdcsync.testing.elastic_builds import Build

SETTINGS: Final[Mapping[str, str]] = {
    "discovery.type": "single-node",
    "xpack.security.enabled": "false",
    "cluster.routing.allocation.disk.threshold_enabled": "false",
    "network.host": "127.0.0.1",
    "indices.breaker.total.use_real_memory": "false",
}
"""What every server starts with; the constructor's settings win."""
RUNNER: Final = "org.codelibs.opensearch.runner.OpenSearchRunner"
RUNNER_PORTS: Final = range(9202, 9300)
"""It refuses others."""
HEAP: Final = "-Xms512m -Xmx512m"
JAVA: Final = ("-XX:TieredStopAtLevel=1",)
"""It starts in half of the time; what measures a server leaves this out."""
ANSWER_MAX_S: Final = 30
START_MAX_S: Final = 240.0
"""Ten seconds on a quiet machine; a JVM that starts beside other tests takes many times that."""


class ElasticServer:
    """One node. It speaks plain HTTP without users unless the settings say otherwise."""

    host: Final = "127.0.0.1"

    def __init__(
        self, build: Build = ELASTIC8, *, settings: Mapping[str, str] | None = None, java: Sequence[str] = JAVA
    ) -> None:
        self.build = build
        self._java = f"{HEAP} -XX:+UseSerialGC {' '.join(java)}".strip()
        self.port = _runner_port() if build.runner else free_port()
        self.settings = {**SETTINGS, **(settings or {})}
        self.directory = private_directory(f"elastic{build.name}-")
        """Private: configuration, data, logs."""
        self._process = Process(f"{build.name} {build.version}", self.directory / "log", death="TERM")

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._process.running

    def start(self) -> Self:
        """Start, and return once it takes documents. Raises ServerFault."""
        home = self.build.home()
        command = self._runner(home) if self.build.runner else self._distribution(home)
        self._process.start(command, self._answers, within_s=START_MAX_S)
        return self

    def _runner(self, home: Path) -> list[str]:
        java = [str(self.build.java() / "bin/java"), *self._java.split(), "-cp", f"{home}/*"]
        node = ["-basePath", str(self.directory / "node"), "-numOfNode", "1", "-clusterName", self.directory.name]
        return [*java, RUNNER, *node, "-baseHttpPort", str(self.port - 1), "-useLogger"]

    def _distribution(self, home: Path) -> list[str]:
        configuration = self.directory / "config"
        if not configuration.exists():
            self._configure(home, configuration)
        settings = {
            **self.settings,
            "http.port": str(self.port),
            "transport.port": "0",
            "path.data": str(self.directory / "data"),
            "path.logs": str(self.directory / "logs"),
        }
        variables = {
            "ES_PATH_CONF": str(configuration),
            "ES_JAVA_HOME": str(self.build.java()),
            "ES_JAVA_OPTS": self._java,
            "ES_TMPDIR": str(self.directory / "tmp"),
            "HOME": str(self.directory),
        }
        command = ["env", *(f"{name}={value}" for name, value in variables.items()), str(home / "bin/elasticsearch")]
        return [*command, *(f"-E{name}={value}" for name, value in settings.items())]

    def _configure(self, home: Path, configuration: Path) -> None:
        shutil.copytree(home / "config", configuration)
        options = configuration / "jvm.options"
        unwanted = ("incubator.vector", "UseG1GC", "-Xlog:gc")
        lines = [line for line in options.read_text().splitlines() if not any(each in line for each in unwanted)]
        options.write_text("\n".join(lines))
        (self.directory / "tmp").mkdir()
        for each in [self.directory / "tmp", configuration, *configuration.rglob("*")]:
            processes.give(each)

    def stop(self) -> None:
        """End it, its data are lost; may be called twice."""
        self._process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL it: a crash. `start` recovers what it had answered for."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP it: it hangs, its connections stay."""
        self._process.pause()

    def resume(self) -> None:
        """End a `pause`."""
        self._process.resume()

    def cpu_s(self) -> float:
        """Return the seconds of processor that it has taken."""
        return self._process.cpu_s()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request and return its answer. Raises AssertionError when the server refuses it."""
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310  our own server
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_MAX_S) as answer:  # noqa: S310  our own server
                text = answer.read()
        except urllib.error.HTTPError as error:
            msg = f"{method} {path}: {error.code} {error.read().decode(errors='replace')}"
            raise AssertionError(msg) from error
        return orjson.loads(text) if text else None

    def documents(self, index: str) -> dict[str, dict[str, Any]]:
        """Return every document of an index by its `_id`, read by scroll."""
        self.ask("POST", f"/{index}/_refresh")
        page = self.ask("POST", f"/{index}/_search?scroll=1m", {"size": 5000, "sort": ["_doc"]})
        found = {}
        while page["hits"]["hits"]:
            found.update({hit["_id"]: hit["_source"] for hit in page["hits"]["hits"]})
            page = self.ask("POST", "/_search/scroll", {"scroll": "1m", "scroll_id": page["_scroll_id"]})
        self.ask("DELETE", "/_search/scroll", {"scroll_id": page["_scroll_id"]})
        return found

    def _answers(self) -> bool:
        try:
            return bool(self.ask("GET", "/_cluster/health")["status"] in {"green", "yellow"})
        except (OSError, AssertionError):
            return False


def _runner_port() -> int:
    """Return a free port of those that OpenSearch's runner takes."""
    for port in RUNNER_PORTS:
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind((ElasticServer.host, port))
            return port
    msg = f"no port of {RUNNER_PORTS.start} to {RUNNER_PORTS.stop - 1} is free for OpenSearch"
    raise ServerFault(msg)
