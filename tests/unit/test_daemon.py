"""What ends a command, and what systemd is told."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from cdcsync.control import NotRunning
from cdcsync.daemon import guarded
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("ended", "want"),
    [
        (Fatal("m", hint="h"), 65),
        (Fatal("m", hint="h", status=ExitStatus.OWNERSHIP), 76),
        (Fatal("m", hint="h", status=ExitStatus.PERMISSION), 77),
        (Fatal("m", hint="h", status=ExitStatus.CONFIG), 78),
        (Transient(End.SOURCE, "gone"), 75),
        (NotRunning("nobody"), 1),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 70),
    ],
)
def test_each_verdict_has_its_exit_status(ended: BaseException, want: int, capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        raise ended

    assert guarded(act) == want


def test_a_fatal_error_is_a_message_and_a_hint_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        raise Fatal("slot is gone", hint="run `cdcsync drop orders`")

    guarded(act)

    assert capsys.readouterr().err == "error: slot is gone\n  -> run `cdcsync drop orders`\n"


def test_anything_else_is_called_a_bug_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        raise KeyError("x")

    guarded(act)

    said = capsys.readouterr().err
    assert "this is a bug in cdcsync" in said
    assert "Traceback" in said


class Systemd:
    """The other side of the notify socket, and a clock to move."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.notifier = Notifier({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "8000000"}, lambda: self.now)

    def turn(self, *, ready: bool, status: str = "") -> list[str]:
        """Turn once; return what was told."""
        self.notifier.turned(ready=ready, status=status)
        return self.told()

    def told(self) -> list[str]:
        """Return all datagrams since."""
        got = []
        while True:
            try:
                got.append(self._socket.recv(1000).decode())
            except BlockingIOError:
                return got

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    yield made
    made.close()


def test_systemd_hears_ready_once_and_the_watchdog_is_fed_by_turns(systemd: Systemd) -> None:
    assert systemd.turn(ready=True)[0] == "READY=1"

    systemd.now = 1.0
    early = systemd.turn(ready=True)
    systemd.now = 2.5
    fed = systemd.turn(ready=False)

    assert "WATCHDOG=1" not in early
    assert "READY=1" not in early
    assert fed == ["WATCHDOG=1"]


def test_a_start_that_waits_for_a_server_asks_for_more_time(systemd: Systemd) -> None:
    assert systemd.turn(ready=False) == ["EXTEND_TIMEOUT_USEC=60000000"]

    systemd.now = 20.0

    assert systemd.turn(ready=False) == ["EXTEND_TIMEOUT_USEC=60000000"]


def test_the_status_is_told_when_it_changed_and_not_more_often_than_it_can_be_read(systemd: Systemd) -> None:
    assert "STATUS=a" in systemd.turn(ready=True, status="a")

    soon = systemd.turn(ready=True, status="b")
    systemd.now = 6.0
    later = systemd.turn(ready=True, status="b")

    assert "STATUS=b" not in soon
    assert "STATUS=b" in later


def test_stopping_is_told(systemd: Systemd) -> None:
    systemd.notifier.stopping()

    assert systemd.told() == ["STOPPING=1"]


def test_without_systemd_or_with_its_socket_gone_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).turned(ready=True, status="")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).turned(ready=True, status="")
