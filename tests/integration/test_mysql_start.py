"""Where a pipeline begins: the words of `start` and of `positions set` at real servers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fix_mysql_log import OTHER, began, insert, judged, now, opened, pause, purge, rotate, section, shown

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql import identity, logs, start
from cdcsync.mysql.gtid import GtidSet
from cdcsync.mysql.position import MysqlPosition

if TYPE_CHECKING:
    from cdcsync.ports import SourceContext
    from cdcsync.testing.mysql_servers import MysqlServer


def test_now_is_the_logs_end_with_all_transactions_before_it(fresh: MysqlServer, log_context: SourceContext) -> None:
    insert(fresh, 1, 2)

    got = began(fresh, log_context, "now")

    assert (got.file, got.offset) == fresh.position()
    assert str(got.gtids) == fresh.logged()


def test_earliest_is_the_first_file_and_what_was_purged_counts_as_seen(
    fresh: MysqlServer, log_context: SourceContext
) -> None:
    insert(fresh, 1, 2)
    rotate(fresh)
    gone = fresh.logged()
    insert(fresh, 3)
    files = fresh.binlogs()

    whole = began(fresh, log_context, "earliest")
    purge(fresh, files[-1])
    cut = began(fresh, log_context, "earliest")

    assert (whole.file, whole.offset, bool(whole.gtids)) == (files[0], 4, False)
    assert (cut.file, cut.offset, str(cut.gtids)) == (files[-1], 4, gone)
    assert judged(fresh, cut) == identity.Way(by_gtid=False, moved=False)
    assert judged(fresh, replace(cut, server="another")) == identity.Way(by_gtid=True, moved=True)


def test_a_place_is_taken_with_the_transactions_before_it(fresh: MysqlServer, log_context: SourceContext) -> None:
    insert(fresh, 1)
    rotate(fresh)
    insert(fresh, 2)
    file, offset = fresh.position()
    before = fresh.logged()
    insert(fresh, 3)

    got = began(fresh, log_context, {"file": file, "offset": offset})
    of_file = began(fresh, log_context, {"file": file})
    at_end = began(fresh, log_context, {"file": file, "offset": fresh.position()[1]})

    assert (got.file, got.offset, str(got.gtids)) == (file, offset, before)
    with opened(fresh) as connection:
        assert of_file.gtids == logs.before(connection, file)
    assert str(at_end.gtids) == fresh.logged()


@pytest.mark.parametrize("shift", [30, 100])
def test_a_place_inside_a_transaction_or_an_event_is_refused(
    fresh: MysqlServer, log_context: SourceContext, shift: int
) -> None:
    file, offset = fresh.position()
    fresh.execute("INSERT INTO shop.t VALUES (1), (2)")
    (event,) = [each for each in fresh.query(f"SHOW BINLOG EVENTS IN '{file}' FROM {offset}") if each[2] == "Table_map"]

    with pytest.raises(Fatal, match="lies inside a transaction: an event of type Table_map") as caught:
        began(fresh, log_context, {"file": file, "offset": event[1]})
    assert caught.value.status is ExitStatus.CONFIG
    with pytest.raises(Fatal, match=r"no event of the binlog begins at|error 1220"):
        began(fresh, log_context, {"file": file, "offset": offset + shift})


def test_a_file_that_is_not_there_and_an_offset_in_the_future_are_refused(
    fresh: MysqlServer, log_context: SourceContext
) -> None:
    with pytest.raises(Fatal, match=r"has no file binlog\.000099: its log goes from binlog\.000001 to binlog\.000001"):
        began(fresh, log_context, {"file": "binlog.000099", "offset": 4})
    with pytest.raises(Fatal, match="lies in the future"):
        began(fresh, log_context, {"file": "binlog.000001", "offset": 1 << 30})


def test_a_gtid_is_taken_where_the_log_still_has_what_follows(fresh: MysqlServer, log_context: SourceContext) -> None:
    insert(fresh, 1)
    early = fresh.logged()
    insert(fresh, 2)
    rotate(fresh)
    late = fresh.logged()

    got = began(fresh, log_context, {"gtid": early})
    purge(fresh, fresh.binlogs()[-1])

    assert (got.file, str(got.gtids)) == ("", early)
    assert str(began(fresh, log_context, {"gtid": late}).gtids) == late
    with pytest.raises(Fatal, match="has purged transactions that were not delivered") as caught:
        began(fresh, log_context, {"gtid": early})
    assert "cannot be read any more" in caught.value.hint


def test_a_gtid_without_its_floor_is_refused_with_what_it_lacks(
    mysql8: MysqlServer, log_context: SourceContext
) -> None:
    for _ in range(3):
        mysql8.execute("CREATE DATABASE IF NOT EXISTS floor")
    rotate(mysql8)
    purge(mysql8, mysql8.binlogs()[-1])
    mysql8.execute("DROP DATABASE floor")
    uuid, _, last = mysql8.logged().rpartition(":")
    number = int(last.rpartition("-")[2])

    with pytest.raises(Fatal, match=f"not delivered: {uuid}:1"):
        began(mysql8, log_context, {"gtid": f"{uuid}:{number - 1}-{number}"})
    with pytest.raises(Fatal, match=f"not delivered: {uuid}:2"):
        began(mysql8, log_context, {"gtid": f"{uuid}:1"})  # before what was purged: a set like any other
    assert began(mysql8, log_context, {"gtid": f"{uuid}:1-{number}"}).gtids == GtidSet.parse(f"{uuid}:1-{number}")


def test_gtids_that_the_server_never_had_and_those_of_the_other_flavour_are_refused(
    fresh: MysqlServer, log_context: SourceContext
) -> None:
    own, other = ("0-1-99999", f"{OTHER}:1") if fresh.build.name != "mysql8" else (f"{OTHER}:1-5", "0-1-5")

    with pytest.raises(Fatal, match="never had these transactions"):
        began(fresh, log_context, {"gtid": own})
    with pytest.raises(Fatal, match="has no GTIDs of this form"):
        began(fresh, log_context, {"gtid": other})


def test_a_time_is_found_over_files_and_never_later_than_asked(fresh: MysqlServer, log_context: SourceContext) -> None:
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
        assert str(began(fresh, log_context, {"time": shown(asked)}).gtids) == want
    first = began(fresh, log_context, {"time": shown(begin - 86400)})
    assert (first.file, str(first.gtids or "")) == ("binlog.000001", "")


def test_a_time_before_the_log_and_one_in_the_future_are_refused(
    fresh: MysqlServer, log_context: SourceContext
) -> None:
    insert(fresh, 1)
    rotate(fresh)
    purge(fresh, fresh.binlogs()[-1])

    with pytest.raises(Fatal, match=r"the log begins with binlog\.000002 at .*, later than"):
        began(fresh, log_context, {"time": shown(time.time() - 3600)})
    with pytest.raises(Fatal, match="lies in the future"):
        began(fresh, log_context, {"time": shown(time.time() + 3600)})


def test_each_word_of_positions_set_is_a_position_that_is_checked(
    fresh: MysqlServer, log_context: SourceContext
) -> None:
    insert(fresh, 1)
    file, offset = fresh.position()
    position = now(fresh)
    pause(1.1)

    def got(word: str) -> MysqlPosition:
        return MysqlPosition.decode(start.stored(section(fresh), log_context, word))

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


def test_one_gtid_is_the_place_behind_its_transaction_on_both_flavours(
    fresh: MysqlServer, log_context: SourceContext
) -> None:
    insert(fresh, 1)
    rotate(fresh)
    insert(fresh, 2, 3)
    before, place = fresh.logged(), fresh.position()
    insert(fresh, 4)
    rotate(fresh)
    insert(fresh, 5)
    word = before.replace(":1-", ":")

    got = began(fresh, log_context, {"gtid": word})

    assert str(got.gtids) == before
    assert (got.file, got.offset) in (place, ("", 0))
    assert judged(fresh, got).by_gtid is not bool(got.file)
