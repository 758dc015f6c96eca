"""Rows of XA transactions: they lie where it was prepared, and are read again from there when it is committed."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from cdcsync.errors import Fatal
from cdcsync.mysql import binlog, compressed
from cdcsync.mysql.binlog import Framing
from cdcsync.mysql.errors import LOST_HINT
from cdcsync.mysql.groups import Rows
from cdcsync.mysql.position import Prepared, file_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdcsync.mysql.groups import Groups
    from cdcsync.mysql.stream import Stream
    from cdcsync.mysql.tables import Tables
    from cdcsync.transaction import Assembler


class _Stage(enum.Enum):
    """How far the reading is."""

    SEARCH = enum.auto()
    """For where the transaction was prepared: that was before the pipeline began."""
    ROWS = enum.auto()
    DONE = enum.auto()


class Decision:
    """Reads the rows of the XA transaction that `groups` has come to the commit of, into the assembler.

    `dump` begins a dump at a place; `first` names the server's oldest file.
    """

    def __init__(
        self,
        groups: Groups,
        assembler: Assembler,
        tables: Tables,
        dump: Callable[[str, int], Stream],
        first: Callable[[], str],
    ) -> None:
        assert groups.decided is not None  # noqa: S101  who makes this has looked
        self._groups = groups
        self._assembler = assembler
        self._tables = tables
        self._dump = dump
        self._prepared: Prepared = groups.decided
        self._began: tuple[str, int] | None = None
        """Where the group that is looked at begins."""
        self._found: Prepared | None = None
        self._inner: Iterator[bytes] | None = None
        """Events of a compressed transaction that are not taken yet."""
        if self._prepared.file:
            self._begin(self._prepared)
        else:
            self._stage = _Stage.SEARCH
            self._framing = Framing(first(), 4)
            self._stream = dump(self._framing.file, 4)

    def drain(self) -> bool:
        """Take what was received, until a batch is full or the transaction is whole; return whether more is awaited."""
        while not self._assembler.full:
            if self._stage is _Stage.DONE:
                return False
            if self.waits and not self._rows.again():
                return True
            if self._inner is not None:
                self._take_inner(self._inner)
                continue
            event_or_none = self._stream.read()
            if event_or_none is None:
                return True
            self._take(event_or_none)
        return False

    @property
    def waits(self) -> bool:
        """Whether nothing can be taken before it is proved what a table was."""
        return self._stage is _Stage.ROWS and self._rows.waiting is not None

    @property
    def done(self) -> bool:
        """Whether the assembler has all rows, and the group may end."""
        return self._stage is _Stage.DONE

    def wait(self, timeout_s: float) -> bool:
        """Wait until more can be read."""
        return self._stream.wait(timeout_s)

    def close(self) -> None:
        """Disconnect. Never raises."""
        self._stream.close()

    def _begin(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._framing = Framing(prepared.file, prepared.offset)
        self._rows = Rows(self._assembler, self._tables, self._framing)
        self._stage = _Stage.ROWS
        self._stream = self._dump(prepared.file, prepared.offset)

    def _take(self, event: bytes) -> None:
        framing = self._framing
        kind = framing.take(event)
        if kind in {binlog.GTID, binlog.ANONYMOUS_GTID, binlog.MARIADB_GTID}:
            if self._stage is _Stage.ROWS and self._began is not None:
                raise self._missing("its rows do not end with XA PREPARE")
            self._began = framing.file, framing.began
        elif kind == binlog.XA_PREPARE:
            self._ended(binlog.prepare(event, binlog.HEADER))
        elif self._stage is _Stage.ROWS:
            self._rows_of(kind, event, framing.end)
        if self._stage is _Stage.SEARCH and self._is_past():
            self._end_search()

    def _take_inner(self, events: Iterator[bytes]) -> None:
        event = next(events, None)
        if event is None:
            self._inner = None
        else:
            self._rows_of(event[4], event, len(event))

    def _rows_of(self, kind: int, event: bytes, end: int) -> None:
        if kind in compressed.PLAIN:
            event = compressed.rows(event, end)
            kind, end = compressed.PLAIN[kind], len(event)
        if kind == binlog.TABLE_MAP:
            self._rows.map(event, end, self._prepared.xid)
        elif 23 <= kind <= 25 or 30 <= kind <= 32 or kind == binlog.PARTIAL_UPDATE_ROWS:  # noqa: PLR2004  rows
            self._rows.add(kind, event, end, self._prepared.xid)
        elif kind == binlog.TRANSACTION_PAYLOAD:
            self._inner = compressed.payload(event, end)
        elif kind == binlog.QUERY:
            self._refuse_undoing(binlog.query(event, binlog.HEADER, end).text)

    def _refuse_undoing(self, text: str) -> None:
        if text.upper().startswith("ROLLBACK"):
            raise self._missing("it rolls back to a savepoint")

    def _ended(self, prepare: binlog.Prepare) -> None:
        if prepare.xid == self._prepared.xid and self._stage is _Stage.SEARCH:
            if self._began is not None and not prepare.one_phase:
                self._found = Prepared(prepare.xid, *self._began)
        elif self._stage is _Stage.ROWS:
            if prepare.xid != self._prepared.xid:
                how = f"{prepare.xid} was prepared there"
                raise self._missing(how)
            self._stage = _Stage.DONE

    def _is_past(self) -> bool:
        """Return whether the search has come to the group that commits it."""
        here = self._groups.began
        return (file_number(self._framing.file), self._framing.offset) > (file_number(here[0]), here[1])

    def _end_search(self) -> None:
        self._stream.close()
        if self._found is None:
            raise self._missing("the log that the server still has does not hold it")
        self._began = None
        self._begin(self._found)

    def _missing(self, how: str) -> Fatal:
        where = f"{self._framing.file}:{self._framing.began}"
        msg = f"the rows of the XA transaction {self._prepared.xid} cannot be read at {where}: {how}"
        return Fatal(msg, hint=LOST_HINT)
