"""Decodes pgoutput, protocol version 1 (PostgreSQL manual, "Logical Replication Message Formats").

The hot path: plain Python here, C types in `pgoutput.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cdcsync.change import UNCHANGED, Change, Message, Operation, SchemaChange
from cdcsync.errors import Fatal
from cdcsync.postgres.types import decoder
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Table
    from cdcsync.types import Type

POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""PostgreSQL counts microseconds from 2000-01-01 UTC."""
HINT: Final = "this server speaks what this cdcsync does not know: upgrade cdcsync; the position was not moved"

_INSERT: Final = Operation.INSERT
_UPDATE: Final = Operation.UPDATE
_DELETE: Final = Operation.DELETE
_TEXTS: Final = frozenset(
    {Kind.TEXT, Kind.DECIMAL, Kind.JSON, Kind.UUID, Kind.ENUM, Kind.OPAQUE, Kind.INTERVAL, Kind.TIME, Kind.BIT}
)


class Begin(NamedTuple):
    """A transaction begins; its changes follow."""

    final_lsn: int
    """Of its commit record."""
    commit_time_us: int
    xid: int


class Commit(NamedTuple):
    """The transaction ends."""

    end_lsn: int
    """The next byte after its commit record."""


class RelationColumn(NamedTuple):
    """A column as a Relation message has it."""

    is_key: bool
    """Part of the replica identity."""
    name: str
    type: int
    modifier: int


class Relation(NamedTuple):
    """One version of a table's layout."""

    oid: int
    schema: str
    name: str
    identity: str
    """d default, n nothing, f full, i index (pg_class.relreplident)."""
    columns: tuple[RelationColumn, ...]


class Plan:
    """How the rows of one table version are decoded."""

    __slots__ = ("blank", "codes", "decoders", "key", "logged", "size", "table", "wanted")

    def __init__(self, relation: Relation, table: Table, wanted: bool) -> None:  # noqa: FBT001  positional in C
        self.table = table
        self.wanted = wanted
        self.size = len(table.columns)
        self.decoders = [decoder(column.type) for column in table.columns]
        self.codes = [code_of(column.type) for column in table.columns]
        self.logged = [at for at, column in enumerate(relation.columns) if column.is_key]
        """Where an old key (K) has values; its other columns are sent as null."""
        self.key = self.logged or list(table.key_at)
        """What an update leaves as it was when it sends no old row."""
        self.blank = [UNCHANGED] * self.size


def code_of(column: Type) -> int:
    """Return 1 for text, 2 for integers, 3 for booleans, 4 for timestamptz, 0 for what needs its decoder called."""
    if column.kind in _TEXTS:
        return 1
    return {Kind.INTEGER: 2, Kind.BOOLEAN: 3, Kind.TIMESTAMPTZ: 4}.get(column.kind, 0)


