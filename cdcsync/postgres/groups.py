"""Puts the messages of a replication stream together to transactions.

The hot path: plain Python here, C types in `groups.pxd`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cdcsync.change import PLACE_BITS, Change, Message, SchemaChange, pack_version
from cdcsync.postgres.pgoutput import POSTGRES_EPOCH_US, Begin, Commit
from cdcsync.postgres.position import Within, format_lsn, transaction_id
from cdcsync.postgres.replication import BODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.beside import Beside
    from cdcsync.change import Item, Position
    from cdcsync.postgres.pgoutput import Decoder
    from cdcsync.postgres.position import PostgresPosition
    from cdcsync.postgres.replication import Stream
    from cdcsync.transaction import Assembler

PREFIX: Final = "cdcsync.ddl"
"""Of the messages that `told.INSTALL` makes the server write."""
_RAW: Final = b"IUDTM"
"""Messages that count as raw changes of a transaction."""


class Groups:
    """Takes one message after another; whole transactions and parts of large ones come out of the assembler.

    `here` is the position between transactions. `is_due` says whether rows read beside the log have waited long
    enough for the stream to pause between two.
    """

    def __init__(
        self, assembler: Assembler, decoder: Decoder, here: PostgresPosition, is_due: Callable[[], bool]
    ) -> None:
        self._assembler = assembler
        self._decode = decoder.decode
        self._is_due = is_due
        self.here = here
        self.beside: Beside | None = None
        """What is read beside the log, and is told of each change."""
        self.wal_end = 0
        """The server's end of the log, when nothing before it is left to come; else 0."""
        self.told: Callable[[bytes], list[Item]] | None = None
        """Turns what an event trigger tells of tables into changes; None where there is none."""
        self.messages = True
        """Whether the application's own messages are wanted."""
        self._schema_changes: list[Item] = []
        """Wait for the next change, before which they stand."""
        self._xid = self._final_lsn = 0
        """Of the open transaction."""
        self._first_version = pack_version(here.epoch, 0)
        self._lsn_end = 1 << PLACE_BITS
        self._place_of = self._within

    def drain(self, stream: Stream) -> None:
        """Take what was received, until a batch is full. Raises Fatal for what is not known."""
        assembler, decode, read, beside = self._assembler, self._decode, stream.read, self.beside
        while not assembler.full:
            data = read()
            if data is None:
                return
            if data[0] != 119:  # noqa: PLR2004  XLOG_DATA
                wal_end = stream.answer(data)
                self.wal_end = 0 if assembler.within else wal_end
                continue
            item = decode(data, 25)
            kind = type(item)
            if kind is Change and beside is None and not self._schema_changes:
                assembler.add(item, data)
            elif kind is Begin:
                self._begin(item)
            elif kind is not Commit:
                self._other(item, data)
            else:
                stream.check_whole()
                self.here = here = self.here.at(item[0])
                assembler.commit(here)
                if beside is not None and assembler.ready and self._is_due():
                    return

    def _begin(self, begin: Begin) -> None:
        final_lsn, commit_time_us, xid = begin
        if final_lsn >= self._lsn_end:
            pack_version(self.here.epoch, final_lsn)
        self._xid = xid
        self._final_lsn = final_lsn
        if self.beside is not None:
            self.beside.began(xid)
        version = self._first_version + final_lsn
        self._assembler.begin(transaction_id(xid, final_lsn), version, commit_time_us, self._place_of)

    def _within(self, delivered: int, checksum: int) -> Position:
        """Return the position inside of the open transaction: it is read again from its start."""
        return replace(self.here, within=Within(self._xid, self._final_lsn, delivered, checksum))

    def _other(self, item: object, data: bytes) -> None:
        """Take what is no plain row, or a row that has to be told of."""
        if isinstance(item, SchemaChange):
            self._schema_changes.append(item)
        elif isinstance(item, Message) and not item.transactional:
            self._take_alone(item, data)
        elif data[BODY] in _RAW:
            changes: list[Item] = [item] if isinstance(item, Change) else list(item or ())  # type: ignore[call-overload]
            if isinstance(item, Message):
                changes = self._message(item)
            if self.beside is not None:
                self._note(self.beside, changes)
            self._assembler.add_all([*self._schema_changes, *changes], data)
            self._schema_changes = []

    def _message(self, message: Message) -> list[Item]:
        if self.told is not None and message.prefix == PREFIX:
            return self.told(message.content)
        return [message] if self.messages else []

    def _note(self, beside: Beside, items: list[Item]) -> None:
        for item in items:
            if isinstance(item, Change):
                beside.note(self._xid, item)

    def _take_alone(self, message: Message, data: bytes) -> None:
        """Take a message that belongs to no transaction; the log goes on after its record's first byte."""
        lsn = int.from_bytes(data[BODY + 2 : BODY + 10], "big")
        if lsn < self.here.lsn or not self.messages:
            return
        sent_us = int.from_bytes(data[17:25], "big") + POSTGRES_EPOCH_US
        self.here = self.here.at(lsn + 1)
        version = pack_version(self.here.epoch, lsn)
        self._assembler.alone(f"message:{format_lsn(lsn)}", version, sent_us, message, self.here)
