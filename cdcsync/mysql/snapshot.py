"""Reads chunks of tables beside the binlog: each in one short transaction, whose view is placed in the log."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from cdcsync import named
from cdcsync.chunks import TooMuch
from cdcsync.errors import End
from cdcsync.mysql.chunks import altered
from cdcsync.mysql.connection import connect_to
from cdcsync.mysql.copied import Answers
from cdcsync.mysql.errors import MysqlError, number_of, verdict
from cdcsync.mysql.reread import rows_of
from cdcsync.mysql.view import opened
from cdcsync.reads import Reads
from cdcsync.snapshot import Cut, Taken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.addresses import Host
    from cdcsync.change import Row
    from cdcsync.chunks import Task
    from cdcsync.mysql.chunks import Part
    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.view import LogView

RECEIVE: Final = 256 << 10
"""Bytes asked of the socket at once."""
LOOK_AGAIN_S: Final = 0.1
"""Between two looks whether what is in the log can be seen."""
_ALTERED: Final = frozenset({1054, 1146, 1412})
"""A column or a table is gone; the table was defined anew since the view was opened."""
_COMMITTING: Final = (
    "SELECT ID, USER, STATE, TIME FROM information_schema.PROCESSLIST WHERE STATE LIKE '%semi-sync ACK%' "
    "ORDER BY TIME DESC LIMIT 1"
)
"""What a commit waits for between the log and the eyes of others."""
_TIMED_OUT: Final = frozenset({1969, 3024})
"""A statement took longer than `snapshot_timeout`: MariaDB, MySQL."""


class Chunks:
    """Reads chunks in a server's sessions: see `chunks.Work`."""

    def __init__(self, config: MysqlSource, address: Host, name: str, parts: Mapping[str, Part]) -> None:
        self._config = config
        self._address = address
        self._name = name
        self._parts = parts

    def connect(self) -> Connection:
        """Connect, and bound what a statement may take."""
        connection = connect_to(self._address, self._config, purpose=f"{self._name} snapshot")
        query, value = connection.server.time_limit(self._config.snapshot_timeout.total_seconds())
        connection.ask("bounding what a chunk may take", query, [value])
        return connection

    def read(self, connection: Connection, task: Task) -> bool:
        """Read one chunk."""
        chunk = task.chunk
        try:
            return self._read(connection, task)
        except MysqlError as error:
            number = number_of(error)
            if number in _ALTERED:
                raise altered(chunk.pending.table) from error
            if number in _TIMED_OUT and chunk.rows_max > 1:
                raise TooMuch from error
            raise verdict(error, End.SOURCE, f"reading a chunk of {chunk.pending.table}") from error

    def cancel(self, connection: Connection) -> None:
        """End the conversation: the thread's next read fails."""
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)

    def close(self, connection: Connection) -> None:
        """Disconnect."""
        connection.abort()

    def _read(self, connection: Connection, task: Task) -> bool:
        chunk = task.chunk
        part = self._parts[chunk.pending.table]
        view = _view(connection, task)
        if view is None:
            return True
        part.check(connection)
        task.opened(view)
        began = time.monotonic()
        last = chunk.last if chunk.cut or chunk.pending.keys else part.cut(connection, chunk)
        task.say(Cut(chunk.number, last))
        if chunk.pending.keys:
            changes = named.changes(part.table, chunk.pending, partial(rows_of, connection, self._config))
            connection.execute("COMMIT")
            size_bytes = named.ROW_BYTES * len(changes)
            task.say(Taken(chunk.number, view, changes, size_bytes, time.monotonic() - began))
            return True
        answers, size_bytes, is_whole = Answers(part.table, self._config.zero_dates), 0, False
        rows: list[Row] = []
        part.begin(connection, chunk, last)
        while not is_whole:
            data = connection.receive(RECEIVE)
            is_whole = answers.take(data, rows)
            size_bytes += len(data)
            task.measure(size_bytes)
            if not task.is_wanted():
                return False
        connection.execute("COMMIT")
        task.say(Taken(chunk.number, view, Reads(part.table, rows), size_bytes, time.monotonic() - began))
        return True


def _view(connection: Connection, task: Task) -> LogView | None:
    """Open a view that sees all that the log has given; None when the chunk was abandoned meanwhile."""
    while task.is_wanted():
        view = opened(connection)
        if not task.chunk.unseen_by(view):
            return view
        connection.execute("COMMIT")
        task.held(f"a commit that is in the log and not visible yet{_who(connection)}")
        task.wait(LOOK_AGAIN_S)
    return None


def _who(connection: Connection) -> str:
    """Return who it is, as far as this user may see other sessions."""
    rows = connection.execute(_COMMITTING)
    return "".join(f": session {number} ({user}), {state}, since {since} s" for number, user, state, since in rows)
