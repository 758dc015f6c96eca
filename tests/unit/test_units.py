"""The systemd units, as systemd's own tools see them."""

from __future__ import annotations

import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from cdcsync.errors import ExitStatus

UNITS = Path(__file__).parents[2] / "systemd"
EXPOSURE_MAX = 15
"""Tenths: below 1.5 of 10."""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder with the units as they would be installed, their program being one that exists here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (UNITS / "cdcsync@.service").read_text().replace("/opt/cdcsync/bin/cdcsync", "/bin/true")
    (tmp_path / "cdcsync@.service").write_text(text)
    shutil.copy(UNITS / "cdcsync.target", tmp_path)
    return tmp_path


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    (installed / "cdcsync@orders.service").symlink_to(installed / "cdcsync@.service")

    got = _analyze("verify", "--man=no", str(installed / "cdcsync@orders.service"), str(installed / "cdcsync.target"))

    ours = [line for line in got.stderr.splitlines() if "cdcsync" in line]
    assert (got.returncode, ours) == (0, [])


def test_the_service_exposes_little_of_the_machine(installed: Path) -> None:
    unit = str(installed / "cdcsync@.service")

    got = _analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit)

    assert got.returncode == 0, got.stdout + got.stderr


def test_the_users_and_folders_are_taken_by_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-analyze is not installed")
    (tmp_path / "etc").mkdir()

    users = _run("systemd-sysusers", f"--root={tmp_path}", "--dry-run", UNITS / "cdcsync.sysusers")
    folders = _run("systemd-tmpfiles", f"--root={tmp_path}", "--create", "--prefix=/none", UNITS / "cdcsync.tmpfiles")

    assert "cdcsync" in users.stdout + users.stderr
    assert users.returncode == 0, users.stderr
    assert folders.returncode == 0, folders.stderr


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _service() -> RawConfigParser:
    parser = RawConfigParser(strict=False, delimiters="=", inline_comment_prefixes=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / "cdcsync@.service")
    return parser


def test_systemd_does_not_restart_what_only_a_person_can_mend() -> None:
    got = _service()["Service"]["RestartPreventExitStatus"].split()

    assert [int(status) for status in got] == sorted(ExitStatus)


def test_the_service_is_watched_and_tells_when_it_is_ready() -> None:
    service = _service()["Service"]

    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["StateDirectory"] == "cdcsync/%i"
    assert service["RuntimeDirectory"] == "cdcsync"
