"""The frame of a binlog's events, and what the rare ones say (MySQL internals manual, "Binary Log"; MariaDB, "Replication Protocol").

The hot path: plain Python here, C types in `binlog.pxd`. An event is the whole of it, header and checksum included.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from isal.isal_zlib import crc32

from cdcsync.errors import ExitStatus, Fatal

HEADER: Final = 19
"""Bytes before an event's body: time 4, type 1, server id 4, size 4, end in the file 4, flags 2."""
CHECKSUM: Final = 4
_crc32 = crc32
"""ISA-L's: of short events four times as fast as zlib's."""
HELD_MAX: Final = 5120
"""Above so many bytes it lets go of the interpreter, and has to wait for it again: as long as many events take."""
RESIDUE: Final = 0x2144DF1C
"""CRC-32 of anything with its own CRC-32 behind it."""
ARTIFICIAL: Final = 0x20
"""Flag: made by the server that sends, not in its log."""
IGNORABLE: Final = 0x80
"""Flag: who does not know the event may pass over it."""

QUERY, STOP, ROTATE, INTVAR, RAND, USER_VAR = 2, 3, 4, 5, 13, 14
APPEND_BLOCK, DELETE_FILE, BEGIN_LOAD_QUERY, EXECUTE_LOAD_QUERY = 9, 11, 17, 18
FORMAT_DESCRIPTION, XID, TABLE_MAP = 15, 16, 19
WRITE_ROWS_V1, UPDATE_ROWS_V1, DELETE_ROWS_V1 = 23, 24, 25
INCIDENT, HEARTBEAT, IGNORABLE_EVENT, ROWS_QUERY = 26, 27, 28, 29
WRITE_ROWS, UPDATE_ROWS, DELETE_ROWS = 30, 31, 32
GTID, ANONYMOUS_GTID, PREVIOUS_GTIDS, TRANSACTION_CONTEXT, VIEW_CHANGE, XA_PREPARE = 33, 34, 35, 36, 37, 38
PARTIAL_UPDATE_ROWS, TRANSACTION_PAYLOAD, HEARTBEAT_V2, GTID_TAGGED = 39, 40, 41, 42
ANNOTATE_ROWS, BINLOG_CHECKPOINT, MARIADB_GTID, GTID_LIST, START_ENCRYPTION = 160, 161, 162, 163, 164
QUERY_COMPRESSED = 165
WRITE_ROWS_COMPRESSED_V1, UPDATE_ROWS_COMPRESSED_V1, DELETE_ROWS_COMPRESSED_V1 = 166, 167, 168
WRITE_ROWS_COMPRESSED, UPDATE_ROWS_COMPRESSED, DELETE_ROWS_COMPRESSED = 169, 170, 171

UPGRADE: Final = "this server writes what this cdcsync does not know: upgrade cdcsync; the position was not moved"
DAMAGED: Final = (
    "the log was damaged on its way or on the server's disk; the position was not moved: run again, and if it stops at "
    "the same place, read from a replica that has the log whole"
)


def _crc32_of_long(event: bytes) -> int:
    """Return the CRC-32 without letting go of the interpreter."""
    view = memoryview(event)
    value = 0
    for at in range(0, len(event), HELD_MAX):
        value = _crc32(view[at : at + HELD_MAX], value)
    return value


