"""Puts the events of a binlog together to transactions.

An event group is what a GTID event begins: a transaction's rows up to its COMMIT, or one statement alone. The hot path:
plain Python here, C types in `groups.pxd`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql import binlog, compressed
from cdcsync.mysql.identity import check_born
from cdcsync.mysql.position import OFFSET_BITS, MysqlPosition, Prepared, Within, version_of
from cdcsync.mysql.schema import Unproved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdcsync.change import Item, Position, Table
    from cdcsync.mysql.binlog import Framing, Query
    from cdcsync.mysql.rows import RowsDecoder
    from cdcsync.mysql.stream import Stream
    from cdcsync.mysql.tables import Tables
    from cdcsync.transaction import Assembler

OUT, BEGUN, OPEN, ALONE, PREPARING = 0, 1, 2, 3, 4
"""Between groups; after a GTID; among rows that a COMMIT ends; one statement; rows of an XA transaction to prepare."""
PLANS_MAX: Final = 10_000
"""Table maps held; a server gives tables new numbers all the time."""
DUMMY_TABLE: Final = 0xFFFFFF
"""Rows of it only say that a statement ended."""
STANDALONE, PREPARED_XA = 1, 64
"""Flags of MariaDB's GTID event."""
_PASSED: Final = frozenset(
    {
        binlog.STOP, binlog.INTVAR, binlog.RAND, binlog.USER_VAR, binlog.APPEND_BLOCK, binlog.DELETE_FILE,
        binlog.BEGIN_LOAD_QUERY, binlog.IGNORABLE_EVENT, binlog.ROWS_QUERY, binlog.PREVIOUS_GTIDS,
        binlog.TRANSACTION_CONTEXT, binlog.VIEW_CHANGE, binlog.ANNOTATE_ROWS, binlog.BINLOG_CHECKPOINT, binlog.GTID_LIST,
    }
)  # fmt: skip
"""Events that say nothing about rows by themselves."""
_LOAD_QUERY_HEAD: Final = 13
"""Bytes that EXECUTE_LOAD_QUERY has more than QUERY, before the statement's own."""
_ONE_ROW: Final = (binlog.HEADER,)


class Plan:
    """How the rows of one table map are decoded.

    One that nobody wants has no decoder when only the catalogue tells how long its rows are: it may have been dropped
    since, so that each of its events counts as one row.
    """

    __slots__ = ("body", "changes", "decoder", "table", "wanted")

    def __init__(
        self,
        body: bytes,
        table: Table | None,
        decoder: RowsDecoder | None,
        wanted: bool,  # noqa: FBT001  positional in C
        changes: list[Item],
    ) -> None:
        self.body = body
        """The table map's own bytes: the same again mean the same plan."""
        self.table = table
        self.decoder = decoder
        self.wanted = wanted
        self.changes = changes
        """That the table is another version now: given before its first row."""


