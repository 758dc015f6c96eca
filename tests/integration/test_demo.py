"""The demo as a user runs it: it ends equal, and goes on where it was, also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that the server's user can reach."""
    import shutil  # noqa: PLC0415  only here
    import tempfile  # noqa: PLC0415

    path = Path(tempfile.mkdtemp(prefix="cdcsync-demo-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def command(folder: Path, seconds: int) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "cdcsync", "demo", str(folder), "--seconds", str(seconds)]


@pytest.mark.timeout(180)
def test_the_demo_ends_equal_and_resumes_after_a_kill(folder: Path) -> None:
    first = subprocess.Popen(command(folder, 60), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    end = time.monotonic() + 60
    while not (folder / "shop.db").exists() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(4)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()

    second = subprocess.run(command(folder, 5), capture_output=True, text=True, check=False)

    assert second.returncode == 0, second.stdout + second.stderr
    assert "equal" in second.stdout
    assert "password_hash" in (folder / "shop.yaml").read_text()