class Framing:
    """Follows the events of one dump: which file, from where to where, and that each came whole."""

    def __init__(self, file: str = "", offset: int = 4) -> None:
        self.file = file
        self.offset = offset
        """Where the event taken last ends; all 64 bits of it, of which an event has 32."""
        self.began = offset
        """Where it begins."""
        self.end = 0
        """Where its body ends within its own bytes."""
        self.born = 0
        """When the file was begun, in seconds."""
        self.checksummed = False
        """Whether events of this file end with a checksum."""
        self.opened = False
        """Whether the file's first event was seen."""

    def take(self, event: bytes) -> int:
        """Step over the event and return its type. Raises Fatal when it is torn."""
        size = len(event)
        if size < HEADER or _int(event, 9, 4) != size:
            raise self.torn("is truncated")
        kind: int = event[4]
        if not self.opened:
            return self._first(event, kind)
        end = size
        if self.checksummed and kind != 15:  # noqa: PLR2004  FORMAT_DESCRIPTION has a checksum of its own
            if (_crc32(event) if size <= 5120 else _crc32_of_long(event)) != 0x2144DF1C:  # noqa: PLR2004  HELD_MAX, RESIDUE
                raise self.torn("does not match its checksum")
            end = size - CHECKSUM
        self.end = end
        flags = event[17]
        following = _int(event, 13, 4)
        if flags & 0x20 or kind in (15, 27, 41):
            return self._aside(event, kind)
        if following:
            self.offset += (following - self.offset) & 0xFFFFFFFF
        else:
            self.offset += size
        self.began = self.offset - size
        if kind == 4:  # noqa: PLR2004  ROTATE
            self._rotate(event)
        return kind

    @property
    def place(self) -> str:
        """For messages: where the event taken last begins."""
        return f"{self.file}:{self.began}"

    def torn(self, how: str) -> Fatal:
        """Return what to raise for an event that did not come as it was written."""
        return Fatal(f"the event after {self.file}:{self.offset} {how}", hint=DAMAGED)

    def _first(self, event: bytes, kind: int) -> int:
        """Take what comes before a file's first event is known: whether there are checksums it says itself."""
        if kind == FORMAT_DESCRIPTION:
            return self._aside(event, kind)
        if kind == ROTATE:
            self.end = len(event) - CHECKSUM if crc32(event) == RESIDUE else len(event)
            self._rotate(event)
            return kind
        if kind in {HEARTBEAT, HEARTBEAT_V2}:
            self.end = len(event)
            return kind
        raise self.torn("comes before its file's format")

    def _aside(self, event: bytes, kind: int) -> int:
        """Take an event that lies outside of the log, or before all others of its file."""
        self.began = self.offset
        if kind == FORMAT_DESCRIPTION:
            self._describe(event)
        elif kind == ROTATE:
            self._rotate(event)
        elif kind == HEARTBEAT:
            self._beat(event)
        return kind

    def _rotate(self, event: bytes) -> None:
        """Go on in another file; the next event is its first."""
        self.offset = self.began = _int(event, HEADER, 8)
        self.file = event[HEADER + 8 : self.end].decode()
        self.opened = False

    def _describe(self, event: bytes) -> None:
        """Take a file's first event (Format_description_event): after version 2, name 50, time 4, header's size 1."""
        size = len(event)
        if size < HEADER + 57 + CHECKSUM + 1 or event[HEADER + 56] != HEADER:
            msg = f"{self.file} begins with a format that is not known"
            raise Fatal(msg, hint=UPGRADE)
        algorithm = event[size - CHECKSUM - 1]
        if algorithm > 1:
            msg = f"{self.file} has checksums of a kind that is not known: {algorithm}"
            raise Fatal(msg, hint=UPGRADE)
        if algorithm == 1 and crc32(event) != RESIDUE and crc32(_closed(event)) != RESIDUE:
            raise self.torn("does not match its checksum")
        self.checksummed = algorithm == 1
        self.end = size - CHECKSUM - 1
        self.born = _int(event, 0, 4)
        self.opened = True
        following = _int(event, 13, 4)
        self.offset = max(self.offset, following)

    def _beat(self, event: bytes) -> None:
        """Move with a heartbeat, which says how far the server is that has nothing to send."""
        following = _int(event, 13, 4)
        if following and event[HEADER : self.end].decode(errors="replace") == self.file:
            self.offset += (following - self.offset) & 0xFFFFFFFF
            self.began = self.offset


class Query(NamedTuple):
    """A statement as the log has it."""

    text: str
    database: str
    """The session's default database."""
    ansi_quotes: bool
    """Whether "x" is a name."""
    no_escapes: bool
    """Whether a backslash is a letter like others."""
    error: int
    """The error that the statement ended with."""


def query(event: bytes, at: int, end: int) -> Query:
    """Return the statement of a Query event's body. Raises IndexError, ValueError."""
    database_size, status_size = event[at + 8], _int(event, at + 11, 2)
    error = _int(event, at + 9, 2)
    status = at + 13
    name = status + status_size
    body = name + database_size + 1
    if body > end:
        msg = "a statement longer than its event"
        raise ValueError(msg)
    mode, codec = _status(event, status, name)
    database = event[name : name + database_size].decode("utf-8", "surrogateescape")
    text = event[body:end].decode(codec, "surrogateescape" if codec == "utf-8" else "replace")
    return Query(text, database, bool(mode & 4), bool(mode & 1 << 20), error)


