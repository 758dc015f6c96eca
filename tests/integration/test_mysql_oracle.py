"""Another decoder, mysql-replication, reads the same log: where it is right, it must say the same."""

from __future__ import annotations

import random
import string
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from fix_binlog import Logged
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from cdcsync.change import Operation
from cdcsync.types import Kind

if TYPE_CHECKING:
    from fix_mysql import MysqlDatabase

    from cdcsync.change import Change, Row, Table
    from cdcsync.types import Type

COLUMNS = [
    "a tinyint", "b smallint unsigned", "c mediumint", "d int", "e bigint unsigned", "f decimal(20,5)", "g double",
    "h date", "i datetime", "j datetime(6)", "k timestamp(3) NULL", "l time", "m varchar(40)", "n varchar(300)",
    "o text", "p blob", "q enum('x','y','é')", "r set('u','v','w')", "s char(10)", "t bit(11)",
]  # fmt: skip
"""Without what mysql-replication 1.0.17 gets wrong: the zero bytes of BINARY(n), zero dates, an empty SET, fractions of
negative times, and YEAR, for which it looks for a sign in the log of MySQL, too, where none is."""
ROWS = 300


def neutral(kind: Type, value: Any) -> Any:
    """Their value in our form."""
    if value is None:
        return None
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        zone = "Z" if kind.kind is Kind.TIMESTAMPTZ else ""
        text = value.isoformat()
        return (text.rstrip("0") if "." in text else text) + zone
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        seconds = int(abs(value).total_seconds())
        sign = "-" if value < timedelta() else ""
        return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if isinstance(value, set):
        return tuple(label for label in kind.labels if label in value)
    return value


def theirs(database: MysqlDatabase, file: str, offset: int) -> list[tuple[Operation, Any, Any]]:
    """What mysql-replication reads from there on, as dicts by column."""
    server = database.server
    stream = BinLogStreamReader(
        connection_settings={
            "host": server.host,
            "port": server.port,
            "user": server.user,
            "password": server.password,
        },
        server_id=987_654,
        log_file=file,
        log_pos=offset,
        resume_stream=True,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
        only_schemas=[database.name],
    )
    found: list[tuple[Operation, Any, Any]] = []
    for event in stream:
        for row in event.rows:
            if isinstance(event, UpdateRowsEvent):
                found.append((Operation.UPDATE, row["before_values"], row["after_values"]))
            elif isinstance(event, WriteRowsEvent):
                found.append((Operation.INSERT, None, row["values"]))
            else:
                found.append((Operation.DELETE, row["values"], None))
    stream.close()
    return found


def as_ours(table: Table, values: dict[str, Any] | None) -> Row | None:
    if values is None:
        return None
    return tuple(neutral(column.type, values[column.name]) for column in table.columns)


def row(dice: random.Random) -> list[Any]:
    letters = string.ascii_letters + "é€😀 '\\"
    text = "".join(dice.choices(letters, k=dice.randint(0, 40)))
    moment = datetime(2026, 11, 24) + timedelta(seconds=dice.randint(-(10**9), 3 * 10**8))  # noqa: DTZ001  without zone
    values: list[Any] = [
        dice.randint(-128, 127), dice.randint(0, 65535), dice.randint(-(1 << 23), (1 << 23) - 1),
        dice.randint(-(1 << 31), (1 << 31) - 1), dice.randint(0, (1 << 64) - 1),
        Decimal(dice.randint(-(10**19), 10**19)).scaleb(-5), dice.uniform(-1e9, 1e9), moment.date(), moment,
        moment + timedelta(microseconds=dice.randint(0, 999_999)), moment + timedelta(milliseconds=dice.randint(0, 999)),
        f"{dice.choice('+-')[0].strip('+')}{dice.randint(0, 838)}:{dice.randint(0, 59)}:{dice.randint(0, 58)}",
        text, text * 5, text * 30, text.encode() + b"\0\xff", dice.choice(["x", "y", "é"]),
        dice.choice(["u", "u,w", "u,v,w"]), "".join(dice.choices(string.ascii_letters, k=10)),
        dice.randint(0, (1 << 11) - 1),
    ]  # fmt: skip
    return [None if dice.random() < 0.1 else value for value in values]


@pytest.mark.pure
@pytest.mark.filterwarnings("ignore:.*is deprecated, use:DeprecationWarning")
def test_another_decoder_says_the_same_of_random_rows(each_mysql_database: MysqlDatabase) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    database = each_mysql_database
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(COLUMNS)}) CHARACTER SET utf8mb4")
    logged = Logged(database.server)
    file, offset = database.server.position()
    with database.server.connect(database.name) as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        marks = ", ".join(["%s"] * (len(COLUMNS) + 1))
        for start in range(0, ROWS, 50):
            cursor.executemany(f"INSERT INTO t VALUES ({marks})", [[at, *row(dice)] for at in range(start, start + 50)])
        cursor.execute("UPDATE t SET d = -id, o = CONCAT(COALESCE(o, ''), 'é') WHERE id % 3 = 0")
        cursor.execute("DELETE FROM t WHERE id % 5 = 0")

    ours: list[Change] = logged.changes()

    assert len(ours) == ROWS + ROWS // 3 + ROWS // 5
    want = [
        (operation, as_ours(ours[0].table, before), as_ours(ours[0].table, after))
        for operation, before, after in theirs(database, file, offset)
    ]
    got = [(change.operation, change.before, change.after) for change in ours]
    assert [each[0] for each in got] == [each[0] for each in want]
    different = {
        (ours[0].table.columns[at].name, value, other)
        for one, two in zip(got, want, strict=True)
        for mine, their in zip(one[1:], two[1:], strict=True)
        for at, (value, other) in enumerate(zip(mine or (), their or (), strict=True))
        if value != other
    }
    assert different == set()
