"""A dump of a server's binlog over a connection: events in as they come, never waiting longer than asked.

MySQL internals manual, "Replication Protocol": COM_REGISTER_SLAVE, COM_BINLOG_DUMP, COM_BINLOG_DUMP_GTID;
MariaDB, "Replication Protocol", the session's @slave_connect_state. The hot path: C types in `stream.pxd`.
"""

from __future__ import annotations

import select
import ssl
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cdcsync.errors import End, Fatal, Transient
from cdcsync.mysql.binlog import DAMAGED
from cdcsync.mysql.errors import MysqlError, said, verdict
from cdcsync.mysql.gtid import GtidList, GtidSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.mysql.connection import Connection

REGISTER, DUMP, DUMP_GTID = 0x15, 0x12, 0x1E
BY_GTID: Final = 4
"""Flag of DUMP_GTID."""
OFFSET_MAX: Final = (1 << 32) - 1
"""Past it DUMP cannot begin."""
PACKET_MAX: Final = 0xFFFFFF
"""A packet of this size is continued by the next one."""
RECEIVE: Final = 256 << 10
"""Bytes asked of the socket at once."""
TLS_RECORDS_MAX: Final = 16
"""Over TLS a read gives one record of at most 16 KB: so many at one wait."""
NAP_S: Final = 0.001
NAP_BELOW: Final = 100
"""Fewer events than this at one wait are worth a nap when more come already."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a log: the server tells its readers apart by the number."""

    server_id: int
    name: str
    """For the server's list of its readers."""
    heartbeat_s: float
    """How often a server that has nothing to send says that it is there."""
    silence_max_s: float
    """After which a server that says nothing is deaf."""


