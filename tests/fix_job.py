"""A pipeline from one PostgreSQL to another, run by the real command: refused, or carried until both are equal."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from fix_command import stopped

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from fix_command import Command
    from fix_postgres import Database

SHOP = """
CREATE TABLE orders (id bigint PRIMARY KEY, note text, price numeric(10, 2));
INSERT INTO orders SELECT n, 'note ' || n, n * 1.5 FROM generate_series(1, 20) n;
"""
ROWS = "SELECT id, note, price::text FROM orders ORDER BY id"
SLOT = "cdcsync_orders"
WAIT_S = 40


@dataclass
class Job:
    """A pipeline from one database to another, and the command that runs it."""

    command: Command
    source: Database
    target: Database
    source_url: str = ""
    source_section: str = ""
    """In place of the URL."""
    tables: str = "['public.orders']"
    more: str = ""

    @property
    def path(self) -> str:
        """The pipeline's file, written anew."""
        return self.command.write(
            f"name: orders\nsource: {self.source_section or repr(self.source_url or self.source.url)}\nsink: {self.target.url}\n"
            f"tables: {self.tables}\n{self.more}"
        )

    def refused(self, status: int, *said: str) -> str:
        """Run; it has to end by itself with one message that says all this and what to do. Return the message."""
        got = self.command("run", self.path)
        return judged(got, status, *said)

    def goes_on(self, query: str = ROWS) -> None:
        """Run until the target is equal."""
        process = self.command.start("run", self.path)
        arrived(process, lambda: same(self.source, self.target, query))
        assert stopped(process)[0] == 0


def judged(got: subprocess.CompletedProcess[str], status: int, *said: str) -> str:
    """Return what a command said that has to be refused: one message, one hint, no traceback."""
    assert got.returncode == status, got.stderr
    errors = got.stderr[got.stderr.rindex("\nerror: ") + 1 :]
    assert (len(re.findall(r"(?m)^error: ", errors)), "\n  -> " in errors, "Traceback" in errors) == (1, True, False), (
        errors
    )
    for words in said:
        assert words in errors
    return errors


def arrived(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Wait until it is so, while the process lives."""
    end = time.monotonic() + WAIT_S
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "never arrived"
        time.sleep(0.05)


def same(source: Database, target: Database, query: str = ROWS) -> bool:
    """Return whether both answer a query alike; a target without the table is not equal yet."""
    try:
        return target.query(query) == source.query(query)
    except psycopg.errors.UndefinedTable:
        return False
