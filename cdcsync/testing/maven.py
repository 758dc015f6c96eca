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
    from collections.abc import Callable, Iterator

FETCH_MAX_S: Final = 600
"""For the largest of them, 150 MB."""


def cache() -> Path:
    """Return the folder of everything that is fetched; it outlives the checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdcsync"


def unpacked(name: str, artifact: str, unpack: Callable[[Path, Path], None]) -> Path:
    """Return the folder `name` of the cache, made from an artifact (group:id:version) when it is not there.

    `unpack` takes the jar and the empty folder. A folder is there whole or not at all; processes that want the same
    one wait for the first. Raises ServerFault naming the artifact.
    """
    home = cache() / "servers" / name
    if home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with _alone(home.with_name(f".{name}.lock")):
        if not home.exists():
            _make(home, artifact, unpack)
    return home


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(home: Path, artifact: str, unpack: Callable[[Path, Path], None]) -> None:
    made = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        made.chmod(0o755)
        jar = _fetch(artifact, made)
        inside = made / "inside"
        inside.mkdir()
        unpack(jar, inside)
        inside.rename(home)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fetch(artifact: str, folder: Path) -> Path:
    """Copy an artifact's jar into the folder, through Maven with the settings that the machine has."""
    if shutil.which("mvn") is None:
        msg = f"{artifact} is fetched by Maven: apt-get install maven"
        raise ServerFault(msg)
    done = subprocess.run(
        [
            "mvn",
            "--quiet",
            "--batch-mode",
            "dependency:copy",
            f"-Dartifact={artifact}:jar",
            f"-DoutputDirectory={folder}",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=FETCH_MAX_S,
    )
    jars = list(folder.glob("*.jar"))
    if done.returncode or len(jars) != 1:
        msg = f"Maven does not get {artifact}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise ServerFault(msg)
    return jars[0]
