"""The control socket: one JSON line asks a running pipeline, one JSON line answers."""

from __future__ import annotations

import errno
import os
import socket
import socketserver
import threading
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import orjson

from cdcsync.errors import CdcsyncError, ExitStatus, Fatal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Orders: TypeAlias = "Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]"

ANSWER_MAX_S: Final = 5.0
"""Longest wait of either side for the other."""
STOP_EVERY_S: Final = 0.1
"""How often the server looks whether it is to end: what a stop waits for it at most."""
LINE_MAX: Final = 1 << 16
PATH_MAX: Final = 107
"""Bytes in sockaddr_un."""
_PEER: Final = Struct("3i")
"""struct ucred: pid, uid, gid."""


class NotRunning(CdcsyncError):  # noqa: N818  named for what it says
    """Nobody serves the socket."""


class Control:
    """Serves the commands of one pipeline on a unix socket that only its owner may open."""

    def __init__(
        self, path: Path, commands: Mapping[str, Callable[[], dict[str, Any]]], orders: Orders | None = None
    ) -> None:
        """`orders` are commands that are given the whole line."""
        self._path = path
        self._server = _bound(path, commands, orders or {})
        self._made = path.stat().st_ino
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_EVERY_S,), name="cdcsync-control", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(ANSWER_MAX_S)
        if self._path.exists() and self._path.stat().st_ino == self._made:
            self._path.unlink()


def ask(path: Path, command: str, **words: object) -> dict[str, Any]:
    """Return a running pipeline's answer. Raises NotRunning, and Fatal when the socket is not ours to open."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(ANSWER_MAX_S)
            client.connect(_address(path))
            client.sendall(orjson.dumps({"command": command, **words}) + b"\n")
            with client.makefile("rb") as lines:
                line = lines.readline(LINE_MAX)
    except PermissionError as error:
        msg = f"{path} may not be opened by this user"
        raise Fatal(msg, hint="run the command as the daemon's user", status=ExitStatus.PERMISSION) from error
    except OSError as error:
        msg = f"nothing answers at {path}"
        raise NotRunning(msg) from error
    if not line:
        msg = f"the pipeline at {path} stopped while it was asked"
        raise NotRunning(msg)
    answer: dict[str, Any] = orjson.loads(line)
    return answer


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, commands: Mapping[str, Callable[[], dict[str, Any]]], orders: Orders) -> None:
        self.commands = commands
        self.orders = orders
        super().__init__(_address(path), _Conversation)


class _Conversation(socketserver.StreamRequestHandler):
    timeout = ANSWER_MAX_S
    server: _Server

    def handle(self) -> None:
        try:
            answer = self._answer(self.rfile.readline(LINE_MAX))
            self.wfile.write(orjson.dumps(answer, default=str) + b"\n")
        except OSError:
            return

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = orjson.loads(line)
        except orjson.JSONDecodeError:
            asked = None
        command = asked.get("command") if isinstance(asked, dict) else None
        known = self.server.commands
        if isinstance(asked, dict) and isinstance(command, str) and command in self.server.orders:
            return _obeyed(self.server.orders[command], asked)
        if not isinstance(command, str) or command not in known:
            return {
                "error": f'send one line such as {{"command": "status"}}; commands: {", ".join([*known, *self.server.orders])}'
            }
        return known[command]()


def _obeyed(order: Callable[[Mapping[str, Any]], dict[str, Any]], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an order answers, or why it was refused."""
    try:
        return order(asked)
    except CdcsyncError as error:
        return {"error": str(error)}


def _bound(path: Path, commands: Mapping[str, Callable[[], dict[str, Any]]], orders: Orders) -> _Server:
    """Bind with mode 0600, in place of a socket that nobody serves any more."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _clear_stale(path)
    before = os.umask(0o177)
    try:
        return _Server(path, commands, orders)
    except OSError as error:
        msg = f"the control socket {path} cannot be made: {error.strerror}"
        raise Fatal(msg, hint="set `control: {socket: PATH}`", status=ExitStatus.CONFIG) from error
    finally:
        os.umask(before)


def _clear_stale(path: Path) -> None:
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ANSWER_MAX_S)
        refused = client.connect_ex(_address(path))
        if refused in {errno.ECONNREFUSED, errno.ENOENT}:
            path.unlink(missing_ok=True)
            return
        who = "" if refused else f" by pid {_peer(client)}"
    msg = f"the pipeline runs already: {path} is served{who}"
    raise Fatal(msg, hint="stop that process first", status=ExitStatus.OWNERSHIP)


def _peer(client: socket.socket) -> int:
    """Return who listens at the other end, also one that hangs (SO_PEERCRED, unix(7))."""
    pid, _uid, _gid = _PEER.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(pid)


def _address(path: Path) -> str:
    if len(os.fsencode(path)) > PATH_MAX:
        msg = f"the control socket's path is longer than {PATH_MAX} bytes: {path}"
        raise Fatal(msg, hint="set `control: {socket: PATH}` to a shorter one", status=ExitStatus.CONFIG)
    return str(path)
