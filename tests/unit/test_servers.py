"""The parts of the harness that need no server."""

from __future__ import annotations

import os
import select
import socket
import ssl
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cdcsync.testing import certificates, processes, servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_a_free_port_can_be_listened_on() -> None:
    port = processes.free_port()

    with socket.create_server(("127.0.0.1", port)) as got:
        assert got.getsockname()[1] == port


def test_a_private_directory_belongs_to_the_user_that_servers_run_as() -> None:
    directory = processes.private_directory("unit-")

    got = directory.stat()
    want = processes.unprivileged() or (os.geteuid(), os.getegid())
    assert stat.S_IMODE(got.st_mode) == 0o700
    assert (got.st_uid, got.st_gid) == want
    directory.rmdir()


def test_a_version_that_is_not_installed_is_named_with_what_to_install() -> None:
    with pytest.raises(processes.ServerFault, match="apt-get install postgresql-9"):
        servers.postgres_bin(9)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_a_certificate_verifies_against_its_authority(tmp_path: Path) -> None:
    made = certificates.issue(tmp_path)

    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.load_cert_chain(made.chain, made.key)
    client.load_verify_locations(made.authority)
    got = _handshake(server, client, "127.0.0.1")

    assert got == "127.0.0.1"
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600


def test_a_certificate_for_another_name_does_not_verify(tmp_path: Path) -> None:
    made = certificates.issue(tmp_path, "elsewhere.example")

    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.load_cert_chain(made.chain, made.key)
    client.load_verify_locations(made.authority)

    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(server, client, "127.0.0.1")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """Shake hands in memory; return the client's name of the server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    return str(ours.server_hostname)


SERVER_OF_A_KILLED_PROCESS = """
import signal, subprocess, sys, time
from pathlib import Path
from cdcsync.testing.processes import spawn
signal.signal(signal.SIGINT, signal.SIG_IGN)
pid = spawn(["sleep", "60"], subprocess.DEVNULL).pid
while Path(f"/proc/{pid}/comm").read_text() != "sleep\\n":
    time.sleep(0.01)
print(pid, flush=True)
sys.stdin.read()
"""


def test_a_server_is_gone_when_its_process_was_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER_OF_A_KILLED_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    server = os.pidfd_open(int(process.stdout.readline()))

    process.kill()

    process.communicate()
    ended, _, _ = select.select([server], [], [], 10)
    os.close(server)
    assert ended


def test_a_server_runs_unprivileged_and_reads_nothing_of_ours(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    output = tmp_path / "output"

    with output.open("wb") as log:
        process = processes.spawn(["sh", "-c", f"id -u; cat {secret} && echo readable"], log)
    process.wait(10)

    if os.geteuid() == 0:
        assert output.read_text().splitlines()[0] != "0"
        assert "readable" not in output.read_text()
