"""The control socket, both sides."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.control import Control, NotRunning, ask
from cdcsync.errors import ExitStatus, Fatal

if TYPE_CHECKING:
    from pathlib import Path


def status() -> dict[str, Any]:
    return {"changes": 7}


def test_an_answer_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "orders.sock"

    with Control(path, {"status": status}):
        got = ask(path, "status")

    assert got == {"changes": 7}


def test_an_unknown_command_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    with Control(tmp_path / "orders.sock", {"status": status}):
        got = ask(tmp_path / "orders.sock", "explode")

    assert "status" in got["error"]


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"not json\n", b'{"command": 3}\n', b"\xff\n"])
def test_a_broken_request_is_answered_and_the_next_is_served(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "orders.sock"

    with Control(path, {"status": status}):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(line)
            answer = client.makefile("rb").readline()
        got = ask(path, "status")

    assert b"error" in answer
    assert got == {"changes": 7}


def test_only_the_owner_may_open_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "orders.sock"

    with Control(path, {"status": status}):
        got = stat.S_IMODE(path.stat().st_mode)

    assert got == 0o600


def test_a_socket_left_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "orders.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    with Control(path, {"status": status}):
        got = ask(path, "status")

    assert got == {"changes": 7}


def test_a_socket_that_is_served_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "orders.sock"

    with Control(path, {"status": status}):
        with pytest.raises(Fatal, match="runs already") as raised:
            Control(path, {})
        got = ask(path, "status")

    assert raised.value.status is ExitStatus.OWNERSHIP
    assert got == {"changes": 7}


def test_the_socket_is_gone_afterwards_and_asking_says_that_nothing_runs(tmp_path: Path) -> None:
    path = tmp_path / "orders.sock"
    with Control(path, {"status": status}):
        pass

    assert not path.exists()
    with pytest.raises(NotRunning, match="nothing answers"):
        ask(path, "status")


def test_a_path_too_long_for_a_socket_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"control: \{socket") as raised:
        Control(tmp_path / ("x" * 120), {})

    assert raised.value.status is ExitStatus.CONFIG
