"""Where a pipeline begins, and whether a stored position is of the server's own past."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from cdcsync.change import Change
from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.mapping.transform import Mapping
from cdcsync.mysql import identity, logs, readers, start
from cdcsync.mysql.config import MysqlSource, from_url
from cdcsync.mysql.connection import connect
from cdcsync.mysql.gtid import GtidList, GtidSet
from cdcsync.mysql.position import MysqlPosition, Prepared
from cdcsync.mysql.search import Search
from cdcsync.mysql.server import Flavor
from cdcsync.mysql.source import MysqlBinlog
from cdcsync.mysql.stream import Reader, Stream
from cdcsync.ports import SourceContext
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cdcsync.mysql.connection import Connection

OTHER: Final = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
BUILDS: Final = ("mysql8", "mariadb10", "mariadb11")


def section(server: MysqlServer, **fields: Any) -> MysqlSource:
    return MysqlSource.model_validate({**from_url(server.url()), "start": "now", **fields})


@pytest.fixture
def context(tmp_path: Path) -> SourceContext:
    return SourceContext("orders", Mapping.of(["*.*"]), tmp_path)


@pytest.fixture(scope="module", params=BUILDS)
def own(request: pytest.FixtureRequest) -> Iterator[MysqlServer]:
    """A server whose log nobody else writes, and this module may reset."""
    server = MysqlServer(request.param).start()
    server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY)")
    yield server
    server.stop()


@pytest.fixture
def fresh(own: MysqlServer) -> MysqlServer:
    """The same with an empty log."""
    own.execute("RESET MASTER")
    own.execute("TRUNCATE TABLE shop.t")
    return own


def opened(server: MysqlServer) -> Connection:
    return connect(section(server), purpose="test")


def began(server: MysqlServer, context: SourceContext, at: Any) -> MysqlPosition:
    config = section(server, start=at)
    with connect(config, purpose="test") as connection:
        return start.first(connection, config, context)


def now(server: MysqlServer) -> MysqlPosition:
    with opened(server) as connection:
        end = logs.end(connection)
        return MysqlPosition(1, connection.server.uuid, end.file, end.offset, end.gtids)


def judged(server: MysqlServer, position: MysqlPosition) -> identity.Way:
    with opened(server) as connection:
        return identity.judge(connection, position)


def insert(server: MysqlServer, *numbers: int) -> None:
    for number in numbers:
        server.execute(f"INSERT INTO shop.t VALUES ({number})")


def rotate(server: MysqlServer) -> None:
    server.execute("FLUSH BINARY LOGS")


def purge(server: MysqlServer, file: str) -> None:
    """MariaDB keeps a file until its engine has let go of it, a moment later."""
    for _ in range(200):
        server.execute(f"PURGE BINARY LOGS TO '{file}'")
        if server.binlogs()[0] == file:
            return
        pause(0.05)
    pytest.fail(f"not purged up to {file}: {server.binlogs()}")


def test_now_is_the_logs_end_with_all_transactions_before_it(fresh: MysqlServer, context: SourceContext) -> None:
    insert(fresh, 1, 2)

    got = began(fresh, context, "now")

    assert (got.file, got.offset) == fresh.position()
    assert str(got.gtids) == fresh.logged()


def test_earliest_is_the_first_file_and_what_was_purged_counts_as_seen(
    fresh: MysqlServer, context: SourceContext
) -> None:
    insert(fresh, 1, 2)
    rotate(fresh)
    gone = fresh.logged()
    insert(fresh, 3)
    files = fresh.binlogs()

    whole = began(fresh, context, "earliest")
    purge(fresh, files[-1])
    cut = began(fresh, context, "earliest")

    assert (whole.file, whole.offset, bool(whole.gtids)) == (files[0], 4, False)
    assert (cut.file, cut.offset, str(cut.gtids)) == (files[-1], 4, gone)
    assert judged(fresh, cut) == identity.Way(by_gtid=False, moved=False)
    assert judged(fresh, replace(cut, server="another")) == identity.Way(by_gtid=True, moved=True)


def test_a_place_is_taken_with_the_transactions_before_it(fresh: MysqlServer, context: SourceContext) -> None:
    insert(fresh, 1)
    rotate(fresh)
    insert(fresh, 2)
    file, offset = fresh.position()
    before = fresh.logged()
    insert(fresh, 3)

    got = began(fresh, context, {"file": file, "offset": offset})
    of_file = began(fresh, context, {"file": file})
    at_end = began(fresh, context, {"file": file, "offset": fresh.position()[1]})

    assert (got.file, got.offset, str(got.gtids)) == (file, offset, before)
    with opened(fresh) as connection:
        assert of_file.gtids == logs.before(connection, file)
    assert str(at_end.gtids) == fresh.logged()


@pytest.mark.parametrize("shift", [30, 100])
def test_a_place_inside_a_transaction_or_an_event_is_refused(
    fresh: MysqlServer, context: SourceContext, shift: int
) -> None:
    file, offset = fresh.position()
    fresh.execute("INSERT INTO shop.t VALUES (1), (2)")
    (event,) = [each for each in fresh.query(f"SHOW BINLOG EVENTS IN '{file}' FROM {offset}") if each[2] == "Table_map"]

    with pytest.raises(Fatal, match="lies inside a transaction: an event of type Table_map") as caught:
        began(fresh, context, {"file": file, "offset": event[1]})
    assert caught.value.status is ExitStatus.CONFIG
    with pytest.raises(Fatal, match=r"no event of the binlog begins at|error 1220"):
        began(fresh, context, {"file": file, "offset": offset + shift})


def test_a_file_that_is_not_there_and_an_offset_in_the_future_are_refused(
    fresh: MysqlServer, context: SourceContext
) -> None:
    with pytest.raises(Fatal, match=r"has no file binlog\.000099: its log goes from binlog\.000001 to binlog\.000001"):
        began(fresh, context, {"file": "binlog.000099", "offset": 4})
    with pytest.raises(Fatal, match="lies in the future"):
        began(fresh, context, {"file": "binlog.000001", "offset": 1 << 30})


def test_a_gtid_is_taken_where_the_log_still_has_what_follows(fresh: MysqlServer, context: SourceContext) -> None:
    insert(fresh, 1)
    early = fresh.logged()
    insert(fresh, 2)
    rotate(fresh)
    late = fresh.logged()

    got = began(fresh, context, {"gtid": early})
    purge(fresh, fresh.binlogs()[-1])

    assert (got.file, str(got.gtids)) == ("", early)
    assert str(began(fresh, context, {"gtid": late}).gtids) == late
    with pytest.raises(Fatal, match="has purged transactions that were not delivered") as caught:
        began(fresh, context, {"gtid": early})
    assert "cannot be read any more" in caught.value.hint


def test_a_gtid_without_its_floor_is_refused_with_what_it_lacks(mysql8: MysqlServer, context: SourceContext) -> None:
    mysql8.execute("CREATE DATABASE IF NOT EXISTS floor")
    rotate(mysql8)
    purge(mysql8, mysql8.binlogs()[-1])
    mysql8.execute("DROP DATABASE floor")
    uuid, _, last = mysql8.logged().rpartition(":")
    number = int(last.rpartition("-")[2])

    with pytest.raises(Fatal, match=f"not delivered: {uuid}:1"):
        began(mysql8, context, {"gtid": f"{uuid}:{number}"})
    assert began(mysql8, context, {"gtid": f"{uuid}:1-{number}"}).gtids == GtidSet.parse(f"{uuid}:1-{number}")


def test_gtids_that_the_server_never_had_and_those_of_the_other_flavour_are_refused(
    fresh: MysqlServer, context: SourceContext
) -> None:
    own, other = ("0-1-99999", f"{OTHER}:1") if fresh.build.name != "mysql8" else (f"{OTHER}:1-5", "0-1-5")

    with pytest.raises(Fatal, match="never had these transactions"):
        began(fresh, context, {"gtid": own})
    with pytest.raises(Fatal, match="has no GTIDs of this form"):
        began(fresh, context, {"gtid": other})


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def shown(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()


def test_a_time_is_found_over_files_and_never_later_than_asked(fresh: MysqlServer, context: SourceContext) -> None:
    begin = time.time()
    marks: list[tuple[float, str]] = []
    for number in range(6):
        pause(1.1)
        marks.append((time.time(), fresh.logged()))
        insert(fresh, number)
        if number % 2:
            rotate(fresh)
    pause(1.1)
    marks.append((time.time(), fresh.logged()))

    for asked, want in marks:
        assert str(began(fresh, context, {"time": shown(asked)}).gtids) == want
    first = began(fresh, context, {"time": shown(begin - 86400)})
    assert (first.file, str(first.gtids or "")) == ("binlog.000001", "")


def test_a_time_before_the_log_and_one_in_the_future_are_refused(fresh: MysqlServer, context: SourceContext) -> None:
    insert(fresh, 1)
    rotate(fresh)
    purge(fresh, fresh.binlogs()[-1])

    with pytest.raises(Fatal, match=r"the log begins with binlog\.000002 at .*, later than"):
        began(fresh, context, {"time": shown(time.time() - 3600)})
    with pytest.raises(Fatal, match="lies in the future"):
        began(fresh, context, {"time": shown(time.time() + 3600)})


def test_each_word_of_positions_set_is_a_position_that_is_checked(fresh: MysqlServer, context: SourceContext) -> None:
    insert(fresh, 1)
    file, offset = fresh.position()
    position = now(fresh)
    pause(1.1)

    def got(word: str) -> MysqlPosition:
        return MysqlPosition.decode(start.stored(section(fresh), context, word))

    assert (got("now").file, got("now").offset) == (file, offset)
    assert got("earliest").offset == 4
    assert got(f"{file}:{offset}") == replace(position, epoch=0)
    assert got(fresh.logged()).gtids == position.gtids
    assert str(got(shown(time.time())).gtids) == fresh.logged()
    assert got(position.encode()) == position
    with pytest.raises(Fatal, match="is of the server"):
        got(replace(position, server="x", gtids=None).encode())


@pytest.mark.parametrize("word", ["initial", "", "yesterday", "binlog.000001", "2026-11-24T08:00:00", "16/B374D848"])
def test_what_is_no_word_of_positions_set_is_refused_with_those_that_are(word: str) -> None:
    with pytest.raises(Fatal) as caught:
        start.word_of(word)

    assert caught.value.status is ExitStatus.CONFIG
    assert "write now, earliest" in caught.value.hint


def test_a_position_is_gone_on_from_by_file_and_offset_on_its_own_server(fresh: MysqlServer) -> None:
    insert(fresh, 1)
    position = now(fresh)
    insert(fresh, 2)
    rotate(fresh)

    assert judged(fresh, position) == identity.Way(by_gtid=False, moved=False)
    fresh.restart()
    assert judged(fresh, position) == identity.Way(by_gtid=False, moved=False)


def test_a_file_that_was_purged_is_no_loss_when_all_in_it_was_delivered(fresh: MysqlServer) -> None:
    insert(fresh, 1)
    before = now(fresh)
    insert(fresh, 2)
    position = now(fresh)
    rotate(fresh)
    insert(fresh, 3)
    purge(fresh, fresh.binlogs()[-1])

    assert judged(fresh, position) == identity.Way(by_gtid=True, moved=False)
    with pytest.raises(Fatal, match="has purged transactions that were not delivered"):
        judged(fresh, before)
    with pytest.raises(Fatal, match="what was between was purged"):
        judged(fresh, replace(position, gtids=None))


def test_rows_of_a_prepared_xa_transaction_that_were_purged_stop(fresh: MysqlServer) -> None:
    rotate(fresh)
    prepared = Prepared("X'61',X'',1", "binlog.000001", 200)
    position = replace(now(fresh), prepared=(prepared,))

    assert judged(fresh, position) == identity.Way(by_gtid=False, moved=False)
    purge(fresh, fresh.binlogs()[-1])
    with pytest.raises(Fatal, match=r"prepared XA transaction X'61',X'',1 were in binlog\.000001, which was purged"):
        judged(fresh, position)


def test_a_log_that_was_reset_is_refused(fresh: MysqlServer) -> None:
    insert(fresh, 1, 2, 3)
    position = now(fresh)
    plain = replace(position, gtids=None)
    fresh.execute("RESET MASTER")

    with pytest.raises(Fatal, match="never had these transactions") as caught:
        judged(fresh, position)
    assert "reset" in caught.value.hint
    with pytest.raises(Fatal, match="before the position"):
        judged(fresh, plain)
    with pytest.raises(Fatal, match="before the position"):
        judged(fresh, replace(plain, file="binlog.000009"))


def test_a_file_of_the_same_name_that_was_begun_at_another_time_is_refused(
    fresh: MysqlServer, context: SourceContext
) -> None:
    with opened(fresh) as connection:
        born = Search(connection, section(fresh), context).begun("binlog.000001")
    position = replace(now(fresh), born=born)

    identity.check_born(position, "binlog.000001", born)
    assert abs(born - time.time()) < 60
    with pytest.raises(Fatal, match="was begun at another time"):
        identity.check_born(position, "binlog.000001", born + 1)


def test_file_and_offset_of_another_server_are_refused(fresh: MysqlServer) -> None:
    with pytest.raises(Fatal, match="files and offsets differ") as caught:
        judged(fresh, MysqlPosition(1, OTHER, "binlog.000001", 4))
    assert "cdcsync positions clear" in caught.value.hint


def test_a_history_of_the_other_flavour_is_refused(fresh: MysqlServer) -> None:
    gtids = GtidList.parse("0-1-5") if fresh.build.name == "mysql8" else GtidSet.parse(f"{OTHER}:1-5")

    with pytest.raises(Fatal, match="another kind of server"):
        judged(fresh, MysqlPosition(1, OTHER, "binlog.000001", 4, gtids))


def test_transactions_of_a_stranger_are_another_history(fresh: MysqlServer) -> None:
    insert(fresh, 1, 2, 3)
    with opened(fresh) as connection:
        is_mariadb = connection.server.flavor is Flavor.MARIADB
    gtids = GtidList.parse("0-77-1") if is_mariadb else GtidSet.parse(f"{OTHER}:1")

    with pytest.raises(Fatal, match="never had these transactions"):
        judged(fresh, MysqlPosition(1, OTHER, "binlog.000001", 4, gtids))


@pytest.mark.parametrize("build", BUILDS)
def test_a_replica_is_the_same_history_unless_it_lacks_or_has_purged_what_was_delivered(build: str) -> None:
    primary = MysqlServer(build).start()
    primary.execute("CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY)")
    replica = MysqlServer.replica_of(primary)
    try:
        insert(primary, 1, 2)
        replica.await_logged(primary.logged())
        seen = now(primary)
        assert judged(replica, seen) == identity.Way(by_gtid=True, moved=True)

        replica.execute("STOP SLAVE SQL_THREAD")
        insert(primary, 3)
        ahead = now(primary)
        with pytest.raises(Transient, match="may still get them"):
            judged(replica, ahead)

        replica.execute("STOP SLAVE; RESET SLAVE ALL")
        with pytest.raises(Fatal, match="never had these transactions"):
            judged(replica, ahead)

        replica.execute("SET GLOBAL read_only = OFF; INSERT INTO shop.t VALUES (50)")
        errant = now(replica)
        with pytest.raises(Fatal, match="never had these transactions") as caught:
            judged(primary, errant)
        assert "errant" in caught.value.hint

        rotate(replica)
        purge(replica, replica.binlogs()[-1])
        with pytest.raises(Fatal, match="has purged transactions that were not delivered"):
            judged(replica, seen)
        assert judged(replica, errant) == identity.Way(by_gtid=True, moved=False)
    finally:
        replica.stop()
        primary.stop()


def test_several_domains_are_judged_each_by_itself(mariadb10: MysqlServer) -> None:
    mariadb10.execute("CREATE DATABASE IF NOT EXISTS domains")
    mariadb10.execute("SET gtid_domain_id = 7; CREATE OR REPLACE TABLE domains.t (id int)")
    position = now(mariadb10)
    assert isinstance(position.gtids, GtidList)
    assert 7 in position.gtids.domains()
    elsewhere = replace(position, server="another")

    assert judged(mariadb10, elsewhere) == identity.Way(by_gtid=True, moved=True)
    server, number = position.gtids.domains()[7]
    ahead = GtidList({**position.gtids.domains(), 7: (server, number + 1)})
    with pytest.raises(Fatal, match=f"delivered: 7-{server}-{number + 1}$|delivered: 7-{server}-{number + 1}\n"):
        judged(mariadb10, replace(elsewhere, gtids=ahead))
    mariadb10.execute("DROP DATABASE domains")


def test_a_change_of_gtid_mode_reads_nothing_again_and_later_failovers_know_the_transactions(
    context: SourceContext,
) -> None:
    server = MysqlServer("mysql8", settings={"gtid_mode": "OFF"}).start()
    source = MysqlBinlog(section(server), replace(context, selection=Mapping.of(["shop.t"])))
    try:
        server.execute("CREATE DATABASE shop; CREATE TABLE shop.t (id int PRIMARY KEY)")
        insert(server, 1)
        position = now(server)
        for step in ("OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"):
            server.execute(f"SET GLOBAL gtid_mode = {step}")
        insert(server, 2, 3)

        assert judged(server, position) == identity.Way(by_gtid=False, moved=False)
        source.open(position.encode(), 1)
        got: list[Any] = []
        reached: Any = position
        until = time.monotonic() + 20
        while len(got) < 2 and time.monotonic() < until:
            batch = source.poll(0.2)
            if batch is not None:
                got += [
                    change.after for each in batch.transactions for change in each.items if isinstance(change, Change)
                ]
                reached = batch.position
        assert got == [(2,), (3,)]
        assert (position.gtids, str(reached.gtids)) == (None, server.logged())
        for step in ("ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF"):
            server.execute(f"SET GLOBAL gtid_mode = {step}")
        assert judged(server, reached) == identity.Way(by_gtid=False, moved=False)
    finally:
        source.close()
        server.stop()


def test_a_server_id_is_the_same_at_each_start_and_another_for_each_purpose(
    each_mysql: MysqlServer, context: SourceContext
) -> None:
    config = section(each_mysql)
    with opened(each_mysql) as connection:
        got = [readers.choose(connection, config, context, each) for each in ("stream", "search", "tail", "stream")]
        other = readers.choose(connection, config, replace(context, pipeline="others"))

    assert got[0] == got[3]
    assert len({*got, other, each_mysql.server_id}) == 5
    assert all(number >= 1 << 31 for number in got)


def test_a_number_that_another_reader_has_is_passed_over_or_refused_when_it_was_asked_for(
    each_mysql: MysqlServer, context: SourceContext
) -> None:
    with opened(each_mysql) as connection:
        mine = readers.choose(connection, section(each_mysql), context)
    thief = Stream(opened(each_mysql), Reader(mine, "somebody else", 10, 60))
    thief.start_at(each_mysql.binlogs()[-1], 4)
    try:
        with opened(each_mysql) as connection:
            got = readers.choose(connection, section(each_mysql), context)
            with pytest.raises(Fatal, match=f"server_id {mine} is taken by somebody else") as caught:
                readers.choose(connection, section(each_mysql, server_id=mine), context)
            assert readers.choose(connection, section(each_mysql, server_id=mine), context, "search") != mine
    finally:
        thief.close()

    assert got != mine
    assert caught.value.status is ExitStatus.OWNERSHIP


def test_what_is_left_of_our_own_reading_is_replaced_not_avoided(
    each_mysql: MysqlServer, context: SourceContext
) -> None:
    with opened(each_mysql) as connection:
        mine = readers.choose(connection, section(each_mysql), context)
    left = Stream(opened(each_mysql), Reader(mine, readers.name_of(context), 10, 60))
    left.start_at(each_mysql.binlogs()[-1], 4)
    try:
        with opened(each_mysql) as connection:
            assert readers.choose(connection, section(each_mysql), context) == mine
    finally:
        left.close()
