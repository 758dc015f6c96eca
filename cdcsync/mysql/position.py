"""Where to go on in a binlog."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from typing import Any, Final, Self

import orjson

from cdcsync.change import pack_version, value
from cdcsync.errors import Fatal
from cdcsync.mysql.gtid import GtidList, Gtids, GtidSet
from cdcsync.pending import Pending

FILE_BITS: Final = 20
OFFSET_BITS: Final = 33
FIRST_OFFSET: Final = 4
"""Of the first event in a file, after the magic number."""


@dataclass(frozen=True, slots=True)
class Within:
    """How far into a transaction, too large for one batch, its rows are delivered."""

    id: str
    """Its GTID; without one its server, file and offset."""
    delivered: int
    """Raw row changes of the log, counted before any filter."""
    checksum: int
    """CRC-32 of the last of them, as the log has it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An XA transaction that is prepared and not yet decided; its rows lie before the position."""

    xid: str
    """As XA PREPARE writes it: X'..',X'..',1."""
    file: str
    """Empty when its place is not known on this server: it is searched for once it is committed."""
    offset: int
    """Where its first event begins."""


@value
class MysqlPosition:
    """The next thing to read. Inside a transaction: where that transaction begins, and how much is delivered."""

    epoch: int
    server: str
    """Whose `file` and `offset` are; see `identity`."""
    file: str
    """Empty when only the GTIDs are known."""
    offset: int
    gtids: Gtids | None = None
    """All that lie before; None where the server gives none."""
    prepared: tuple[Prepared, ...] = ()
    within: Within | None = None
    born: int = 0
    """When the file was begun, in seconds, as its first event says; 0: not known. A file of the same name after
    RESET MASTER was begun at another time."""
    reads: int = 0
    """How many batches of rows were read beside the log; only rises."""
    pending: tuple[Pending, ...] = ()
    """What is still to be read beside the log."""
    copying: int | None = None
    """Before there is a place in the log: a counter that rises with each batch of the rows copied first."""

    def moved(self, offset: int, gtids: Gtids | None) -> MysqlPosition:
        """Return the position between transactions further in the file; cheaper than `dataclasses.replace`."""
        return MysqlPosition(
            self.epoch,
            self.server,
            self.file,
            offset,
            gtids,
            self.prepared,
            None,
            self.born,
            self.reads,
            self.pending,
        )

    def elsewhere(self, server: str) -> MysqlPosition:
        """Return the same position by its GTIDs alone, for another server of the same history; the epoch rises."""
        prepared = tuple(replace(each, file="", offset=0) for each in self.prepared)
        return replace(self, epoch=self.epoch + 1, server=server, file="", offset=0, born=0, prepared=prepared)

    @property
    def is_copied(self) -> bool:
        """Whether all rows of the first copy are before it."""
        return self.copying is None and not any(each.first for each in self.pending)

    def encode(self) -> str:
        """Return compact JSON; GTIDs as the server writes them."""
        head, gtids = _head(self.epoch, self.server, self.file), self.gtids
        if type(gtids) is GtidSet:
            text = f'{head}{self.offset},"gtid_set":"{gtids}"'
        else:
            text = f"{head}{self.offset}" if gtids is None else f'{head}{self.offset},"gtid_list":"{gtids}"'
        if self.prepared or self.within or self.reads or self.pending or self.copying is not None:
            return f"{text},{self._rest()}"
        return f'{text},"born":{self.born}}}' if self.born else f"{text}}}"

    def _rest(self) -> str:
        """Return how the text of a position ends that has what few have."""
        fields: dict[str, Any] = {}
        if self.prepared:
            fields["prepared"] = [asdict(each) for each in self.prepared]
        if self.within is not None:
            fields["within"] = asdict(self.within)
        if self.born:
            fields["born"] = self.born
        if self.reads:
            fields["reads"] = self.reads
        if self.pending:
            fields["pending"] = [each.encode() for each in self.pending]
        if self.copying is not None:
            fields["copying"] = self.copying
        return orjson.dumps(fields).decode()[1:]

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the position of that text. Raises Fatal when it is none."""
        try:
            fields = orjson.loads(text)
            gtids: Gtids | None = None
            if "gtid_set" in fields:
                gtids = GtidSet.parse(fields.pop("gtid_set"))
            elif "gtid_list" in fields:
                gtids = GtidList.parse(fields.pop("gtid_list"))
            within = fields.pop("within", None)
            prepared = tuple(Prepared(**each) for each in fields.pop("prepared", ()))
            pending = tuple(Pending.decode(each) for each in fields.pop("pending", ()))
            inside = Within(**within) if within else None
            made = cls(**fields, gtids=gtids, within=inside, prepared=prepared, pending=pending)
            made._order()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f"not a position in a binlog: {text!r}"
            raise Fatal(
                msg, hint="see it with `cdcsync positions show`, set one with `cdcsync positions set`"
            ) from error
        return made

    def covers(self, other: MysqlPosition) -> bool:
        """Return whether all before `other` lies before this position too. Within an epoch there is one server.

        A copy lies before the log that it leads to.
        """
        return self._order() >= other._order()

    def _order(self) -> tuple[int, int, int, int, int]:
        if self.copying is not None:
            return self.epoch, 0, 0, self.copying, 0
        delivered = 0 if self.within is None else self.within.delivered
        return self.epoch, file_number(self.file), self.offset, delivered, self.reads


@lru_cache(16)
def _head(epoch: int, server: str, file: str) -> str:
    """Return an encoded position up to its offset: the same for all transactions of a file."""
    return f'{orjson.dumps({"epoch": epoch, "server": server, "file": file}).decode()[:-1]},"offset":'


@cache
def file_number(file: str) -> int:
    """Return 123 of binlog.000123, 0 of no file. Raises ValueError."""
    if not file:
        return 0
    matched = re.fullmatch(r".+\.(\d+)", file)
    if matched is None:
        msg = f"not the name of a binlog file: {file!r}"
        raise ValueError(msg)
    return int(matched[1])


def version_of(epoch: int, file: str, offset: int) -> int:
    """Return the version of a transaction that begins there: 20 bits of the file's number, 33 of the offset.

    Within a file it is that of offset 0 plus the offset. Raises Fatal when one does not fit.
    """
    number = file_number(file)
    if number >= 1 << FILE_BITS or offset >= 1 << OFFSET_BITS:
        msg = f"version overflow: {file}:{offset}"
        raise Fatal(msg, hint="the target must be filled anew under a new pipeline name")
    return pack_version(epoch, number << OFFSET_BITS | offset)
