"""Searches a server's log on a connection of its own: for a time, and for what lies before a place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql import binlog, logs, readers
from cdcsync.mysql.binlog import Framing
from cdcsync.mysql.connection import connect_to
from cdcsync.mysql.errors import LOST_HINT
from cdcsync.mysql.gtid import GtidList, Gtids, GtidSet
from cdcsync.mysql.position import FIRST_OFFSET, file_number
from cdcsync.mysql.stream import Reader, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.logs import Log
    from cdcsync.ports import SourceContext

PURPOSE: Final = "search"
WAIT_S: Final = 1.0
SECOND_US: Final = 1_000_000
_COMMIT_TIME_END: Final = 68
"""Where a GTID event ends at the least that has a commit time (Gtid_event)."""


@dataclass(frozen=True, slots=True)
class Found:
    """A place between two transactions."""

    file: str
    offset: int
    gtids: Gtids | None
    """All that lie before; None where the server gives none."""
    time_us: int = 0
    """When the transaction that begins there was committed; 0: there is none yet."""


Member: TypeAlias = tuple[str, int] | tuple[int, int, int] | None
"""UUID and number; domain, server and number; None for a transaction without a GTID."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A transaction's first event."""

    file: str
    offset: int
    time_us: int
    """The last microsecond in which it may have been committed, as far as the log says."""
    before: Gtids | None
    """All before it."""
    member: Member

    @property
    def after(self) -> Gtids | None:
        """All before it, and it."""
        if isinstance(self.before, GtidSet) and self.member is not None and len(self.member) == 2:  # noqa: PLR2004  UUID
            return self.before.with_one(*self.member)
        if isinstance(self.before, GtidList) and self.member is not None and len(self.member) == 3:  # noqa: PLR2004  domain
            return self.before.with_one(*self.member)
        return self.before


class Search:
    """Looks through the log of the server that `connection` is to. Raises Transient and Fatal."""

    def __init__(self, connection: Connection, config: MysqlSource, context: SourceContext) -> None:
        self._connection = connection
        self._config = config
        self._context = context

    def at_time(self, time_us: int) -> Found:
        """Return the place of the first transaction that was committed then or later; the log's end when none was yet.

        Never later than asked: a clock that says only seconds, as MariaDB's and MySQL 5.7's logs do, counts to their end.
        """
        end = logs.end(self._connection)
        present = logs.files(self._connection)
        at = self._file_of(present, time_us)
        for group in self._groups(
            present[max(at - 1, 0)].file, lambda framing: _is_past(framing, end.file, end.offset)
        ):
            if group.time_us >= time_us:
                return Found(group.file, group.offset, group.before, group.time_us)
        return Found(end.file, end.offset, end.gtids)

    def gtids_before(self, file: str, offset: int) -> Gtids | None:
        """Return all that lie before a place where a transaction begins, or a file's own events."""
        gtids = logs.before(self._connection, file)
        for group in self._groups(file, lambda framing: _is_past(framing, file, offset)):
            gtids = group.after
        return gtids

    def after(self, gtids: Gtids) -> Found:
        """Return the place of the first transaction that is not among these; the log's end when all are."""
        end = logs.end(self._connection)
        file = self._last_within(gtids)
        for group in self._groups(file, lambda framing: _is_past(framing, end.file, end.offset)):
            if not _is_member(group.member, gtids):
                return Found(group.file, group.offset, group.before, group.time_us)
        return Found(end.file, end.offset, end.gtids)

    def behind(self, uuid: str, number: int) -> Found | None:
        """Return the place right behind one of MySQL's transactions; None where the log does not have it."""
        end = logs.end(self._connection)
        for log in reversed(logs.files(self._connection)):
            lies_before = logs.before(self._connection, log.file)
            if not isinstance(lies_before, GtidSet) or (uuid, number) not in lies_before:
                break
        seen: _Group | None = None
        for group in self._groups(log.file, lambda framing: _is_past(framing, end.file, end.offset)):
            if seen is not None:
                return Found(group.file, group.offset, group.before, group.time_us)
            if group.member == (uuid, number):
                seen = group
        return Found(end.file, end.offset, end.gtids) if seen is not None else None

    def _last_within(self, gtids: Gtids) -> str:
        """Return the last file before which there is nothing but these; the first where there is no such file."""
        present = logs.files(self._connection)
        for log in reversed(present):
            lies_before = logs.before(self._connection, log.file)
            if lies_before is not None and _covers(gtids, lies_before):
                return log.file
        return present[0].file

    def begun(self, file: str) -> int:
        """Return when a file was begun, in seconds, as its first event says."""
        stream, framing = self._dump(file)
        try:
            while not framing.opened:
                event = stream.read()
                if event is not None:
                    framing.take(event)
                else:
                    stream.wait(WAIT_S)
            return framing.born
        finally:
            stream.close()

    def _file_of(self, present: Sequence[Log], time_us: int) -> int:
        """Return the index of the last file before which all was committed earlier. Raises Fatal where there is none."""
        low, high = 0, len(present)
        while low < high:
            middle = (low + high) // 2
            if (self.begun(present[middle].file) + 1) * SECOND_US <= time_us:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            self._refuse_cut(present[0].file, time_us)
        return max(low - 1, 0)

    def _refuse_cut(self, first: str, time_us: int) -> None:
        """Raise Fatal unless the first file is the first that the server ever had."""
        gtids = logs.before(self._connection, first)
        if gtids or (gtids is None and file_number(first) > 1):
            begun = shown_time(self.begun(first) * SECOND_US)
            msg = f"the log begins with {first} at {begun}, later than {shown_time(time_us)}: what was before it was purged"
            raise Fatal(
                msg, hint=f"start with `earliest`, or at a later time; else {LOST_HINT}", status=ExitStatus.CONFIG
            )

    def _groups(self, file: str, stop: Callable[[Framing], bool]) -> Iterator[_Group]:
        """Yield the first events of transactions from the begin of a file until `stop` says so."""
        gtids = logs.before(self._connection, file)
        stream, framing = self._dump(file)
        try:
            while not (framing.opened and stop(framing)):
                event = stream.read()
                if event is None:
                    stream.wait(WAIT_S)
                    continue
                kind = framing.take(event)
                if kind in {binlog.GTID, binlog.ANONYMOUS_GTID, binlog.MARIADB_GTID}:
                    time_us = _time_us(kind, event, framing.end)
                    group = _Group(framing.file, framing.began, time_us, gtids, _member(kind, event))
                    yield group
                    gtids = group.after
        finally:
            stream.close()

    def _dump(self, file: str) -> tuple[Stream, Framing]:
        """Begin to read a file from its first event on."""
        config, context = self._config, self._context
        connection = connect_to(self._connection.address, config, purpose=f"cdcsync {context.pipeline} {PURPOSE}")
        try:
            purpose = f"{PURPOSE} {os.getpid()}"
            number = readers.choose(connection, config, context, purpose)
            reader = Reader(
                number,
                readers.name_of(context, purpose),
                config.heartbeat.total_seconds(),
                config.silence_max.total_seconds(),
            )
            stream = Stream(connection, reader)
            stream.start_at(file, FIRST_OFFSET)
        except BaseException:
            connection.abort()
            raise
        return stream, Framing(file, FIRST_OFFSET)


