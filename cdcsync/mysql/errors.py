"""From what the server or its client raises to the verdict, as a table."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import pymysql.err

from cdcsync.errors import End, ExitStatus, Fatal, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

MysqlError: TypeAlias = pymysql.err.Error
"""What a statement raises; other modules know the client library by this name alone."""


class Verdict(enum.Enum):
    """What an error number means to a pipeline."""

    TRANSIENT = "transient"
    PERMISSION = "permission"
    OWNERSHIP = "ownership"
    CONFIG = "config"
    DATA = "data"
    ROWS = "rows"
    """Some of the rows given will never be taken; the sink finds out which."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A verdict, and what to do where a person has to."""

    verdict: Verdict
    hint: str = ""


LOST_HINT: Final = (
    "what happened since then cannot be read any more: `cdcsync drop` forgets the position, then empty the target "
    "tables and fill them anew; to prevent it keep the log longer (binlog_expire_logs_seconds, expire_logs_days)"
)

_TRANSIENT: Final = Rule(Verdict.TRANSIENT)
_ROWS: Final = Rule(Verdict.ROWS)
_GRANT: Final = Rule(Verdict.PERMISSION, "run `cdcsync check`: it prints the GRANT that is missing")
_LOGIN: Final = Rule(Verdict.PERMISSION, "check `user` and `password`")
_STRUCTURE: Final = Rule(
    Verdict.DATA, "the tables are not what the pipeline found at its start: run `cdcsync check` on it"
)
_PACKET: Final = Rule(
    Verdict.CONFIG, "raise max_allowed_packet at the server: SET GLOBAL max_allowed_packet = 1073741824"
)
_CORRUPT: Final = Rule(
    Verdict.DATA, "the server's own log is damaged there: see its error log, and read from a replica that has it whole"
)
_LOST: Final = Rule(Verdict.DATA, LOST_HINT)
_OTHER: Final = Rule(
    Verdict.DATA, "the position is of transactions that this server never had: point `host` at the one that had them"
)
_SAME_ID: Final = Rule(Verdict.OWNERSHIP, "another reader has this server id: give each a `server_id` of its own")
_NO_ID: Final = Rule(Verdict.CONFIG, "SET GLOBAL server_id = 1; and in the server's configuration: server_id = 1")
_ANONYMOUS: Final = Rule(
    Verdict.CONFIG,
    "the log still has transactions without GTIDs: SET GLOBAL gtid_mode = ON_PERMISSIVE until the pipeline is past them",
)
_NO_LOG: Final = Rule(Verdict.CONFIG, "the server writes no binlog: set log_bin in its configuration and restart it")
_NO_PLACE: Final = Rule(Verdict.DATA, "no event begins there: SHOW BINARY LOGS, then `cdcsync positions set`")


def _each(rule: Rule, *numbers: int) -> dict[int, Rule]:
    return dict.fromkeys(numbers, rule)


RULES: Final[Mapping[int, Rule]] = {
    # The client's own numbers, from 2000 (MySQL manual, client error reference): a connection that is away.
    **_each(_TRANSIENT, 2002, 2003, 2005, 2006, 2012, 2013, 2014, 2026, 2027, 2055),
    **_each(_LOGIN, 2059, 2061),
    # The server's (MySQL server error reference; MariaDB error codes): it ends, is full, or busy.
    **_each(_TRANSIENT, 1020, 1021, 1037, 1038, 1040, 1041, 1042, 1043, 1053, 1077, 1078, 1079, 1080, 1114, 1135, 1152),
    **_each(_TRANSIENT, 1156, 1157, 1158, 1159, 1160, 1161, 1180, 1184, 1189, 1190, 1194, 1203, 1205, 1206, 1213),
    **_each(_TRANSIENT, 1223, 1226, 1290, 1317, 1412, 1598, 1614, 1615, 1637, 1792, 1836, 1881, 1927, 1969, 3024),
    **_each(_TRANSIENT, 3101, 3168, 3169, 3572, 4031),
    # Who we are and what we may.
    **_each(_LOGIN, 1045, 1698, 1251, 1275, 1524),
    **_each(_GRANT, 1044, 1095, 1141, 1142, 1143, 1227, 1370),
    1130: Rule(Verdict.PERMISSION, "the server knows no such user at this address: CREATE USER name@'this address'"),
    1129: Rule(Verdict.PERMISSION, "the server blocks this address after many errors: FLUSH HOSTS"),
    1820: Rule(Verdict.PERMISSION, "the password has expired: ALTER USER ... IDENTIFIED BY ..."),
    1862: Rule(Verdict.PERMISSION, "the password has expired: ALTER USER ... IDENTIFIED BY ..."),
    3118: Rule(Verdict.PERMISSION, "the account is locked: ALTER USER ... ACCOUNT UNLOCK"),
    4151: Rule(Verdict.PERMISSION, "the account is locked: ALTER USER ... ACCOUNT UNLOCK"),
    3159: Rule(
        Verdict.PERMISSION, "the server takes no connection without TLS; add to the section: tls: {mode: require}"
    ),
    # What the server is, or is not.
    1049: Rule(Verdict.CONFIG, "check `database`: the server has none of that name"),
    **_each(Rule(Verdict.CONFIG, "the server does not offer this: run `cdcsync check`"), 1115, 1193, 1231, 1235, 1286),
    1153: _PACKET,
    1220: _NO_PLACE,
    1665: Rule(Verdict.CONFIG, "the server logs statements: SET GLOBAL binlog_format = ROW"),
    1381: _NO_LOG,
    # Tables that are not as they were.
    **_each(_STRUCTURE, 1050, 1051, 1054, 1060, 1061, 1064, 1068, 1072, 1091, 1109, 1136, 1146, 1347, 1906, 3105),
    # Rows that are never taken.
    **_each(_ROWS, 1048, 1062, 1118, 1139, 1169, 1216, 1217, 1263, 1264, 1265, 1292, 1300, 1364, 1365, 1366, 1367),
    **_each(_ROWS, 1369, 1406, 1411, 1416, 1442, 1451, 1452, 1526, 1557, 1586, 1644, 1690, 1761, 1762, 1859, 3037),
    **_each(_ROWS, 3140, 3141, 3143, 3156, 3157, 3554, 3643, 3819, 3854, 3903, 3988, 4025, 4078),
}
"""By error number. What is not here is fatal: unknown is never retried."""

