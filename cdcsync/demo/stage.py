"""What the demo runs on: a PostgreSQL of its own, and the pipeline as a process, both resumable."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from cdcsync.control import NotRunning, ask
from cdcsync.demo import shop
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.testing import processes, servers

if TYPE_CHECKING:
    from collections.abc import Callable

START_MAX_S: Final = 60.0
STOP_MAX_S: Final = 30.0

PIPELINE: Final = """\
# The demo's pipeline. Edit it, start the demo again, and look at {folder}/shop.db with sqlite3.
name: shop
source:
  postgres:
    host: 127.0.0.1
    port: {port}
    user: postgres
    password: ${{file:postgres.password}}
    database: shop
    start: initial                  # the rows that are there, then the log
sink:
  sqlite:
    path: shop.db
heartbeat: 1s                       # how soon an idle position is stored
control: {{socket: shop.sock}}
tables:
  - from: shop.customers
    to: customers
    exclude: [password_hash]        # never leaves PostgreSQL
  - from: shop.products
    to: products
  - from: shop.orders
    to: orders
    rename: {{placed: placed_at}}
  - from: shop.order_lines
    to: order_lines
  - from: shop.visits
    to: visits
    key: none                       # no key: rows are only appended, each once
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """The demo's folder."""

    folder: Path

    @property
    def file(self) -> Path:
        """The pipeline's file."""
        return self.folder / "shop.yaml"

    @property
    def socket(self) -> Path:
        """The pipeline's control socket."""
        return self.folder / "shop.sock"

    @property
    def target(self) -> Path:
        """The SQLite file."""
        return self.folder / "shop.db"

    @property
    def log(self) -> Path:
        """What the pipeline's process says."""
        return self.folder / "pipeline.log"

    def server(self) -> servers.PostgresServer:
        """Start the folder's PostgreSQL; the first time make it, its schema, and the pipeline's file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        notes, password = self.folder / "postgres.json", self.folder / "postgres.password"
        if not password.exists():
            _write_private(password, secrets.token_urlsafe(18))
        if not notes.exists():
            notes.write_text(json.dumps({"port": processes.free_port(), "directory": str(self._home())}))
        known = json.loads(notes.read_text())
        server = servers.PostgresServer(
            18,
            directory=Path(known["directory"]),
            port=known["port"],
            password=password.read_text(),
            settings={"max_slot_wal_keep_size": "2GB"},
        )
        _wait_until(lambda: not (server.data / "postmaster.pid").exists() or not _is_served(server), STOP_MAX_S)
        server.start()
        if not server.query("SELECT 1 FROM pg_database WHERE datname = 'shop'"):
            server.execute("CREATE DATABASE shop")
        if not server.query("SELECT 1 FROM pg_namespace WHERE nspname = 'shop'", database="shop"):
            server.execute(shop.SCHEMA, database="shop")
        if not self.file.exists():
            self.file.write_text(PIPELINE.format(port=known["port"], folder=self.folder))
        return server

    def _home(self) -> Path:
        """Return where the server's files go: here, or where the unprivileged user that runs it can reach them."""
        here = self.folder.resolve()
        if processes.unprivileged() is None or processes.is_reachable(here):
            return here / "postgres"
        mark = hashlib.sha256(os.fsencode(here)).hexdigest()[:12]
        return Path("/var/tmp") / f"cdcsync-demo-{mark}"  # noqa: S108  made 0700, and has to outlive this process


class PipelineProcess:
    """`cdcsync run` on the demo's file; ends with this process, however that ends."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        _wait_until(lambda: self.status() is None, STOP_MAX_S)
        command = ["setpriv", "--pdeathsig=TERM", sys.executable, "-m", "cdcsync", "run", str(self._stage.file)]
        environment = {**os.environ, "STATE_DIRECTORY": str(self._stage.folder.resolve())}
        with self._stage.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        _wait_until(lambda: self.status() is not None or not self.running, START_MAX_S)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def status(self) -> dict[str, Any] | None:
        """Return the figures of the running pipeline, None when nobody answers."""
        with contextlib.suppress(NotRunning):
            return ask(self._stage.socket, "status")
        return None

    def require(self) -> None:
        """Raise Fatal with the end of the log when the process has ended."""
        if not self.running:
            said = self._stage.log.read_text(errors="replace")[-2000:]
            msg = f"the pipeline ended by itself:\n{said}"
            raise Fatal(msg, hint=f"see {self._stage.log}", status=ExitStatus.DATA)

    def verify(self) -> subprocess.CompletedProcess[str]:
        """Compare every row of both ends through the mapping."""
        command = [sys.executable, "-m", "cdcsync", "verify", str(self._stage.file)]
        environment = {**os.environ, "STATE_DIRECTORY": str(self._stage.folder.resolve())}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _is_served(server: servers.PostgresServer) -> bool:
    """Return whether the process in postmaster.pid is alive: a demo that was killed shuts down still."""
    try:
        pid = int((server.data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return False
    return Path(f"/proc/{pid}").exists()


def _wait_until(reached: Callable[[], bool], longest_s: float) -> bool:
    end = time.monotonic() + longest_s
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(text)
