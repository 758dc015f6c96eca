"""Sends prepared statements down one connection in one round trip, and rows by COPY; every wait is bounded."""

from __future__ import annotations

import select
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.pq import ExecStatus

from cdcsync.errors import End, Transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from cdcsync.postgres.connection import Connection

SILENCE_MAX_S: Final = 300.0
"""Longest wait for one answer where the section sets no longer statement_timeout."""
_BURST: Final = 256
"""Requests sent before answers are taken off the socket."""
_FAILED: Final = frozenset({ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE})


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One prepared statement; compared by identity."""

    sql: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One execution: parameters in text form, None for NULL."""

    statement: Statement
    values: Sequence[bytes | None] = ()


class Failed(Exception):  # noqa: N818  carries the server's error to the writer, which judges it
    """A request failed; those after it in its round trip did not run."""

    def __init__(self, request: Request | None, error: psycopg.Error) -> None:
        super().__init__(request, error)
        self.request = request
        """Which it was; None for a COPY."""
        self.error = error


class Wire:
    """Speaks to libpq directly: psycopg's cursors cost more than the server's work on one row."""

    def __init__(self, connection: Connection, silence_max_s: float = SILENCE_MAX_S) -> None:
        self._connection = connection
        self._libpq: PGconn = connection.pgconn
        self._silence_max_s = silence_max_s
        self._prepared: dict[Statement, bytes] = {}
        self._names = 0
        self.rounds = 0
        """Round trips begun."""

    def run(self, requests: Sequence[Request]) -> list[int]:
        """Execute all in one round trip; return the rows that each touched. Raises Failed, Transient."""
        libpq = self._libpq
        libpq.nonblocking = 1
        self.rounds += 1
        try:
            libpq.enter_pipeline_mode()
            return self._piped(requests)
        except psycopg.OperationalError as error:
            raise self._gone(error) from error
        finally:
            if libpq.status == 0:
                libpq.exit_pipeline_mode()
                libpq.nonblocking = 0

    def _piped(self, requests: Sequence[Request]) -> list[int]:
        libpq = self._libpq
        asked: list[tuple[int, Statement | None]] = []
        """(index of the request, the statement when it is being prepared)"""
        for index, request in enumerate(requests):
            name = self._prepared.get(request.statement)
            if name is None:
                self._names += 1
                name = b"cdcsync%d" % self._names
                self._prepared[request.statement] = name
                libpq.send_prepare(name, request.statement.sql)
                asked.append((index, request.statement))
            libpq.send_query_prepared(name, request.values or None)
            asked.append((index, None))
            if index % _BURST == _BURST - 1:
                libpq.flush()
                libpq.consume_input()
        libpq.pipeline_sync()
        touched = [0] * len(requests)
        failed: Failed | None = None
        for index, preparing in asked:
            result = self._answer()
            if result.status in _FAILED and failed is None:
                failed = Failed(requests[index], psycopg.errors.error_from_result(result))
            elif preparing is None and failed is None:
                touched[index] = result.command_tuples or 0
            if preparing is not None and result.status != ExecStatus.COMMAND_OK:
                del self._prepared[preparing]
        self._until_synced()
        if failed is not None:
            raise failed
        return touched

    def copy(self, sql: bytes, blocks: Iterable[bytes]) -> None:
        """Run one COPY FROM STDIN. Raises Failed, Transient."""
        libpq = self._libpq
        libpq.nonblocking = 1
        try:
            libpq.send_query(sql)
            result = self._answer(drain=False)
            if result.status == ExecStatus.COPY_IN:
                result = self._fed(blocks)
        except psycopg.OperationalError as error:
            raise self._gone(error) from error
        finally:
            if libpq.status == 0:
                libpq.nonblocking = 0
        if result.status in _FAILED:
            raise Failed(None, psycopg.errors.error_from_result(result))

    def _fed(self, blocks: Iterable[bytes]) -> PGresult:
        ended = False
        try:
            for block in blocks:
                self._libpq.put_copy_data(block)
                self._flushed()
            self._libpq.put_copy_end()
            ended = True
        finally:
            if not ended and self._libpq.status == 0:
                self._libpq.put_copy_end(b"given up")
                self._answer()
        return self._answer()

    def _answer(self, *, drain: bool = True) -> PGresult:
        """Return the next request's result, and take the end of its results off the connection."""
        result = self._next()
        if result is None:
            msg = "the connection was lost"
            raise psycopg.OperationalError(msg)
        while drain and self._next() is not None:
            pass
        return result

    def _next(self) -> PGresult | None:
        self._flushed()
        while self._libpq.is_busy():
            self._wait(select.POLLIN)
            self._libpq.consume_input()
        result = self._libpq.get_result()
        if result is not None and result.status in _FAILED and self._libpq.status != 0:
            raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        return result

    def _until_synced(self) -> None:
        while True:
            result = self._next()
            if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
                return
            if self._libpq.status != 0:
                msg = "the connection was lost"
                raise psycopg.OperationalError(msg)

    def _flushed(self) -> None:
        """Send all, taking in what the server says meanwhile: else both could wait for each other."""
        while self._libpq.flush():
            if self._wait(select.POLLIN | select.POLLOUT) & select.POLLIN:
                self._libpq.consume_input()

    def _wait(self, events: int) -> int:
        poller = select.poll()
        poller.register(self._libpq.socket, events)
        found = poller.poll(self._silence_max_s * 1000)
        if not found:
            raise Transient(End.SINK, f"the target has been silent for {self._silence_max_s:.0f} s")
        return found[0][1]

    def _gone(self, error: psycopg.Error) -> Transient:
        return Transient(End.SINK, " ".join(str(error).split()) or "the connection to the target was lost")
