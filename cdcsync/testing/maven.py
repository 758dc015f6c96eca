"""Servers that come in jars: fetched once by Maven itself, unpacked into a cache outside the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cdcsync.testing.processes import ServerFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FETCH_MAX_S: Final = 600
"""For the largest of them, 150 MB."""


def cache() -> Path:
    """Return the folder of everything that is fetched; it outlives the checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdcsync"


def unpacked(name: str, artifact: str, unpack: Callable[[Path, Path], None]) -> Path:
    """Return the folder `name` of the cache, made from an artifact when it is not there.

    The artifact is `group:id:version` for a jar, else `group:id:version:packaging[:classifier]`. `unpack` takes the file and the empty folder. A folder is there whole or not at all; processes that want the same
    one wait for the first. Raises ServerFault naming the artifact.
    """
    return _once(name, lambda made, inside: unpack(_fetch(artifact, made), inside))


def classpath(name: str, artifacts: Sequence[str]) -> Path:
    """Return the folder `name` of the cache with the jars of these artifacts (group:id:version) and all they need."""
    return _once(name, lambda made, inside: _fetch_all(artifacts, made, inside))


def _once(name: str, fill: Callable[[Path, Path], None]) -> Path:
    """Return the folder `name`, filled when it is not there; `fill` takes a folder for itself and the one to fill."""
    home = cache() / "servers" / name
    if home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with _alone(home.with_name(f".{name}.lock")):
        if not home.exists():
            _make(home, fill)
    return home


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(home: Path, fill: Callable[[Path, Path], None]) -> None:
    made = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        made.chmod(0o755)
        inside = made / "inside"
        inside.mkdir()
        fill(made, inside)
        inside.rename(home)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fetch(artifact: str, folder: Path) -> Path:
    """Copy an artifact's file into the folder, through Maven with the settings that the machine has."""
    full = artifact if artifact.count(":") > len(_COORDINATES) - 1 else f"{artifact}:jar"
    _maven(artifact, folder, "dependency:copy", f"-Dartifact={full}", f"-DoutputDirectory={folder}")
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        msg = f"Maven gives {len(files)} files for {artifact}"
        raise ServerFault(msg)
    return files[0]


_COORDINATES: Final = ("groupId", "artifactId", "version")


def _fetch_all(artifacts: Sequence[str], folder: Path, jars: Path) -> None:
    project = _element(_COORDINATES, ("cdcsync", "servers", "1"))
    wanted = "".join(f"<dependency>{_element(_COORDINATES, each.split(':'))}</dependency>" for each in artifacts)
    (folder / "pom.xml").write_text(
        f"<project><modelVersion>4.0.0</modelVersion>{project}<dependencies>{wanted}</dependencies></project>"
    )
    _maven(", ".join(artifacts), folder, "dependency:copy-dependencies", f"-DoutputDirectory={jars}")


def _element(names: Sequence[str], values: Sequence[str]) -> str:
    return "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, values, strict=True))


def _maven(what: str, folder: Path, *goal: str) -> None:
    if shutil.which("mvn") is None:
        msg = f"{what} is fetched by Maven: apt-get install maven"
        raise ServerFault(msg)
    done = subprocess.run(
        ["mvn", "--quiet", "--batch-mode", *goal],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=FETCH_MAX_S,
    )
    if done.returncode:
        msg = f"Maven does not get {what}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise ServerFault(msg)
