"""The daemon as a process: signals, control socket, systemd, exit statuses."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest
from fix_command import stopped

if TYPE_CHECKING:
    from fix_command import Command

PIPELINE = """\
name: orders
source:
  counter: {{rows: {rows}, away_s: {away_s}, fault: "{fault}"{more}}}
sink:
  jsonl: {{path: {path}}}
tables: [shop.orders]
"""


def pipeline(command: Command, *, rows: int = 3, away_s: float = 0, fault: str = "", more: str = "") -> str:
    """Write the pipeline's file."""
    target = command.folder / "out.jsonl"
    return command.write(PIPELINE.format(rows=rows, away_s=away_s, fault=fault, more=more, path=target))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_good_order_and_it_resumes_where_it_was(command: Command, number: int) -> None:
    path = pipeline(command, rows=5)
    for _ in range(2):
        process = command.start("run", path)
        command.wait(lambda got: got.get("position") == "1:5:0")

        status, _, errors = stopped(process, number)

        assert (status, "stopped" in errors) == (0, True)

    assert len((command.folder / "out.jsonl").read_text().splitlines()) == 5


def test_a_second_daemon_of_the_same_pipeline_is_refused(command: Command) -> None:
    path = pipeline(command)
    first = command.start("run", path)
    command.wait(lambda got: got.get("state") == "running")

    second = command("run", path)

    assert second.returncode == 76
    assert "stop that process first" in second.stderr
    assert stopped(first)[0] == 0


def test_a_source_that_is_away_at_start_is_waited_for(command: Command) -> None:
    process = command.start("run", pipeline(command, away_s=1.5))

    unready = command.wait(lambda got: got.get("state") == "unready")
    running = command.wait(lambda got: got.get("state") == "running")

    assert "connection refused" in str(unready["fault"])
    assert running["fault"] == ""
    assert stopped(process)[0] == 0


def test_a_stop_while_the_source_is_away_ends_at_once(command: Command) -> None:
    process = command.start("run", pipeline(command, away_s=60))
    command.wait(lambda got: got.get("state") == "unready")

    assert stopped(process)[0] == 0


def test_a_fatal_error_is_one_message_with_its_status(command: Command) -> None:
    got = command("run", pipeline(command, fault="permission"))

    assert got.returncode == 77
    assert "error: password authentication failed\n  -> set `password:`\n" in got.stderr
    assert "Traceback" not in got.stderr


def test_a_bug_is_loud_and_shows_no_secret(command: Command) -> None:
    got = command("run", pipeline(command, fault="bug", more=", password: a-secret-word"))

    assert got.returncode == 70
    assert "this is a bug" in got.stderr
    assert "a-secret-word" not in got.stderr


def test_pause_holds_deliveries_and_resume_goes_on(command: Command) -> None:
    path = pipeline(command)
    process = command.start("run", path)
    command.wait(lambda got: got.get("state") == "running")

    paused = command("pause", path)
    command.wait(lambda got: got.get("state") == "paused")
    resumed = command("resume", path)
    command.wait(lambda got: got.get("state") == "running")

    assert (paused.stdout, resumed.stdout) == ("orders paused\n", "orders runs again\n")
    assert stopped(process)[0] == 0


def test_a_killed_daemon_leaves_nothing_that_hinders_the_next(command: Command) -> None:
    path = pipeline(command)
    first = command.start("run", path)
    command.wait(lambda got: got.get("state") == "running")
    stopped(first, signal.SIGKILL)

    second = command.start("run", path)
    command.wait(lambda got: got.get("state") == "running")

    assert stopped(second)[0] == 0


def test_systemd_is_told_ready_and_stopping(command: Command) -> None:
    notify = command.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(notify))
        told.settimeout(10)
        process = command.start("run", pipeline(command), environ={"NOTIFY_SOCKET": str(notify)})
        got = []
        while "READY=1" not in got:
            got.append(told.recv(1000).decode())
        stopped(process)
        while "STOPPING=1" not in got:
            got.append(told.recv(1000).decode())

    assert got[0].startswith("EXTEND_TIMEOUT_USEC")


def test_a_trace_is_written_where_the_environment_asks_for_it(command: Command) -> None:
    trace = command.folder / "trace"
    process = command.start("run", pipeline(command), environ={"CDCSYNC_TRACE": str(trace)})
    command.wait(lambda got: got.get("position") == "1:3:0")

    stopped(process)

    events = [line.split('"')[3] for line in trace.read_text().splitlines()]
    assert events[:4] == ["start", "durable", "save", "acknowledge"]