class Stream:
    """One dump. Raises Transient of the source when the connection is lost or deaf, Fatal when the server refuses."""

    def __init__(self, connection: Connection, reader: Reader, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._reader = reader
        self._clock = clock
        self._socket = connection.socket
        self._receive = self._socket.recv
        self._is_tls = isinstance(self._socket, ssl.SSLSocket)
        self._data = b""
        """What was received; read up to `_at`."""
        self._at = 0
        self._chunks: list[bytes] = []
        """Of a packet that is not whole, what is here."""
        self._parts: list[bytes] = []
        """Of an event in several packets, those that are here."""
        self._heard_at = clock()
        self._drained = 0
        """Events read since the last wait."""

    def start_at(self, file: str, offset: int) -> None:
        """Ask for the log from an offset of a file on; nothing may lie between two events there.

        Where the protocol has no room for the offset, from the file's begin: `offset` is then to be read up to.
        """
        self._prepare(None)
        place = offset if offset <= OFFSET_MAX else 4
        payload = place.to_bytes(4, "little") + bytes(2) + self._reader.server_id.to_bytes(4, "little") + file.encode()
        self._send(DUMP, payload)

    def start_after(self, gtids: GtidSet | GtidList) -> None:
        """Ask for all transactions but these."""
        self._prepare(gtids if isinstance(gtids, GtidList) else None)
        server_id = self._reader.server_id.to_bytes(4, "little")
        if isinstance(gtids, GtidList):
            self._send(DUMP, (4).to_bytes(4, "little") + bytes(2) + server_id)
            return
        known = encode_set(gtids)
        payload = BY_GTID.to_bytes(2, "little") + server_id + bytes(4) + (4).to_bytes(8, "little")
        self._send(DUMP_GTID, payload + len(known).to_bytes(4, "little") + known)

    def read(self) -> bytes | None:
        """Return the next event that is here, None when there is none."""
        data = self._data
        at = self._at
        have = len(data) - at
        if have < 4:  # noqa: PLR2004  a packet's head
            return None
        size = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        if have < 4 + size:
            return None
        end = at + 4 + size
        self._at = end
        self._drained += 1
        if size == PACKET_MAX or self._parts:
            return self._continued(data[at + 4 : end])
        if size == 0 or data[at + 4]:
            raise self._ended(data[at + 4 : end])
        return data[at + 5 : end]

    def wait(self, timeout_s: float) -> bool:
        """Wait until more can be read; return whether it can.

        A server that sends without pause sends event by event: a short nap lets them gather, which costs far fewer
        system calls and leaves the interpreter to the other thread.
        """
        drained, self._drained = self._drained, 0
        if 0 < drained < NAP_BELOW and self._wait_readable(0):
            select.select([], [], [], NAP_S)
        elif not self._wait_readable(timeout_s):
            self._check_silence()
            return False
        received = self._fill()
        if received:
            self._heard_at = self._clock()
        return received

    def close(self) -> None:
        """Disconnect without a word: a server that dumps does not listen. Never raises."""
        self._connection.abort()

    def _prepare(self, gtids: GtidList | None) -> None:
        """Say who we are and what we understand."""
        beat_ns = round(self._reader.heartbeat_s * 1e9)
        me = str(uuid.uuid5(uuid.NAMESPACE_OID, f"cdcsync {self._reader.name} {self._reader.server_id}"))
        variables: dict[str, str | int] = {
            "master_binlog_checksum": "CRC32",
            "source_binlog_checksum": "CRC32",
            "master_heartbeat_period": beat_ns,
            "source_heartbeat_period": beat_ns,
            "slave_uuid": me,
            "replica_uuid": me,
            "mariadb_slave_capability": 4,
        }
        if gtids is not None:
            variables |= {
                "slave_connect_state": str(gtids),
                "slave_gtid_strict_mode": 1,
                "slave_gtid_ignore_duplicates": 0,
            }
        assignments = ", ".join(f"@{name} = %s" for name in variables)
        self._connection.ask("preparing to read the binlog", f"SET {assignments}", list(variables.values()))
        self._register()

    def _register(self) -> None:
        """Get into the server's list of readers, where another with our number would be seen."""
        name = self._reader.name.encode()[:60]
        fields = bytes([len(name)]) + name + bytes(2) + bytes(2) + bytes(4) + bytes(4)
        self._connection.command(REGISTER, self._reader.server_id.to_bytes(4, "little") + fields)
        self._socket.setblocking(False)  # noqa: FBT003  the standard library takes it by position
        until = self._clock() + self._reader.silence_max_s
        answer = None
        while answer is None:
            answer = self._packet()
            if answer is None and not (self._wait_readable(until - self._clock()) and (self._fill() or self._is_tls)):
                raise Transient(End.SOURCE, "the server does not answer to COM_REGISTER_SLAVE")
        self._socket.setblocking(True)  # noqa: FBT003
        if answer[:1] != b"\0":
            raise self._ended(answer)

    def _packet(self) -> bytes | None:
        head = self._data[self._at : self._at + 4]
        end = self._at + 4 + int.from_bytes(head[:3], "little")
        if len(head) < 4 or len(self._data) < end:  # noqa: PLR2004  a packet's head
            return None
        start, self._at = self._at + 4, end
        return self._data[start:end]

    def _send(self, code: int, payload: bytes) -> None:
        try:
            self._connection.command(code, payload)
        except MysqlError as error:
            raise verdict(error, End.SOURCE, "asking for the binlog") from error
        self._socket.setblocking(False)  # noqa: FBT003  the standard library takes it by position
        self._heard_at = self._clock()

    def _fill(self) -> bool:
        """Take what the socket has; return whether that was anything. A large packet is joined once, when it is whole."""
        chunks = self._chunks or [self._data[self._at :]]
        before = len(chunks)
        have = sum(map(len, chunks))
        for _ in range(TLS_RECORDS_MAX if self._is_tls else 1):
            try:
                chunk = self._some()
            except Transient:
                if len(chunks) == before:
                    raise
                break  # what came before the end is read first: it may say why
            if not chunk:
                break
            chunks.append(chunk)
            have += len(chunk)
        received = len(chunks) > before
        self._at = 0
        if have < _wanted(chunks[0]):
            self._data, self._chunks = b"", chunks
        else:
            self._data, self._chunks = b"".join(chunks), []
        return received

    def _some(self) -> bytes:
        try:
            chunk = self._receive(RECEIVE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except OSError as error:
            raise Transient(End.SOURCE, f"reading the binlog: {error}") from error
        if not chunk:
            raise Transient(End.SOURCE, "reading the binlog: the server closed the connection")
        return chunk

    def _continued(self, packet: bytes) -> bytes | None:
        """Join the packets of one event; None while the last is not here."""
        if not self._parts and packet[:1] != b"\0":
            raise self._ended(packet)
        self._parts.append(packet)
        if len(packet) == PACKET_MAX:
            return self.read()
        parts, self._parts = self._parts, []
        return b"".join(parts)[1:]

    def _wait_readable(self, timeout_s: float) -> bool:
        if self._is_tls and self._socket.pending():  # type: ignore[attr-defined]
            return True
        readable, _, _ = select.select([self._socket], [], [], max(0.0, timeout_s))
        return bool(readable)

    def _check_silence(self) -> None:
        silent_s = self._clock() - self._heard_at
        if silent_s > self._reader.silence_max_s:
            msg = f"the server was silent for {silent_s:.0f} s, though heartbeats were asked for"
            raise Transient(End.SOURCE, msg)

    def _ended(self, packet: bytes) -> Transient | Fatal:
        """Return what a packet means that holds no event."""
        kind = packet[0] if packet else -1
        if kind == 0xFE:  # noqa: PLR2004  EOF
            return Transient(End.SOURCE, "the server ended the dump")
        if kind == 0xFF:  # noqa: PLR2004  an error
            number = int.from_bytes(packet[1:3], "little")
            words = packet[9:] if packet[3:4] == b"#" else packet[3:]
            return verdict(said(number, words.decode(errors="replace")), End.SOURCE, "reading the binlog")
        return Fatal(f"a packet of the dump that is none: it begins with {kind}", hint=DAMAGED)


def _wanted(rest: bytes) -> int:
    """Return how many bytes an unfinished packet has, as far as that is known."""
    return int.from_bytes(rest[:3], "little") + 4 if len(rest) > 3 else 0  # noqa: PLR2004  a packet's head


def encode_set(gtids: GtidSet) -> bytes:
    """Return a GTID set as COM_BINLOG_DUMP_GTID takes it (Gtid_set::encode): ends are past the last."""
    known = [(each, intervals) for each, intervals in gtids.intervals().items() if intervals]
    out = len(known).to_bytes(8, "little")
    for each, intervals in known:
        out += uuid.UUID(each).bytes + len(intervals).to_bytes(8, "little")
        for first, last in intervals:
            out += first.to_bytes(8, "little") + (last + 1).to_bytes(8, "little")
    return out
