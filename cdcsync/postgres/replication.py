"""The replication stream over psycopg: messages in, "alive, durable up to X" out (manual, 55.4 Streaming Replication)."""

from __future__ import annotations

import select
import time
from struct import Struct
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import pq

from cdcsync.errors import End, Fatal, Transient
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.pgoutput import POSTGRES_EPOCH_US
from cdcsync.postgres.position import format_lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.postgres.connection import Connection

XLOG_DATA: Final = 119
KEEPALIVE: Final = 107
BODY: Final = 25
"""Where the message starts in XLogData."""
STATUS_S: Final = 10.0
"""Longest time between two status updates."""
FLUSH_MAX_S: Final = 10.0
NAP_S: Final = 0.001
NAP_BELOW: Final = 100
"""Fewer messages than this at one wait are worth a nap when more come already."""
CONSUME_MAX: Final = 8
"""Reads of the socket at one wait: each takes what the library's buffer has room for, and makes it grow."""
CONSUME_TLS_MAX: Final = 256
"""The same over TLS, where each takes one record, which is one message of the server's."""

_pack_status: Final = Struct(">cQQQqB").pack
_unpack_keepalive: Final = Struct(">xQqB").unpack_from


class Stream:
    """One START_REPLICATION. Raises Transient of the source when the connection is lost or deaf."""

    def __init__(
        self, connection: Connection, silence_max_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._get = self._pgconn.get_copy_data
        self._consume_max = CONSUME_TLS_MAX if self._pgconn.ssl_in_use else CONSUME_MAX
        self._clock = clock
        self._status_s = min(STATUS_S, silence_max_s / 3)
        self._silence_max_s = silence_max_s
        self._flushed = 0
        self._said_at = self._heard_at = clock()
        self._asked_at: float | None = None
        self._skipping: str | None = None
        """What the server said when it skipped a publication that did not exist at a point in the log."""
        connection.add_notice_handler(self._noticed)
        self._drained = 0
        """Messages read since the last wait."""

    def start(self, slot: str, lsn: int, publications: Sequence[str], *, messages: bool) -> None:
        """Start after `lsn`: what committed before it is not sent."""
        names = ",".join('"' + name.replace('"', '""') + '"' for name in publications).replace("'", "''")
        options = f"proto_version '1', publication_names '{names}'" + (", messages 'true'" if messages else "")
        quoted = '"' + slot.replace('"', '""') + '"'
        command = f"START_REPLICATION SLOT {quoted} LOGICAL {format_lsn(lsn)} ({options})"
        self._pgconn.send_query(command.encode())
        while self._pgconn.is_busy():
            self._wait_readable(self._silence_max_s)
            self._consume()
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            raise self._refused(result)
        self._pgconn.nonblocking = 1
        self._flushed = lsn

    def read(self) -> bytes | None:
        """Return the next message that is here, None when there is none."""
        try:
            size, data = self._get(1)
        except psycopg.Error as error:
            raise verdict(error, End.SOURCE, "reading the log") from error
        if size > 0:
            self._drained += 1
            return bytes(data)
        if size == 0:
            return None
        result = self._pgconn.get_result()
        raise self._refused(result)

    def wait(self, timeout_s: float) -> bool:
        """Wait until something can be read; say "alive" when it is time. Returns whether there is something.

        A server that sends without pause sends row by row: a short nap lets rows gather, which costs far fewer
        system calls and leaves the interpreter to the other thread.
        """
        self.keep_alive()
        drained, self._drained = self._drained, 0
        if 0 < drained < NAP_BELOW and self._wait_readable(0):
            select.select([], [], [], NAP_S)
        elif not self._wait_readable(min(timeout_s, self._status_s)):
            self._check_silence()
            return False
        for _ in range(self._consume_max):
            self._consume()
            if not self._wait_readable(0):
                break
        self._heard_at = self._clock()
        self._asked_at = None
        return True

    def keep_alive(self) -> None:
        """Send a status update when it is time."""
        if self._clock() - self._said_at >= self._status_s:
            self.say()

    def say(self, flushed: int | None = None, *, ask: bool = False) -> None:
        """Send a status update: all before `flushed` is durable; `ask` for an answer."""
        if flushed is not None:
            self._flushed = max(self._flushed, flushed)
        at = time.time_ns() // 1000 - POSTGRES_EPOCH_US
        self._put(_pack_status(b"r", self._flushed, self._flushed, self._flushed, at, ask))
        self._said_at = self._clock()

    def check_whole(self) -> None:
        """Raise Fatal when the server left changes out; called before a position moves past a commit.

        From version 18 on it only warns where older ones refuse, and the changes are not in the stream.
        """
        if self._skipping is not None:
            raise _unpublished(self._skipping)

    def answer(self, keepalive: bytes) -> int:
        """Answer a keepalive that asks for it; return its end of the log."""
        self.check_whole()
        wal_end, _, asks = _unpack_keepalive(keepalive)
        if asks:
            self.say()
        return int(wal_end)

    def close(self) -> None:
        """Disconnect; never raises."""
        self._connection.close()

    def _put(self, data: bytes) -> None:
        try:
            self._pgconn.put_copy_data(data)
            until = self._clock() + FLUSH_MAX_S
            while self._pgconn.flush():
                if self._clock() > until:
                    raise Transient(End.SOURCE, "the server does not read: a status update could not be sent")
                _, writable, _ = select.select([self._pgconn.socket], [self._pgconn.socket], [], 0.2)
                if not writable:
                    self._consume()
        except psycopg.Error as error:
            raise verdict(error, End.SOURCE, "sending a status update") from error

    def _wait_readable(self, timeout_s: float) -> bool:
        readable, _, _ = select.select([self._pgconn.socket], [], [], max(0.0, timeout_s))
        return bool(readable)

    def _consume(self) -> None:
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            raise verdict(error, End.SOURCE, "reading the log") from error

    def _check_silence(self) -> None:
        """A server that says nothing is asked; one that does not answer is gone."""
        now = self._clock()
        if self._asked_at is None:
            if now - self._heard_at > self._silence_max_s / 2:
                self._asked_at = now
                self.say(ask=True)
        elif now - self._asked_at > self._silence_max_s / 2:
            msg = f"the server was silent for {now - self._heard_at:.0f} s, though asked"
            raise Transient(End.SOURCE, msg)

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.sqlstate == psycopg.errors.ObjectNotInPrerequisiteState.sqlstate:
            self._skipping = notice.message_primary or "a publication is missing"

    def _refused(self, result: pq.abc.PGresult | None) -> Exception:
        if result is None or result.status in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.COPY_OUT}:
            return Transient(End.SOURCE, "the server ended the stream")
        error = psycopg.errors.error_from_result(result, encoding="utf-8")
        if isinstance(error, psycopg.errors.UndefinedObject):
            return _unpublished(error.diag.message_primary or "a publication is missing")
        return verdict(error, End.SOURCE, "reading the log")


def _unpublished(said: str) -> Fatal:
    msg = f"changes are not in the stream: {said} at this point of the log, where it was dropped or not made yet"
    hint = "`cdcsync drop`, empty the target tables, and run again to copy everything; keep the publication from now on"
    return Fatal(msg, hint=hint)
