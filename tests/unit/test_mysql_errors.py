"""Each error of the server or its client, and the verdict on it."""

from __future__ import annotations

from typing import Final

import pymysql.err
import pytest

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.mysql.errors import DUMPS, RULES, Verdict, describe, is_about_rows, rule_of, verdict

WANTED: Final[dict[Verdict, tuple[int, ...]]] = {
    Verdict.TRANSIENT: (
        *(2002, 2003, 2005, 2006, 2012, 2013, 2014, 2026, 2027, 2055),
        *(1020, 1021, 1037, 1038, 1040, 1041, 1042, 1043, 1053, 1077, 1078, 1079, 1080, 1114, 1135, 1152),
        *(1156, 1157, 1158, 1159, 1160, 1161, 1180, 1184, 1189, 1190, 1194, 1203, 1205, 1206, 1213),
        *(1223, 1226, 1290, 1317, 1412, 1598, 1614, 1615, 1637, 1792, 1836, 1881, 1927, 1969, 3024),
        *(3101, 3168, 3169, 3572, 4031),
    ),
    Verdict.PERMISSION: (
        *(2059, 2061, 1045, 1698, 1251, 1275, 1524, 1044, 1095, 1141, 1142, 1143, 1227, 1370),
        *(1129, 1130, 1820, 1862, 3118, 3159, 4151),
    ),
    Verdict.CONFIG: (1049, 1115, 1153, 1193, 1231, 1235, 1286, 1381, 1665),
    Verdict.DATA: (
        *(1050, 1220),
        1051,
        1054,
        1060,
        1061,
        1064,
        1068,
        1072,
        1091,
        1109,
        1136,
        1146,
        1347,
        1906,
        3105,
        9999,
        1105,
    ),
    Verdict.ROWS: (
        *(1048, 1062, 1118, 1139, 1169, 1216, 1217, 1263, 1264, 1265, 1292, 1300, 1364, 1365, 1366, 1367),
        *(1369, 1406, 1411, 1416, 1442, 1451, 1452, 1526, 1557, 1586, 1644, 1690, 1761, 1762, 1859, 3037),
        *(3140, 3141, 3143, 3156, 3157, 3554, 3643, 3819, 3854, 3903, 3988, 4025, 4078),
    ),
}
STATUS: Final = {
    Verdict.PERMISSION: ExitStatus.PERMISSION,
    Verdict.OWNERSHIP: ExitStatus.OWNERSHIP,
    Verdict.CONFIG: ExitStatus.CONFIG,
    Verdict.DATA: ExitStatus.DATA,
    Verdict.ROWS: ExitStatus.DATA,
}
BINLOG_WORDS: Final = {
    "Could not find first log file name in binary log index file": Verdict.DATA,
    "could not find next log; the first event 'binlog.000001' at 4": Verdict.DATA,
    "The slave is connecting using CHANGE MASTER TO MASTER_AUTO_POSITION = 1, but the master has purged binary logs "
    "containing GTIDs that the slave requires.": Verdict.DATA,
    "Slave has more GTIDs than the master has, using the master's SERVER_UUID.": Verdict.DATA,
    "Error: connecting slave requested to start from GTID 0-1-9, which is not in the master's binlog": Verdict.DATA,
    "Error: connecting slave requested to start from GTID 0-1-9, which is not in the master's binlog. Since the master's "
    "binlog contains GTIDs with higher sequence numbers, it probably means that the slave has diverged due to executing "
    "extra erroneous transactions": Verdict.DATA,
    "The binlog on the master is missing the GTID 0-1-5 requested by the slave": Verdict.DATA,
    "A slave with the same server_uuid/server_id as this slave has connected to the master": Verdict.OWNERSHIP,
    "Misconfigured master - master server_id is 0: server_id was not set": Verdict.CONFIG,
    "Slave server id not set": Verdict.CONFIG,
    "Master is not properly initialized": Verdict.CONFIG,
    "Binary log is not open": Verdict.CONFIG,
    "log event entry exceeded max_allowed_packet; Increase max_allowed_packet on master": Verdict.CONFIG,
    "Client requested master to start replication from impossible position": Verdict.DATA,
    "Client requested master to start replication from position > file size": Verdict.DATA,
    "bogus data in log event": Verdict.DATA,
    "event read from binlog did not pass crc check": Verdict.DATA,
    "binlog truncated in the middle of event": Verdict.DATA,
    "corrupted event": Verdict.DATA,
    "error reading log event": Verdict.DATA,
    "same server_id": Verdict.OWNERSHIP,
    "Cannot replicate anonymous transaction when @@GLOBAL.GTID_MODE = ON, at file ./binlog.000001": Verdict.CONFIG,
    "words that no server says": Verdict.DATA,
}


@pytest.mark.parametrize(
    ("number", "want"), [(number, want) for want, numbers in WANTED.items() for number in numbers], ids=str
)
def test_each_error_number_has_its_verdict(number: int, want: Verdict) -> None:
    error = pymysql.err.OperationalError(number, "secret value")

    got = verdict(error, End.SINK, "writing")

    assert rule_of(error).verdict is want
    assert is_about_rows(error) is (want is Verdict.ROWS)
    if want is Verdict.TRANSIENT:
        assert isinstance(got, Transient)
        assert got.end is End.SINK
    else:
        assert isinstance(got, Fatal)
        assert got.status is STATUS[want]
        assert got.hint
    assert ("secret" in describe(error)) is (want is not Verdict.ROWS)


def test_every_row_of_the_table_is_tested() -> None:
    assert sorted(RULES) == sorted(number for numbers in WANTED.values() for number in numbers if number in RULES)


@pytest.mark.parametrize(("words", "want"), BINLOG_WORDS.items())
def test_a_refused_reading_of_the_log_is_judged_by_its_words(words: str, want: Verdict) -> None:
    got = verdict(pymysql.err.OperationalError(1236, words), End.SOURCE, "reading the binlog")

    assert isinstance(got, Fatal)
    assert got.status is STATUS[want]
    assert got.hint


def test_every_part_of_the_words_is_tested() -> None:
    untested = [part for part, _ in DUMPS if not any(part in words.lower() for words in BINLOG_WORDS)]

    assert untested == []


def test_what_was_not_found_says_that_it_is_lost_and_what_diverged_names_the_other_server() -> None:
    lost = pymysql.err.OperationalError(1236, "Could not find first log file name in binary log index file")
    other = pymysql.err.OperationalError(1236, "which is not in the master's binlog ... the slave has diverged")

    assert "cannot be read any more" in rule_of(lost).hint
    assert "never had" in rule_of(other).hint


def test_a_closed_connection_is_transient() -> None:
    assert isinstance(verdict(pymysql.err.InterfaceError(0, ""), End.SOURCE, "x"), Transient)
    assert isinstance(verdict(pymysql.err.InternalError("Packet sequence number wrong"), End.SOURCE, "x"), Transient)
