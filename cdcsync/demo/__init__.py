"""The demo: a shop in PostgreSQL, followed into SQLite, to look at; it ends by proving that both are equal."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import psycopg
from rich.console import Console
from rich.live import Live

from cdcsync.demo import shop
from cdcsync.demo.stage import PipelineProcess, Stage
from cdcsync.demo.view import Look, View, copied

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from cdcsync.testing.servers import PostgresServer

LOOK_S: Final = 0.5
UNATTENDED_S: Final = 20.0
"""How long the demo runs where nobody can press Ctrl-C."""


def main(folder: Path, seconds: float | None) -> int:
    """Run the demo in `folder`; return 0 only when both ends are equal at its end.

    Raises Fatal when the pipeline ended by itself.
    """
    console = Console()
    live = console.is_terminal
    if seconds is None and not live:
        seconds = UNATTENDED_S
    stage = Stage(folder)
    console.print(f"starting PostgreSQL and the pipeline in {folder} ...")
    with _asked_to_stop() as stopping, _served(stage) as server, PipelineProcess(stage) as pipeline:
        pipeline.require()
        writer = shop.Writer(server.url("shop"))
        writer.start()
        view = View(f"PostgreSQL {server.version} at :{server.port}", f"SQLite {stage.target.name}", str(stage.file))
        eye = _Eye(stage, server, pipeline, writer)
        until = time.monotonic() + seconds if seconds else float("inf")
        _watch(eye, view, console, stopping, until)
        writer.stop()
        if writer.fault is not None:
            raise writer.fault
        console.print("the shop is closed; comparing every row of both ends ...")
        verified = pipeline.verify()
    console.print(verified.stdout.rstrip(), markup=False, highlight=False)
    if verified.returncode:
        console.print(verified.stderr.rstrip(), markup=False, highlight=False)
    equal = verified.returncode == 0
    console.print("[bold green]equal[/]" if equal else "[bold red]not equal[/]")
    console.print(f"the pipeline's file is {stage.file}; the target is {stage.target}", highlight=False)
    return 0 if equal else 1


def _watch(eye: _Eye, view: View, console: Console, stopping: threading.Event, until: float) -> None:
    """Show what flows until the time is up or Ctrl-C."""
    view.add(eye.look())
    if not console.is_terminal:
        while not stopping.wait(max(0.0, min(1.0, until - time.monotonic()))) and time.monotonic() < until:
            view.add(eye.look())
            sys.stdout.write(view.line() + "\n")
            sys.stdout.flush()
        return
    with Live(view.screen(), console=console, auto_refresh=False, transient=False) as screen:
        while not stopping.wait(LOOK_S) and time.monotonic() < until:
            view.add(eye.look())
            screen.update(view.screen(), refresh=True)


class _Eye:
    """Looks at both ends."""

    def __init__(self, stage: Stage, server: PostgresServer, pipeline: PipelineProcess, writer: shop.Writer) -> None:
        self._stage = stage
        self._source = server.connect("shop")
        self._pipeline = pipeline
        self._writer = writer

    def look(self) -> Look:
        """Return what both ends hold now; raises Fatal when the pipeline has ended."""
        self._pipeline.require()
        return Look(
            at=time.monotonic(),
            source_rows={name: self._count(name) for name in shop.TABLES},
            target_rows=self._target_rows(),
            written=copied(self._writer.rows),
            transactions=self._writer.transactions,
            said=self._writer.said,
            status=self._pipeline.status(),
        )

    def _count(self, name: str) -> int:
        query = psycopg.sql.SQL("SELECT count(*) FROM shop.{}").format(psycopg.sql.Identifier(name))
        row = self._source.execute(query).fetchone()
        return int(row[0]) if row else 0

    def _target_rows(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(self._opened()) as target:
            for name in shop.TABLES:
                found[name] = target.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608  constants
        return found

    def _opened(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._stage.target}?mode=ro", uri=True, timeout=1)


@contextlib.contextmanager
def _served(stage: Stage) -> Iterator[PostgresServer]:
    server = stage.server()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event while the demo runs."""
    stopping = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