def _covers(gtids: Gtids, others: Gtids) -> bool:
    """Return whether all of the others are among these; of two forms none is."""
    if isinstance(gtids, GtidSet):
        return isinstance(others, GtidSet) and gtids.covers(others)
    return isinstance(others, GtidList) and gtids.covers(others)


def _is_member(member: Member, gtids: Gtids) -> bool:
    """Return whether a transaction is among these."""
    if member is None:
        return False
    if isinstance(gtids, GtidSet):
        return len(member) == 2 and member in gtids  # noqa: PLR2004  UUID and number
    return len(member) == 3 and (member[0], member[2]) in gtids  # noqa: PLR2004  domain, server and number


def shown_time(time_us: int) -> str:
    """Return it in ISO 8601, to the second where it is a whole one."""
    return datetime.fromtimestamp(time_us / SECOND_US, UTC).isoformat().replace("+00:00", "Z")


def _is_past(framing: Framing, file: str, offset: int) -> bool:
    """Return whether all events up to that place were seen."""
    here = file_number(framing.file), framing.offset
    return here >= (file_number(file), offset)


def _time_us(kind: int, event: bytes, end: int) -> int:
    """Return when a transaction was committed at this server: MySQL 8 says it, others when its last statement began."""
    if kind != binlog.MARIADB_GTID and end >= _COMMIT_TIME_END and event[44] == 2:  # noqa: PLR2004  with logical times
        return int.from_bytes(event[61:68], "little") & (1 << 55) - 1
    return int.from_bytes(event[:4], "little") * SECOND_US + SECOND_US - 1


def _member(kind: int, event: bytes) -> Member:
    """Return what the transaction adds to the GTIDs seen (Gtid_event; MariaDB, GTID_EVENT)."""
    if kind == binlog.GTID:
        digits = event[20:36].hex()
        uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        return uuid, int.from_bytes(event[36:44], "little")
    if kind == binlog.MARIADB_GTID:
        server = int.from_bytes(event[5:9], "little")
        return int.from_bytes(event[27:31], "little"), server, int.from_bytes(event[19:27], "little")
    return None
