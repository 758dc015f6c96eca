"""The jars of the Kafka broker and of the schema registry that the tests run against."""

from __future__ import annotations

import functools
import shutil
import sys
import tarfile
from typing import TYPE_CHECKING, Final

from cdcsync.testing.maven import classpath, unpacked
from cdcsync.testing.processes import ServerFault, reachable

if TYPE_CHECKING:
    from pathlib import Path

JARS: Final = (
    "org.apache.kafka:kafka_2.13:4.4.0",
    "org.apache.logging.log4j:log4j-core:2.25.3",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
)
FOLDER: Final = "kafka-4.4.0"
TOOLS: Final = "org.apache.kafka:kafka-tools:4.4.0"
TOOLS_FOLDER: Final = "kafka-tools-4.4.0"
REGISTRY: Final = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
REGISTRY_FOLDER: Final = "apicurio-registry-2.6.13"


def fetch_all() -> None:
    """Fetch all, so that no test waits for it; what is missing is told, and again by the test that needs it."""
    for fetch in (_kafka, console_jars, _registry):
        try:
            fetch()
        except ServerFault as fault:
            sys.stderr.write(f"{fault}\n")


@functools.cache
def jars() -> Path:
    """Return the folder of the broker's jars, where servers reach it."""
    return reachable(_kafka())


def console_jars() -> str:
    """Return the class path of Kafka's own console consumer."""
    return f"{unpacked(TOOLS_FOLDER, TOOLS, _keep)}/*:{_kafka()}/*"


@functools.cache
def registry() -> Path:
    """Return the folder of the schema registry, where servers reach it."""
    return reachable(_registry())


def _kafka() -> Path:
    return classpath(FOLDER, JARS)


def _registry() -> Path:
    return unpacked(REGISTRY_FOLDER, REGISTRY, _untar)


def _keep(jar: Path, home: Path) -> None:
    shutil.copy(jar, home)


def _untar(packed: Path, home: Path) -> None:
    with tarfile.open(packed) as archive:
        archive.extractall(home, filter="data")


if __name__ == "__main__":
    fetch_all()
