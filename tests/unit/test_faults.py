"""The faults themselves: what is stalled, cut and killed."""

from __future__ import annotations

import random
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cdcsync.testing.faults import Proxy, Victim, kill_at_random
from cdcsync.testing.trace import deliveries_around, read_steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def echo() -> Iterator[int]:
    """Serve an echo on loopback; yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(client,), daemon=True).start()


def _echo(client: socket.socket) -> None:
    with client:
        try:
            while chunk := client.recv(1 << 16):
                client.sendall(chunk)
        except OSError:
            return


def test_a_proxy_passes_bytes_both_ways(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy, socket.create_connection((proxy.host, proxy.port), 5) as client:
        client.sendall(b"hello")

        assert client.recv(5, socket.MSG_WAITALL) == b"hello"
        assert proxy.passed_bytes == 5


def test_a_stalled_proxy_loses_nothing(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy, socket.create_connection((proxy.host, proxy.port), 5) as client:
        proxy.stall()
        client.sendall(b"hello")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(5)

        proxy.go()
        client.settimeout(5)

        assert client.recv(5, socket.MSG_WAITALL) == b"hello"


def test_a_cut_ends_the_connection_and_the_next_one_passes(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy:
        with socket.create_connection((proxy.host, proxy.port), 5) as client:
            client.sendall(b"hello")
            client.recv(5, socket.MSG_WAITALL)
            proxy.cut()

            assert _is_over(client)

        with socket.create_connection((proxy.host, proxy.port), 5) as client:
            client.sendall(b"again")
            assert client.recv(5, socket.MSG_WAITALL) == b"again"


def test_a_refusing_proxy_ends_each_connection_until_it_goes_again(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy:
        proxy.refuse()
        with socket.create_connection((proxy.host, proxy.port), 5) as client:
            assert _is_over(client)

        proxy.go()
        with socket.create_connection((proxy.host, proxy.port), 5) as client:
            client.sendall(b"again")
            assert client.recv(5, socket.MSG_WAITALL) == b"again"


def _is_over(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


DELIVERS = """
import sys, time
from pathlib import Path
from cdcsync.testing.trace import FileTrace
trace = FileTrace(Path(sys.argv[1]))
while True:
    trace("durable", "1", 1)
    time.sleep(0.01)
"""


def test_every_random_kill_falls_between_two_deliveries(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Victim([sys.executable, "-c", DELIVERS, str(trace)], tmp_path / "log", {}) as victim:
        victim.start()
        got = kill_at_random(victim, trace, kills=3, apart_s=0.1, dice=random.Random(1))
        kill_at_random(victim, trace, kills=1, apart_s=0, dice=random.Random(1))

    around = deliveries_around(read_steps(trace), got)
    assert len({step.process for step in read_steps(trace)}) == 4
    assert len(around) == 3
    assert all(before and after for before, after in around)


def test_a_victim_that_ends_by_itself_is_told_with_its_log(tmp_path: Path) -> None:
    with Victim([sys.executable, "-c", "raise SystemExit('no disk')"], tmp_path / "log", {}) as victim:
        victim.start()

        with pytest.raises(AssertionError, match=r"exit status 1\nno disk"):
            victim.rest(10)


def test_an_answer_that_a_proxy_loses_ends_that_connection_alone(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy:
        with socket.create_connection((proxy.host, proxy.port), 5) as client:
            proxy.lose(b"COMMIT")
            client.sendall(b"hello")
            assert client.recv(5, socket.MSG_WAITALL) == b"hello"
            client.sendall(b"COMMIT")

            assert _is_over(client)

        assert proxy.lost == 1
        with socket.create_connection((proxy.host, proxy.port), 5) as client:
            client.sendall(b"COMMIT")
            assert client.recv(6, socket.MSG_WAITALL) == b"COMMIT"
