"""Whether a stored position is of the server's own past, and as which reader its log is read."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fix_mysql_log import BUILDS, OTHER, insert, judged, now, opened, purge, rotate, section

from cdcsync.change import Change
from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.mapping.transform import Mapping
from cdcsync.mysql import identity, readers
from cdcsync.mysql.gtid import GtidList, GtidSet
from cdcsync.mysql.position import MysqlPosition, Prepared
from cdcsync.mysql.search import Search
from cdcsync.mysql.server import Flavor
from cdcsync.mysql.source import MysqlBinlog
from cdcsync.mysql.stream import Reader, Stream
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from cdcsync.ports import SourceContext


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
    fresh: MysqlServer, log_context: SourceContext
) -> None:
    with opened(fresh) as connection:
        born = Search(connection, section(fresh), log_context).begun("binlog.000001")
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
    log_context: SourceContext,
) -> None:
    server = MysqlServer("mysql8", settings={"gtid_mode": "OFF"}).start()
    source = MysqlBinlog(section(server), replace(log_context, selection=Mapping.of(["shop.t"])))
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
    each_mysql: MysqlServer, log_context: SourceContext
) -> None:
    config = section(each_mysql)
    with opened(each_mysql) as connection:
        got = [readers.choose(connection, config, log_context, each) for each in ("stream", "search", "tail", "stream")]
        other = readers.choose(connection, config, replace(log_context, pipeline="others"))

    assert got[0] == got[3]
    assert len({*got, other, each_mysql.server_id}) == 5
    assert all(number >= 1 << 31 for number in got)


def test_a_number_that_another_reader_has_is_passed_over_or_refused_when_it_was_asked_for(
    each_mysql: MysqlServer, log_context: SourceContext
) -> None:
    with opened(each_mysql) as connection:
        mine = readers.choose(connection, section(each_mysql), log_context)
    thief = Stream(opened(each_mysql), Reader(mine, "somebody else", 10, 60))
    thief.start_at(each_mysql.binlogs()[-1], 4)
    try:
        with opened(each_mysql) as connection:
            got = readers.choose(connection, section(each_mysql), log_context)
            with pytest.raises(Fatal, match=f"server_id {mine} is taken by somebody else") as caught:
                readers.choose(connection, section(each_mysql, server_id=mine), log_context)
            assert readers.choose(connection, section(each_mysql, server_id=mine), log_context, "search") != mine
    finally:
        thief.close()

    assert got != mine
    assert caught.value.status is ExitStatus.OWNERSHIP


def test_what_is_left_of_our_own_reading_is_replaced_not_avoided(
    each_mysql: MysqlServer, log_context: SourceContext
) -> None:
    with opened(each_mysql) as connection:
        mine = readers.choose(connection, section(each_mysql), log_context)
    left = Stream(opened(each_mysql), Reader(mine, readers.name_of(log_context), 10, 60))
    left.start_at(each_mysql.binlogs()[-1], 4)
    try:
        with opened(each_mysql) as connection:
            assert readers.choose(connection, section(each_mysql), log_context) == mine
    finally:
        left.close()