class Rows:
    """Decodes table maps and rows of one log, and adds them to the assembler."""

    def __init__(self, assembler: Assembler, tables: Tables, framing: Framing) -> None:
        self._assembler = assembler
        self._tables = tables
        self._framing = framing
        self._plans: dict[int, Plan] = {}
        self._dummy = DUMMY_TABLE
        self.waiting: tuple[bytes, int, str] | None = None
        """A table map of which it is still being proved what the catalogue says; nothing is to be taken before."""

    def again(self) -> bool:
        """Take the table map that waits; return whether none does any more."""
        if self.waiting is not None:
            (event, end, gtid), self.waiting = self.waiting, None
            self.map(event, end, gtid)
        return self.waiting is None

    def begin(self) -> None:
        """Forget the numbers of old table maps when there are many: each statement names its tables anew."""
        if len(self._plans) > PLANS_MAX:
            self._plans.clear()

    def map(self, event: bytes, end: int, gtid: str) -> None:
        """Take a table map. Raises Fatal when it describes what is not known."""
        number = _int(event, 19, 6)
        body = event[27:end]
        known = self._plans.get(number)
        if known is not None and known.body == body:
            return
        try:
            self._plans[number] = self._tables.plan(event, end, body, self._framing)
        except Unproved:
            self.waiting = event, end, gtid
        except (ValueError, IndexError, KeyError) as error:
            raise self.broken("a table map", gtid, error) from None
        except Fatal as fault:
            raise self.placed(fault, gtid) from fault

    def add(self, kind: int, event: bytes, end: int, gtid: str) -> None:
        """Take the rows of one event, compressed ones unpacked. Raises Fatal when they cannot be decoded."""
        number = _int(event, 19, 6)
        plan: Any = self._plans.get(number)
        if plan is None:
            if number == self._dummy:
                return
            msg = f"rows of table number {number}, which no table map names, at {self._framing.place}, in {gtid}"
            raise Fatal(msg, hint=binlog.DAMAGED)
        decoder = plan.decoder
        if decoder is None:
            self._assembler.add_unwanted(event, _ONE_ROW, end)
            return
        try:
            if not plan.wanted:
                decoder.count(event, 19, end, kind)
                self._assembler.add_unwanted(event, decoder.starts, end)
                return
            items = decoder.decode(event, 19, end, kind)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            what = f"rows of {plan.table.qualified if plan.table else 'a table'}"
            raise self.broken(what, gtid, error) from None
        except Fatal as fault:
            raise self.placed(fault, gtid) from fault
        if plan.changes:
            changes, plan.changes = plan.changes, []
            self._assembler.announce(changes)
        self._assembler.add_rows(items, event, decoder.starts, end)

    def broken(self, what: str, gtid: str, error: Exception) -> Fatal:
        """Return what to raise for an event that cannot be decoded; without the error's words, which quote values."""
        msg = f"{what} at {self._framing.place}, in {gtid}, cannot be decoded: {type(error).__name__}"
        return Fatal(msg, hint=binlog.UPGRADE, status=ExitStatus.DATA)

    def placed(self, fault: Fatal, gtid: str) -> Fatal:
        """Return the fault with its place in the log."""
        place = self._framing.place
        said = str(fault.args[0])
        msg = said if place in said else f"{said}, at {place}, in {gtid}"
        return Fatal(msg, hint=fault.hint, status=fault.status)