class Decoder:
    """Decodes the messages of one session of a stream, in order.

    `describe` gives the table of a relation that is new or changed, and whether anybody wants its changes.
    """

    def __init__(self, describe: Callable[[Relation], tuple[Table, bool]]) -> None:
        self._describe = describe
        self._plans: dict[int, Plan] = {}
        self._relations: dict[int, Relation] = {}
        self._end = 0
        """Where the tuple decoded last ended."""

    def decode(self, data: bytes, at: int) -> Any:
        """Return what the message at `at` says: a Change, Message, SchemaChange, Begin, Commit, or a list of Changes.

        `data` is the whole XLogData. None: nothing to deliver. Raises Fatal, with the LSN, for what it does not know.
        """
        tag = data[at]
        try:
            if tag == 73:  # noqa: PLR2004  I
                return self._insert(data, at)
            if tag == 66:  # noqa: PLR2004  B
                commit_time_us = _int(data, at + 9, 8) + POSTGRES_EPOCH_US
                return tuple.__new__(Begin, (_int(data, at + 1, 8), commit_time_us, _int(data, at + 17, 4)))
            if tag == 67:  # noqa: PLR2004  C
                return tuple.__new__(Commit, (_int(data, at + 10, 8),))
            if tag == 85:  # noqa: PLR2004  U
                return self._update(data, at)
            if tag == 68:  # noqa: PLR2004  D
                return self._delete(data, at)
            return self._other(data, at)
        except (UnicodeDecodeError, ValueError, IndexError, KeyError) as error:
            lsn = _int(data, 1, 8)
            place = f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}{self._where(data, at)}"
            msg = f"pgoutput message {chr(tag)!r} at {place} cannot be decoded: {type(error).__name__}"
            raise Fatal(msg, hint=HINT) from None

    def _insert(self, data: bytes, at: int) -> Any:
        plan = self._plan(data, at)
        if not plan.wanted:
            return None
        return tuple.__new__(Change, (plan.table, _INSERT, None, self._row(plan, data, at + 6, None)))

    def _update(self, data: bytes, at: int) -> Any:
        plan = self._plan(data, at)
        if not plan.wanted:
            return None
        kind = data[at + 5]
        before = None
        end = at + 5
        if kind == 79:  # noqa: PLR2004  O: the whole old row
            before = self._row(plan, data, at + 6, None)
            end = self._end
        elif kind == 75:  # noqa: PLR2004  K: the old key
            before = self._key(plan, data, at + 6)
            end = self._end
        after = self._row(plan, data, end + 1, before)
        if before is None:
            row = plan.blank.copy()
            for index in plan.key:
                row[index] = after[index]
            before = tuple(row)
        return tuple.__new__(Change, (plan.table, _UPDATE, before, after))

    def _delete(self, data: bytes, at: int) -> Any:
        plan = self._plan(data, at)
        if not plan.wanted:
            return None
        before = self._row(plan, data, at + 6, None) if data[at + 5] == 79 else self._key(plan, data, at + 6)  # noqa: PLR2004  O
        return tuple.__new__(Change, (plan.table, _DELETE, before, None))

    def _plan(self, data: bytes, at: int) -> Plan:
        oid = data[at + 1] << 24 | data[at + 2] << 16 | data[at + 3] << 8 | data[at + 4]
        return self._plans[oid]

    def _key(self, plan: Plan, data: bytes, at: int) -> tuple[Any, ...]:
        """Return the old key: what is not part of the identity was not logged."""
        values = self._row(plan, data, at, None)
        row = plan.blank.copy()
        for index in plan.logged:
            row[index] = values[index]
        return tuple(row)

    def _row(  # noqa: C901, PLR0912  the hot path: a call per value would halve its speed
        self, plan: Plan, data: bytes, at: int, old: Any
    ) -> tuple[Any, ...]:
        """Return the values of the TupleData at `at`, an unchanged one from the old row; sets `_end`."""
        size = data[at] << 8 | data[at + 1]
        if size != plan.size:
            raise ValueError(size)
        at += 2
        codes = plan.codes
        decoders = plan.decoders
        values: list[Any] = []
        for index in range(size):
            kind = data[at]
            if kind == 116:  # noqa: PLR2004  t: text
                length = data[at + 4]
                if data[at + 3] or data[at + 2] or data[at + 1]:
                    length += data[at + 1] << 24 | data[at + 2] << 16 | data[at + 3] << 8
                start = at + 5
                at = start + length
                code = codes[index]
                if code == 1:
                    values.append(data[start:at].decode())
                elif code == 2:  # noqa: PLR2004
                    values.append(int(data[start:at]))
                elif code == 4:  # noqa: PLR2004
                    text = data[start:at].decode()
                    if text[10:11] == " " and text[-3:] == "+00":
                        values.append(text[:10] + "T" + text[11:-3] + "Z")
                    else:
                        values.append(decoders[index](data[start:at]))
                elif code == 3:  # noqa: PLR2004
                    values.append(data[start] == 116)  # noqa: PLR2004
                else:
                    values.append(decoders[index](data[start:at]))
            elif kind == 110:  # noqa: PLR2004  n: null
                values.append(None)
                at += 1
            elif kind == 117:  # noqa: PLR2004  u: out of line and unchanged
                values.append(UNCHANGED if old is None else old[index])
                at += 1
            else:
                raise ValueError(kind)
        if at > len(data):
            raise IndexError(at)
        self._end = at
        return tuple(values)

    def _other(self, data: bytes, at: int) -> Any:
        tag = chr(data[at])
        if tag == "R":
            return self._relation(data, at)
        if tag == "T":
            return self._truncate(data, at)
        if tag == "M":
            prefix, start = _string(data, at + 10)
            length = _int(data, start, 4)
            return Message(prefix, data[start + 4 : start + 4 + length], bool(data[at + 1] & 1))
        if tag in "OY":
            return None
        raise ValueError(tag)

    def _truncate(self, data: bytes, at: int) -> list[Change]:
        count = _int(data, at + 1, 4)
        plans = [self._plans[_int(data, at + 6 + 4 * index, 4)] for index in range(count)]
        return [Change(plan.table, Operation.TRUNCATE, None, None) for plan in plans if plan.wanted]

    def _relation(self, data: bytes, at: int) -> SchemaChange | None:
        relation = parse_relation(data, at)
        known = self._plans.get(relation.oid)
        table, wanted = self._describe(relation)
        if known is not None and known.table == table and self._relations[relation.oid] == relation:
            return None
        self._plans[relation.oid] = Plan(relation, table, wanted)
        self._relations[relation.oid] = relation
        if known is None or known.table == table or not (wanted or known.wanted):
            return None
        return SchemaChange(known.table, table, None)

    def known(self, schema: str, name: str) -> Table | None:
        """Return the newest version of a table that the stream has described."""
        plans = [plan for plan in self._plans.values() if (plan.table.schema, plan.table.name) == (schema, name)]
        return plans[-1].table if plans else None

    def _where(self, data: bytes, at: int) -> str:
        if data[at] not in b"IUD":
            return ""
        relation = self._relations.get(_int(data, at + 1, 4))
        return f" of table {relation.schema}.{relation.name}" if relation else " of a table not described before"


def parse_relation(data: bytes, at: int) -> Relation:
    """Return the Relation message at `at`."""
    schema, after_schema = _string(data, at + 5)
    name, after_name = _string(data, after_schema)
    identity = chr(data[after_name])
    count = _int(data, after_name + 1, 2)
    place = after_name + 3
    columns = []
    for _ in range(count):
        column, end = _string(data, place + 1)
        modifier = int.from_bytes(data[end + 4 : end + 8], "big", signed=True)
        columns.append(RelationColumn(bool(data[place] & 1), column, _int(data, end, 4), modifier))
        place = end + 8
    return Relation(_int(data, at + 1, 4), schema or "pg_catalog", name, identity, tuple(columns))


def _int(data: bytes, at: int, size: int) -> int:
    """Return an unsigned integer, its first byte the highest."""
    value = 0
    end = at + size
    while at < end:
        value = value << 8 | data[at]
        at += 1
    return value


def _string(data: bytes, at: int) -> tuple[str, int]:
    """Return a string that ends with NUL, and where the next thing begins."""
    end = data.index(b"\0", at)
    return data[at:end].decode(), end + 1