DUMP_REFUSED: Final = 1236
"""ER_MASTER_FATAL_ERROR_READING_BINLOG: the words tell what it is."""

DUMPS: Final = (
    ("same server_uuid", _SAME_ID),
    ("same server_id", _SAME_ID),
    ("has more gtids than", _OTHER),
    ("anonymous transaction", _ANONYMOUS),
    ("diverged", _OTHER),
    ("purged", _LOST),
    ("could not find", _LOST),
    ("not in the master's binlog", _LOST),
    ("is missing the gtid", _LOST),
    ("not properly initialized", _NO_ID),
    ("server_id was not set", _NO_ID),
    ("server id not set", _NO_ID),
    ("binary log is not open", _NO_LOG),
    ("max_allowed_packet", _PACKET),
    ("impossible position", _NO_PLACE),
    ("> file size", Rule(Verdict.DATA, "the log was reset, or a crash cut it: " + LOST_HINT)),
    ("bogus data", _CORRUPT),
    ("crc check", _CORRUPT),
    ("truncated", _CORRUPT),
    ("corrupt", _CORRUPT),
    ("error reading log", _CORRUPT),
)
"""Parts of the words of 1236 in lower case, the first that fits; see sql/rpl_binlog_sender.cc, sql/sql_repl.cc."""

_UNKNOWN: Final = Rule(Verdict.DATA, "this error is not known to cdcsync: the server's log says more")
_STATUS: Final = {
    Verdict.PERMISSION: ExitStatus.PERMISSION,
    Verdict.OWNERSHIP: ExitStatus.OWNERSHIP,
    Verdict.CONFIG: ExitStatus.CONFIG,
    Verdict.DATA: ExitStatus.DATA,
    Verdict.ROWS: ExitStatus.DATA,
}


def said(number: int, words: str) -> MysqlError:
    """Return the error of a packet that was read without the client library."""
    return pymysql.err.OperationalError(number, words)


def number_of(error: MysqlError) -> int:
    """Return the error number; 0 when the client library gives none."""
    number = error.args[0] if error.args else 0
    return number if isinstance(number, int) else 0


def rule_of(error: MysqlError) -> Rule:
    """Return the table's row for this error."""
    number = number_of(error)
    if number == DUMP_REFUSED:
        words = _words(error).lower()
        return next((rule for part, rule in DUMPS if part in words), _UNKNOWN)
    if number == 0 and isinstance(error, pymysql.err.InterfaceError | pymysql.err.InternalError):
        return _TRANSIENT  # the connection is closed, or its packets are out of order
    return RULES.get(number, _UNKNOWN)


def is_about_rows(error: MysqlError) -> bool:
    """Return whether some of the rows given will never be taken: the sink finds which, and rejects them."""
    return rule_of(error).verdict is Verdict.ROWS


def verdict(error: MysqlError, end: End, doing: str) -> Transient | Fatal:
    """Return what to raise (`from error`) when `doing` failed at this end."""
    rule = rule_of(error)
    message = f"{doing}: {describe(error)}"
    if rule.verdict is Verdict.TRANSIENT:
        return Transient(end, message)
    hint = rule.hint or "the target does not take a row: see the server's log"
    return Fatal(message, hint=hint, status=_STATUS[rule.verdict])


def describe(error: MysqlError) -> str:
    """Return one line on the error that holds no value of a row: these errors quote values."""
    number = number_of(error)
    if is_about_rows(error):
        return f"{_ROW_WORDS.get(number, 'a value or a row that it does not take')} (error {number})"
    text = " ".join(_words(error).split()) or type(error).__name__
    return f"{text} (error {number})" if number else text


_ROW_WORDS: Final[Mapping[int, str]] = {
    **dict.fromkeys((1048, 1263, 1364), "a column without a value"),
    **dict.fromkeys((1062, 1169, 1557, 1586, 1761, 1762, 1859), "a value that is there already in a unique key"),
    **dict.fromkeys((1216, 1217, 1451, 1452), "a foreign key that does not hold"),
    **dict.fromkeys((1264, 1690), "a number out of range"),
    **dict.fromkeys((1265, 1406), "a value that is too long for its column"),
    **dict.fromkeys((1292, 1366, 1367, 1411, 1416), "a value of another form than its column's"),
    **dict.fromkeys((1300, 3854, 3988), "a text that its character set does not have"),
    **dict.fromkeys((1369, 3819, 4025), "a check that fails"),
    1526: "no partition for a row",
    1644: "refused by a trigger",
}


def _words(error: MysqlError) -> str:
    return str(error.args[1] if len(error.args) > 1 else error.args[0] if error.args else "")
