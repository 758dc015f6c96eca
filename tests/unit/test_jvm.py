"""The slots of the JVMs are never given twice, and two requests for both never wait for each other."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cdcsync.testing import jvm
from cdcsync.testing.processes import ServerFault

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_third_jvm_waits_and_is_told_who_runs() -> None:
    waits = pytest.raises(ServerFault, match=r"first, pid .*second, pid")

    with jvm.lease(1, "first"), jvm.lease(1, "second"), waits, jvm.lease(1, "third", wait_max_s=0.3):
        pass


def test_slots_are_free_again_afterwards() -> None:
    for _ in range(2):
        with jvm.lease(2, "both"):
            pass


def test_requests_for_both_slots_never_wait_for_each_other() -> None:
    done: list[str] = []

    def ask(name: str) -> None:
        for _ in range(3):
            with jvm.lease(2, name, wait_max_s=30):
                done.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(done) == ["a", "a", "a", "b", "b", "b"]


def test_a_process_that_is_killed_gives_its_slots_back() -> None:
    program = "import time\nfrom cdcsync.testing import jvm\nwith jvm.lease(2, 'gone'):\n print(1, flush=True)\n time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ServerFault, match="gone"), jvm.lease(1, "early", wait_max_s=0.1):
            pass
        process.kill()

    with jvm.lease(2, "next", wait_max_s=5):
        pass
