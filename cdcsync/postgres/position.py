"""Where to go on in PostgreSQL's log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Self

import orjson

from cdcsync.change import value
from cdcsync.errors import Fatal
from cdcsync.pending import Pending


@dataclass(frozen=True, slots=True)
class Within:
    """How far into a transaction, too large for one batch, its rows are delivered."""

    xid: int
    final_lsn: int
    """LSN of its commit record, which Begin names."""
    delivered: int
    """Raw changes of the log, counted before any filter."""
    checksum: int
    """CRC-32 of the last of them, as the log has it."""


@value
class PostgresPosition:
    """The next thing to read; all commits whose record begins before `lsn` lie before it."""

    epoch: int
    system: str
    """System identifier of the server."""
    timeline: int
    lsn: int
    slot: str
    copying: int | None = None
    """Before there is a place in the log: a counter that rises with each batch of the rows copied first."""
    within: Within | None = None
    reads: int = 0
    """How many batches of rows were read beside the log; only rises."""
    pending: tuple[Pending, ...] = ()
    """What is still to be read beside the log."""

    def at(self, lsn: int) -> PostgresPosition:
        """Return the position between transactions at that LSN; much cheaper than `dataclasses.replace`."""
        return PostgresPosition(
            self.epoch, self.system, self.timeline, lsn, self.slot, None, None, self.reads, self.pending
        )

    @property
    def is_copied(self) -> bool:
        """Whether all rows of the first copy are before it."""
        return self.copying is None and not any(each.first for each in self.pending)

    def encode(self) -> str:
        """Return compact JSON, with the LSN as PostgreSQL writes it."""
        head, tail = _around(self.epoch, self.system, self.timeline, self.slot)
        text = f"{head}{format_lsn(self.lsn)}{tail}"
        if self.copying is not None or self.within or self.reads or self.pending:
            return f"{text},{self._rest()}"
        return f"{text}}}"

    def _rest(self) -> str:
        """Return how the text of a position ends that has what few have."""
        fields: dict[str, Any] = {}
        if self.copying is not None:
            fields["copying"] = self.copying
        if self.within is not None:
            fields["within"] = asdict(self.within)
        if self.reads:
            fields["reads"] = self.reads
        if self.pending:
            fields["pending"] = [each.encode() for each in self.pending]
        return orjson.dumps(fields).decode()[1:]

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the position of that text. Raises Fatal when it is none."""
        try:
            fields = orjson.loads(text)
            fields["lsn"] = parse_lsn(fields["lsn"])
            within = fields.pop("within", None)
            pending = tuple(Pending.decode(each) for each in fields.pop("pending", ()))
            return cls(**fields, within=Within(**within) if within else None, pending=pending)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f"not a position in a PostgreSQL log: {text!r}"
            raise Fatal(
                msg, hint="see it with `cdcsync positions show`, set one with `cdcsync positions set`"
            ) from error

    def covers(self, other: PostgresPosition) -> bool:
        """Return whether all before `other` lies before this position too. A copy lies before the log it leads to."""
        return self._order() >= other._order()

    def _order(self) -> tuple[int, int, int, int, int]:
        if self.copying is not None:
            return self.epoch, 0, 0, self.copying, 0
        if self.within is not None:
            return self.epoch, 1, self.within.final_lsn, self.within.delivered, self.reads
        return self.epoch, 1, self.lsn, 0, self.reads


@lru_cache(16)
def _around(epoch: int, system: str, timeline: int, slot: str) -> tuple[str, str]:
    """Return what stands before and after the LSN in an encoded position: the same for all of one stream."""
    before = orjson.dumps({"epoch": epoch, "system": system, "timeline": timeline}).decode()[:-1]
    return f'{before},"lsn":"', f'","slot":{orjson.dumps(slot).decode()}'


def parse_lsn(text: str) -> int:
    """Return the number of "16/B374D848"."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(lsn: int) -> str:
    """Return the LSN as PostgreSQL writes it."""
    return "%X/%X" % (lsn >> 32, lsn & 0xFFFFFFFF)  # noqa: UP031  half of an f-string's cost


def transaction_id(xid: int, final_lsn: int) -> str:
    """Return what names a transaction for good: numbers come again."""
    return "%d:%X/%X" % (xid, final_lsn >> 32, final_lsn & 0xFFFFFFFF)  # noqa: UP031  half of an f-string's cost
