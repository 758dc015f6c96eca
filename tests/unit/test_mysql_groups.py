"""Events put together to transactions, from bytes: what no server at hand writes, and what stops."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from cdcsync.errors import Fatal
from cdcsync.mysql import binlog
from cdcsync.mysql.binlog import Framing
from cdcsync.mysql.config import ZeroDates
from cdcsync.mysql.groups import Groups
from cdcsync.mysql.gtid import GtidList, GtidSet
from cdcsync.mysql.position import MysqlPosition, Prepared
from cdcsync.mysql.table_map import MYSQL
from cdcsync.mysql.tables import Tables
from cdcsync.ports import Wanted
from cdcsync.transaction import Assembler

if TYPE_CHECKING:
    from cdcsync.change import Batch
    from cdcsync.mysql.schema import Schema
    from cdcsync.mysql.stream import Stream

UUID = bytes(range(16))
SERVER = "00010203-0405-0607-0809-0a0b0c0d0e0f"
FILE = "binlog.000007"


class Shop:
    """Wants the tables of one database but one."""

    def wants(self, schema: str, name: str) -> Wanted | None:
        return Wanted.KEYED if schema == "shop" and name != "other" else None


class NoCatalogue:
    """Knows nothing of any table."""

    def look(self, _schema: str, _name: str) -> None:
        return None


@dataclass
class Events:
    """What a dump gives, one after the other, each at its place."""

    offset: int = 4

    def __post_init__(self) -> None:
        self.made: list[bytes] = []
        self.add(binlog.ROTATE, struct.pack("<Q", 4) + FILE.encode(), flags=0x20)
        description = struct.pack("<H50sIB", 4, b"8.0.35", 0, 19) + bytes(40) + b"\1"
        self.add(binlog.FORMAT_DESCRIPTION, description)

    def add(self, kind: int, body: bytes = b"", *, flags: int = 0) -> Events:
        made = self.inner(kind, body, flags=flags, extra=4)
        self.made.append(made + struct.pack("<I", zlib.crc32(made)))
        return self

    def inner(self, kind: int, body: bytes, *, flags: int = 0, extra: int = 0) -> bytes:
        """An event as it is inside of a compressed transaction: without a checksum."""
        size = binlog.HEADER + len(body) + extra
        following = 0
        if not flags & 0x20 and extra:
            self.offset += size
            following = self.offset
        return struct.pack("<IBIIIH", 1_700_000_000, kind, 7, size, following & 0xFFFFFFFF, flags) + body

    def gtid(self, number: int = 1, *, at_us: int = 1_700_000_000_123_456) -> Events:
        times = b"\2" + bytes(16) + at_us.to_bytes(7, "little") + b"\xfc\x10\x20" + struct.pack("<I", 80035)
        return self.add(binlog.GTID, b"\0" + UUID + struct.pack("<q", number) + times)

    def statement(self, text: str) -> Events:
        return self.add(binlog.QUERY, said(text))

    def read(self) -> bytes | None:
        return self.made.pop(0) if self.made else None


def said(text: str) -> bytes:
    return struct.pack("<IIBHH", 1, 0, 4, 0, 0) + b"shop\0" + text.encode()


def table_map(name: str = "t") -> bytes:
    names = b"\4" + bytes([3]) + b"\2id"
    body = struct.pack("<Q", 9)[:6] + b"\1\0" + b"\4shop\0" + bytes([len(name)]) + name.encode() + b"\0"
    return body + b"\1\3\0\0" + b"\1\1\0" + names + b"\x08\1\0"


def written(*ids: int) -> bytes:
    head = struct.pack("<Q", 9)[:6] + b"\1\0" + b"\2\0" + b"\1\xff"
    return head + b"".join(b"\0" + struct.pack("<i", each) for each in ids)


def groups(gtids: GtidSet | GtidList | None = None, **options: Any) -> tuple[Groups, Assembler]:
    assembler = Assembler(**options)
    tables = Tables(Shop(), cast("Schema", NoCatalogue()), MYSQL, (ZeroDates.STOP, False), list)
    here = MysqlPosition(1, SERVER, FILE, 4, GtidSet() if gtids is None else gtids)
    return Groups(assembler, tables, Framing(FILE, 4), here), assembler


def taken(events: Events, **options: Any) -> tuple[list[Batch], Groups]:
    made, assembler = groups(**options)
    batches = []
    while not made.drain(cast("Stream", events)):
        batch = assembler.take()
        assert batch is not None
        batches.append(batch)
    batches.extend(iter(assembler.take, None))
    return batches, made


def rows(batches: list[Batch]) -> list[Any]:
    return [item.after for batch in batches for each in batch.transactions for item in each.items]  # type: ignore[union-attr]


def test_a_transaction_has_its_gtid_its_commit_time_and_the_place_of_its_beginning() -> None:
    events = Events()
    began = events.offset
    events.gtid(5).statement("BEGIN").add(binlog.TABLE_MAP, table_map()).add(binlog.WRITE_ROWS, written(1, -2))
    events.add(binlog.XID, bytes(8))
    end = events.offset

    batches, made = taken(events)

    (transaction,) = batches[0].transactions
    assert (transaction.id, transaction.commit_time_us) == (f"{SERVER}:5", 1_700_000_000_123_456)
    assert transaction.version == 1 << 53 | 7 << 33 | began
    assert rows(batches) == [(1,), (-2,)]
    assert (made.here.file, made.here.offset, str(made.here.gtids)) == (FILE, end, f"{SERVER}:5")


def test_a_compressed_transaction_is_read_and_cut_like_another() -> None:
    """TRANSACTION_PAYLOAD (8.0.20); its compression 255 is none."""
    events = Events().gtid()
    inside = [events.inner(binlog.QUERY, said("BEGIN")), events.inner(binlog.TABLE_MAP, table_map())]
    inside += [events.inner(binlog.WRITE_ROWS, written(number, number + 1)) for number in range(0, 30, 2)]
    inside.append(events.inner(binlog.XID, bytes(8)))
    payload = b"".join(inside)
    fields = b"\2\3\xfc\xff\0" + b"\1\3\xfc" + struct.pack("<H", len(payload)) + b"\0"
    events.add(binlog.TRANSACTION_PAYLOAD, fields + payload)
    end = events.offset

    batches, made = taken(events, changes_max=10)

    assert rows(batches) == [(number,) for number in range(30)]
    assert [each.transactions[0].part for each in batches] == [0, 1, 2]
    assert (made.here.offset, made.within) == (end, False)


@pytest.mark.parametrize(
    ("kind", "flags", "said_of_it"),
    [
        (99, 0, "a type that is not known, 99"),
        (binlog.GTID_TAGGED, 0, "tagged GTIDs are not read yet"),
        (binlog.START_ENCRYPTION, 0, "encrypted logs are not read yet"),
        (binlog.INCIDENT, 0, "wrote an incident into its log"),
        (172, 0, "a type that is not known, 172"),
    ],
)
def test_an_event_that_nobody_knows_stops_with_its_place_and_moves_nothing(
    kind: int, flags: int, said_of_it: str
) -> None:
    events = Events().gtid(1).statement("BEGIN").add(binlog.XID, bytes(8))
    offset = events.offset
    events.add(kind, b"\1\0\0", flags=flags)
    made, _ = groups()

    with pytest.raises(Fatal, match=said_of_it) as raised:
        made.drain(cast("Stream", events))

    assert f"{FILE}:{offset}" in str(raised.value)
    assert made.here.offset == offset


def test_an_unknown_event_that_may_be_ignored_is_ignored() -> None:
    events = Events().gtid().statement("BEGIN").add(99, b"?", flags=binlog.IGNORABLE).add(binlog.XID, bytes(8))

    _, made = taken(events)

    assert str(made.here.gtids) == f"{SERVER}:1"


@pytest.mark.parametrize(
    ("kind", "body", "said_of_it"),
    [
        (binlog.TABLE_MAP, table_map()[:-9], "table map"),
        (binlog.TABLE_MAP, table_map().replace(b"\1\3\0\0", b"\1\xf0\0\0"), "of type 240, which nobody knows"),
        (binlog.WRITE_ROWS, written(1)[:-2], "shop.t"),
        (binlog.WRITE_ROWS, struct.pack("<Q", 8)[:6] + written(1)[6:], "table number 8, which no table map names"),
    ],
)
def test_rows_and_table_maps_that_do_not_fit_stop_with_place_and_gtid(kind: int, body: bytes, said_of_it: str) -> None:
    events = Events().gtid(3).statement("BEGIN").add(binlog.TABLE_MAP, table_map())
    offset = events.offset
    events.add(kind, body)
    made, _ = groups()

    with pytest.raises(Fatal, match=said_of_it) as raised:
        made.drain(cast("Stream", events))

    assert f"at {FILE}:{offset}, in {SERVER}:3" in str(raised.value)


def test_a_transaction_that_the_log_does_not_end_is_forgotten() -> None:
    """The server died in it; the next file begins anew."""
    events = Events().gtid(1).statement("BEGIN").add(binlog.TABLE_MAP, table_map()).add(binlog.WRITE_ROWS, written(1))
    events.gtid(1).statement("BEGIN").add(binlog.TABLE_MAP, table_map()).add(binlog.WRITE_ROWS, written(2))
    events.add(binlog.XID, bytes(8))

    batches, _ = taken(events)

    assert rows(batches) == [(2,)]


def test_a_transaction_that_the_log_does_not_end_and_that_was_partly_delivered_stops() -> None:
    events = Events().gtid(1).statement("BEGIN").add(binlog.TABLE_MAP, table_map())
    events.add(binlog.WRITE_ROWS, written(*range(25))).gtid(2)

    with pytest.raises(Fatal, match=f"{SERVER}:1 is not whole in the log"):
        taken(events, changes_max=10)


def test_a_rollback_to_before_what_was_delivered_stops() -> None:
    events = Events().gtid(1).statement("BEGIN").statement("SAVEPOINT `a`").add(binlog.TABLE_MAP, table_map())
    events.add(binlog.WRITE_ROWS, written(*range(25))).statement("ROLLBACK TO `a`")

    with pytest.raises(Fatal, match=r"rolls back to a savepoint at .* were delivered in a part"):
        taken(events, changes_max=10)


def test_a_group_of_a_create_with_rows_is_one_transaction() -> None:
    """CREATE TABLE ... SELECT, from 8.0.21 on."""
    events = Events().gtid(1).statement("CREATE TABLE t (id int) START TRANSACTION")
    events.add(binlog.TABLE_MAP, table_map()).add(binlog.WRITE_ROWS, written(1)).add(binlog.XID, bytes(8))

    batches, made = taken(events)

    assert rows(batches) == [(1,)]
    assert str(made.here.gtids) == f"{SERVER}:1"


def test_a_transaction_without_a_gtid_is_named_by_its_place() -> None:
    events = Events()
    began = events.offset
    events.add(binlog.ANONYMOUS_GTID, bytes(25) + b"\2" + bytes(16) + (5).to_bytes(7, "little"))
    events.statement("BEGIN").add(binlog.TABLE_MAP, table_map()).add(binlog.WRITE_ROWS, written(1))
    events.add(binlog.XID, bytes(8))

    batches, made = taken(events)

    assert batches[0].transactions[0].id == f"{SERVER}:{FILE}:{began}"
    assert str(made.here.gtids) == ""


def test_mariadb_says_with_its_gtid_what_ends_a_group() -> None:
    events = Events()
    events.add(binlog.MARIADB_GTID, struct.pack("<QIB", 8, 3, 1) + bytes(6)).statement("CREATE TABLE other (a int)")
    events.add(binlog.MARIADB_GTID, struct.pack("<QIB", 9, 3, 4) + bytes(6))
    events.add(binlog.TABLE_MAP, table_map()).add(binlog.WRITE_ROWS, written(1)).statement("COMMIT")

    batches, made = taken(events, gtids=GtidList())

    assert rows(batches) == [(1,)]
    assert str(made.here.gtids) == "3-7-9"
    assert batches[0].transactions[0].id == "3-7-9"


def test_a_load_of_data_that_is_logged_as_a_statement_stops_for_a_wanted_table() -> None:
    events = Events().gtid(1).statement("BEGIN").add(binlog.TABLE_MAP, table_map()).add(binlog.WRITE_ROWS, written(1))
    head = struct.pack("<IIBHH", 1, 0, 4, 0, 0) + struct.pack("<IIIB", 1, 9, 20, 0)
    events.add(binlog.BEGIN_LOAD_QUERY, b"\1\0\0\0data")
    events.add(binlog.EXECUTE_LOAD_QUERY, head + b"shop\0LOAD DATA INFILE 'x' INTO TABLE `t`")
    made, _ = groups()

    with pytest.raises(Fatal, match=r"may change rows of shop.t is logged as such"):
        made.drain(cast("Stream", events))


def test_rows_of_a_prepared_transaction_wait_for_its_commit() -> None:
    events = Events()
    began = events.offset
    events.gtid(1).statement("XA START X'61',X'',1").add(binlog.TABLE_MAP, table_map())
    events.add(binlog.WRITE_ROWS, written(1)).statement("XA END X'61',X'',1")
    events.add(binlog.XA_PREPARE, struct.pack("<BIII", 0, 1, 1, 0) + b"a")
    events.gtid(2).statement("XA COMMIT X'61',X'',1")
    made, _ = groups()

    assert not made.drain(cast("Stream", events))

    assert made.decided == Prepared("X'61',X'',1", FILE, began)
    assert list(made.here.prepared) == [made.decided]
    made.finish()
    assert not made.here.prepared