class Groups:
    """Takes one event after another; whole transactions and parts of large ones come out of the assembler.

    `here` is the position between groups. When `decided` names an XA transaction, its rows are to be given to the
    assembler, then `finish` called, before another event is taken.
    """

    def __init__(self, assembler: Assembler, tables: Tables, framing: Framing, here: MysqlPosition) -> None:
        self._assembler = assembler
        self._tables = tables
        self._framing = framing
        self._rows = Rows(assembler, tables, framing)
        self.here = here
        self.decided: Prepared | None = None
        self._state = OUT
        self._gtid = ""
        """Of the open group."""
        self._began = 0
        """Where it begins in the file."""
        self._member: Any = None
        """What it adds to the GTIDs seen; None for one without a GTID."""
        self._marks: dict[str, tuple[int, int]] = {}
        """Savepoints."""
        self._inner: Iterator[bytes] | None = None
        """Events of a compressed transaction that are not taken yet."""
        self._uuids: dict[bytes, str] = {}
        self._file_version = version_of(here.epoch, here.file, 0)
        self._offset_end = 1 << OFFSET_BITS
        self._place_of = self._within

    @property
    def began(self) -> tuple[str, int]:
        """Where the open group begins."""
        return self.here.file, self._began

    @property
    def within(self) -> bool:
        """Whether a group is open."""
        return self._state != OUT

    @property
    def waits(self) -> bool:
        """Whether nothing can be taken before it is proved what a table was."""
        return self._rows.waiting is not None

    def drain(self, stream: Stream) -> bool:
        """Take what was received, until a batch is full or rows of an XA transaction are due; return whether all was."""
        assembler, read = self._assembler, stream.read
        while not assembler.full and self.decided is None:
            if self._rows.waiting is not None and not self._rows.again():
                return True
            if self._inner is not None:
                self._take_inner()
                continue
            event = read()
            if event is None:
                return True
            self.take(event)
        return False

    def take(self, event: bytes) -> None:
        """Take the log's next event. Raises Fatal for what is not known, or cannot be applied."""
        framing = self._framing
        kind = framing.take(event)
        self._one(kind, event, framing.end)

    def _one(self, kind: int, event: bytes, end: int) -> None:
        if 30 <= kind <= 32 or 23 <= kind <= 25 or kind == 39:  # noqa: PLR2004  rows, version 2 and 1, and partial
            if self._state != 4:  # noqa: PLR2004  PREPARING
                self._among(kind)
                self._rows.add(kind, event, end, self._gtid)
        elif kind == 19:  # noqa: PLR2004  TABLE_MAP
            if self._state != 4:  # noqa: PLR2004  PREPARING
                self._rows.map(event, end, self._gtid)
        elif kind == 16:  # noqa: PLR2004  XID
            self._among(kind)
            self._commit()
        elif kind == 33 or kind == 34:  # noqa: PLR1714, PLR2004  GTID, ANONYMOUS_GTID
            self._begin_mysql(kind, event, end)
        elif kind == 162:  # noqa: PLR2004  MARIADB_GTID
            self._begin_mariadb(event)
        elif kind == 2 and end > 5 and event[end - 5 : end] == b"BEGIN" and self._state == 1:  # noqa: PLR2004  QUERY
            self._state = 2
        else:
            self._other(kind, event, end)

    def _among(self, kind: int) -> None:
        """Rows and commits belong to a group."""
        if self._state == 0:
            msg = f"an event of type {kind} at {self._framing.place} belongs to no transaction that begins there or before"
            raise Fatal(
                msg, hint="begin at the place of a GTID event: set such a position with `cdcsync positions set`"
            )

    def _begin_mysql(self, kind: int, event: bytes, end: int) -> None:
        """Begin a group (Gtid_event): flags 1, UUID 16, number 8, logical times 17, commit time 7."""
        if kind == 33:  # noqa: PLR2004  GTID
            raw = event[20:36]
            uuid = self._uuids.get(raw)
            if uuid is None:
                uuid = self._uuids[raw] = _uuid(raw)
            number = _int(event, 36, 8)
            gtid = f"{uuid}:{number}"
            self._member = uuid, number
        else:
            gtid = f"{self.here.server}:{self._framing.place}"
            self._member = None
        has_time = end >= 68 and event[44] == 2  # noqa: PLR2004  with logical times, and a commit time behind them
        at_us = _int(event, 61, 7) & 0x7FFFFFFFFFFFFF if has_time else _int(event, 0, 4) * 1000000
        self._begin(gtid, at_us, 1)

    def _begin_mariadb(self, event: bytes) -> None:
        """Begin a group (GTID_EVENT): number 8, domain 4, flags 1; the server is in the header."""
        number, domain, server = _int(event, 19, 8), _int(event, 27, 4), _int(event, 5, 4)
        flags = event[31]
        self._member = domain, server, number
        state = 3 if flags & 1 else 4 if flags & 64 else 2
        self._begin(f"{domain}-{server}-{number}", _int(event, 0, 4) * 1000000, state)

    def _begin(self, gtid: str, at_us: int, state: int) -> None:
        if self._state != 0:
            self._interrupt()
        began = self._framing.began
        if began >= self._offset_end:
            version_of(self.here.epoch, self.here.file, began)
        self._state = state
        self._gtid = gtid
        self._began = began
        self._rows.begin()
        self._assembler.begin(gtid, self._file_version + began, at_us, self._place_of)

    def _within(self, delivered: int, checksum: int) -> Position:
        """Return the position inside of the open group: it is read again from its start."""
        here = self.here.moved(self._began, self.here.gtids)
        return replace(here, within=Within(self._gtid, delivered, checksum))

    def _commit(self) -> None:
        """End the open group."""
        here = self.here
        gtids, member = here.gtids, self._member
        if member is not None and gtids is not None:
            gtids = gtids.with_one(*member)
        self.here = here = here.moved(self._framing.offset, gtids)
        self._state = 0
        if self._marks:
            self._marks = {}
        self._assembler.commit(here)

    def finish(self) -> None:
        """End the group that decided on an XA transaction, whose rows the assembler has."""
        decided, self.decided = self.decided, None
        if decided is not None:
            self._forget(decided)
        self._commit()

    def _forget(self, decided: Prepared) -> None:
        left = tuple([each for each in self.here.prepared if each.xid != decided.xid])
        if left != self.here.prepared:
            self.here = replace(self.here, prepared=left)

    def idle(self) -> MysqlPosition:
        """Return the position, moved to where the server is that has nothing to send."""
        if self._state == OUT and self.decided is None and self._framing.opened:
            self.here = self.here.moved(self._framing.offset, self.here.gtids)
        return self.here

    def _take_inner(self) -> None:
        """Take the next event of a compressed transaction."""
        try:
            event = next(self._inner, None) if self._inner is not None else None
        except Fatal as fault:
            raise self._rows.placed(fault, self._gtid) from fault
        if event is None:
            self._inner = None
        else:
            self._one(event[4], event, len(event))

    def _other(self, kind: int, event: bytes, end: int) -> None:
        """Take what is rare."""
        if kind == binlog.QUERY:
            self._statement(self._query(event, binlog.HEADER, end), event)
        elif kind == binlog.QUERY_COMPRESSED:
            plain = self._unpacked(compressed.query, event, end)
            self._one(binlog.QUERY, plain, len(plain))
        elif binlog.WRITE_ROWS_COMPRESSED_V1 <= kind <= binlog.DELETE_ROWS_COMPRESSED:
            plain = self._unpacked(compressed.rows, event, end)
            self._one(compressed.PLAIN[kind], plain, len(plain))
        elif kind == binlog.TRANSACTION_PAYLOAD:
            self._inner = iter(compressed.payload(event, end))
        elif kind in {binlog.ROTATE, binlog.FORMAT_DESCRIPTION}:
            self._turn()
        elif kind == binlog.XA_PREPARE:
            self._prepare(binlog.prepare(event, binlog.HEADER))
        elif kind == binlog.EXECUTE_LOAD_QUERY:
            self._statement(self._load_query(event, end), event)
        elif kind == binlog.INCIDENT:
            raise self._lost(binlog.incident(event, binlog.HEADER, end))
        elif (
            kind not in _PASSED
            and kind not in {binlog.HEARTBEAT, binlog.HEARTBEAT_V2}
            and not event[17] & binlog.IGNORABLE
        ):
            raise binlog.refused(kind, self._framing.place, self._gtid if self._state else "")

    def _unpacked(self, unpack: Callable[[bytes, int], bytes], event: bytes, end: int) -> bytes:
        try:
            return unpack(event, end)
        except Fatal as fault:
            raise self._rows.placed(fault, self._gtid) from fault

    def _query(self, event: bytes, at: int, end: int) -> Query:
        try:
            return binlog.query(event, at, end)
        except (ValueError, IndexError) as error:
            raise self._rows.broken("a statement", self._gtid, error) from None

    def _load_query(self, event: bytes, end: int) -> Query:
        """Return the statement of a LOAD DATA that was logged as one."""
        at = binlog.HEADER
        return self._query(event[: at + 13] + event[at + 13 + _LOAD_QUERY_HEAD :], at, end - _LOAD_QUERY_HEAD)

    def _turn(self) -> None:
        """Go on in another file, or at its beginning. A group that is open was never ended: the server died in it."""
        framing = self._framing
        if self._state != OUT:
            self._interrupt()
        born = framing.born if framing.opened else 0
        check_born(self.here, framing.file, born)
        if framing.file != self.here.file or (born and born != self.here.born):
            self.here = replace(self.here, file=framing.file, offset=framing.offset, born=born, within=None)
            self._file_version = version_of(self.here.epoch, framing.file, 0)

    def _interrupt(self) -> None:
        """Forget a group that the log does not end."""
        if not self._assembler.undo((0, 0)):
            msg = f"transaction {self._gtid} is not whole in the log before {self._framing.place}, and a part was delivered"
            raise Fatal(msg, hint="see the server's error log for a crash; then fill the target tables anew")
        self._state = OUT
        self._marks = {}
        self._assembler.commit(self.here)

    def _statement(self, query: Query, event: bytes) -> None:
        """Take a statement: of a transaction's course, or on tables."""
        self._among(binlog.QUERY)
        words = query.text.split(None, 2)
        first, second = (word.upper() for word in (*words, "", "")[:2])
        if first == "XA":
            self._distributed(second, query.text)
        elif first == "SAVEPOINT":
            self._marks[_savepoint(query.text)] = self._assembler.mark()
        elif first == "ROLLBACK" and second == "TO":
            self._undo_to(_savepoint(query.text))
        elif first.rstrip(";") in {"COMMIT", "ROLLBACK"}:
            if first.startswith("R"):
                self._undo((0, 0), "is rolled back at its end")
            self._commit()
        elif first == "BEGIN" or (first, second) == ("START", "TRANSACTION"):
            self._state = OPEN
        else:
            self._on_tables(query, event)

    def _on_tables(self, query: Query, event: bytes) -> None:
        try:
            items, opens = self._tables.judge(query)
        except Fatal as fault:
            raise self._rows.placed(fault, self._gtid) from fault
        if items:
            self._assembler.add_all(items, event)
        if self._state in {BEGUN, ALONE}:
            if opens:
                self._state = OPEN
            else:
                self._commit()

    def _undo_to(self, name: str) -> None:
        mark = self._marks.get(name)
        if mark is None:
            msg = f"transaction {self._gtid} rolls back to a savepoint that it has not, at {self._framing.place}"
            raise Fatal(msg, hint=binlog.UPGRADE)
        self._undo(mark, "rolls back to a savepoint")

    def _undo(self, mark: tuple[int, int], what: str) -> None:
        if not self._assembler.undo(mark):
            msg = (
                f"transaction {self._gtid} {what} at {self._framing.place}, and rows of before were delivered in a part"
            )
            hint = (
                "remove the rows from the target by hand, and go on after the transaction with `cdcsync positions set`"
            )
            raise Fatal(msg, hint=hint)

    def _distributed(self, second: str, text: str) -> None:
        """Take a statement of an XA transaction."""
        if second == "START":
            self._state = PREPARING
        elif second in {"COMMIT", "ROLLBACK"}:
            name = _xid(text)
            found = next((each for each in self.here.prepared if each.xid == name), Prepared(name, "", 0))
            if second == "COMMIT":
                self.decided = found
            else:
                self._forget(found)
                self._commit()

    def _prepare(self, prepare: binlog.Prepare) -> None:
        """End the rows of an XA transaction: they wait for its commit, unless this is it."""
        self._among(binlog.XA_PREPARE)
        prepared = Prepared(prepare.xid, self.here.file, self._began)
        if prepare.one_phase:
            self.decided = prepared
            return
        self.here = replace(self.here, prepared=(*self.here.prepared, prepared))
        self._commit()

    def _lost(self, said: str) -> Fatal:
        msg = f"the server wrote an incident into its log at {self._framing.place}: {said}; changes are missing there"
        return Fatal(msg, hint="fill the target tables anew, from a position after the incident")


def _int(event: bytes, at: int, size: int) -> int:
    """Return an unsigned integer below 2^63, its first byte the lowest."""
    value = 0
    index = at + size
    while index > at:
        index -= 1
        value = value << 8 | event[index]
    return value


def _uuid(raw: bytes) -> str:
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _savepoint(text: str) -> str:
    """Return the name that a statement on a savepoint ends with; names do not mind their case."""
    return text.rsplit(maxsplit=1)[-1].strip("`;").lower()


def _xid(text: str) -> str:
    """Return the XA identifier of a statement in the log: XA COMMIT X'..',X'..',1."""
    return text.split(None, 2)[2].removesuffix("ONE PHASE").strip()