_SIZES: Final = {0: 4, 1: 8, 3: 4, 4: 6, 7: 2, 8: 2, 9: 8}
"""Bytes of a status variable by its code (Query_event)."""
_CATALOGS: Final = {2: 2, 5: 1, 6: 1}
"""Those that begin with their length, and what that leaves out."""
_CODECS: Final = {
    **dict.fromkeys((1, 84), "big5"),
    **dict.fromkeys((24, 86), "gb2312"),
    **dict.fromkeys((28, 87), "gbk"),
    **dict.fromkeys((248, 249, 250), "gb18030"),
    **dict.fromkeys((13, 88), "cp932"),
    **dict.fromkeys((95, 96), "cp932"),
    **dict.fromkeys((12, 91, 97, 98), "euc_jp"),
    **dict.fromkeys((19, 85), "euc_kr"),
    **dict.fromkeys((5, 8, 15, 31, 47, 48, 49, 94), "cp1252"),
    **dict.fromkeys((14, 23, 50, 51, 52), "cp1251"),
    **dict.fromkeys((2, 9, 21, 27, 77), "iso8859_2"),
    **dict.fromkeys((7, 74), "koi8_r"),
}
"""Python's codecs by the client's collation, where it is not UTF-8."""


def _status(event: bytes, at: int, end: int) -> tuple[int, str]:
    """Return the session's sql_mode and the codec of its statement's text."""
    mode, codec = 0, "utf-8"
    while at < end:
        code = event[at]
        if code in _SIZES:
            size = _SIZES[code]
        elif code in _CATALOGS:
            size = event[at + 1] + _CATALOGS[code]
        else:
            break
        if code == 1:
            mode = _int(event, at + 1, 8)
        elif code == 4:  # noqa: PLR2004  Q_CHARSET_CODE
            codec = _CODECS.get(_int(event, at + 1, 2), "utf-8")
        at += 1 + size
    return mode, codec


class Prepare(NamedTuple):
    """An XA transaction is prepared."""

    xid: str
    """As statements in the log write it."""
    one_phase: bool
    """Whether it was committed by that."""


def prepare(event: bytes, at: int) -> Prepare:
    """Return what an XA_PREPARE event's body says (XA_prepare_event)."""
    kind, branch = _int(event, at + 5, 4), _int(event, at + 9, 4)
    data = event[at + 13 : at + 13 + kind + branch]
    if len(data) != kind + branch:
        msg = "an XA identifier longer than its event"
        raise ValueError(msg)
    format_id = int.from_bytes(event[at + 1 : at + 5], "little", signed=True)
    return Prepare(xid(data[:kind], data[kind:], format_id), bool(event[at]))


def xid(kind: bytes, branch: bytes, format_id: int) -> str:
    """Return an XA identifier as statements in the log write it."""
    return f"X'{kind.hex()}',X'{branch.hex()}',{format_id}"


def incident(event: bytes, at: int, end: int) -> str:
    """Return an INCIDENT event's message (Incident_event)."""
    size = event[at + 2] if at + 2 < end else 0
    return event[at + 3 : at + 3 + size].decode(errors="replace") or f"number {_int(event, at, 2)}"


def refused(kind: int, place: str, gtid: str) -> Fatal:
    """Return what to raise for an event that is not read."""
    where = f"at {place}, in {gtid}" if gtid else f"at {place}"
    if kind == GTID_TAGGED:
        msg = f"a tagged GTID (GTID_TAGGED_LOG_EVENT) {where}: tagged GTIDs are not read yet"
        return Fatal(msg, hint="set gtid_next to AUTOMATIC without a tag at the server; the position was not moved")
    if kind == START_ENCRYPTION:
        msg = f"an encrypted log (START_ENCRYPTION_EVENT) {where}: encrypted logs are not read yet"
        return Fatal(
            msg, hint="switch encrypt_binlog off and rotate the log (FLUSH BINARY LOGS); the position was not moved"
        )
    return Fatal(f"an event of a type that is not known, {kind}, {where}", hint=UPGRADE, status=ExitStatus.DATA)


def _closed(event: bytes) -> bytes:
    """Return the event as it was before its file was marked as in use, of which the checksum is."""
    return event[:17] + bytes([event[17] & ~1]) + event[18:]


def _int(data: bytes, at: int, size: int) -> int:
    """Return an unsigned integer, its first byte the lowest."""
    value = 0
    index = at + size
    while index > at:
        index -= 1
        value = value << 8 | data[index]
    return value
