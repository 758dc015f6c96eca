"""A real schema registry with Confluent's API (Apicurio), in memory, gone when this process is."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final, Self

import orjson

from cdcsync.testing.kafka_builds import registry
from cdcsync.testing.processes import Process, low_port, private_directory

if TYPE_CHECKING:
    from pathlib import Path

API: Final = "/apis/ccompat/v7"
JAVA: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m")


class SchemaRegistry:
    """One registry; a JVM of its own."""

    host: Final = "127.0.0.1"

    def __init__(self) -> None:
        self.port = low_port()
        self.directory = private_directory("registry-")
        self._process = Process("Apicurio", self.directory / "log", death="KILL")

    @property
    def url(self) -> str:
        """Of Confluent's API."""
        return f"http://{self.host}:{self.port}{API}"

    @property
    def log(self) -> Path:
        """Its own messages."""
        return self._process.log

    def start(self) -> Self:
        """Start, and return once it answers. Raises ServerFault."""
        home = registry()
        jar = next(home.glob("*runner.jar"))
        options = [f"-Dquarkus.http.port={self.port}", f"-Dquarkus.http.host={self.host}"]
        command = ["java", *JAVA, *options, "-cp", f"{jar}:{home}/lib/*", "io.quarkus.runner.GeneratedMain"]
        self._process.start(command, self._answers)
        return self

    def stop(self) -> None:
        """End it; may be called twice."""
        self._process.end(signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL it: a crash, after which it has nothing."""
        self._process.kill()

    def subjects(self) -> list[str]:
        """Return the names of all subjects."""
        with urllib.request.urlopen(f"{self.url}/subjects", timeout=10) as answer:  # noqa: S310  loopback
            return list(orjson.loads(answer.read()))

    def be_backward(self) -> None:
        """Have every new version be readable by consumers of it that read older records."""
        request = urllib.request.Request(  # noqa: S310  loopback
            f"{self.url}/config", b'{"compatibility": "BACKWARD"}', {"Content-Type": "application/json"}, method="PUT"
        )
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310  loopback

    def _answers(self) -> bool:
        try:
            self.subjects()
        except (OSError, urllib.error.URLError):
            return False
        return True
