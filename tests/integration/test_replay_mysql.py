"""Replay and undo from MySQL and MariaDB: damaged on purpose, mended and delivered again, row by row."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from fix_command import stopped
from fix_job import arrived
from fix_mysql import drop_mysql_database, make_mysql_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_command import Command
    from fix_mysql import MysqlDatabase

    from cdcsync.testing.mysql_servers import MysqlServer

TEXT, EXACT = "HEX({})", "{}"
COLUMNS: list[tuple[str, str, str]] = [
    ("tinyint", "-128", EXACT),
    ("bigint unsigned", "18446744073709551615", EXACT),
    ("decimal(65,30)", "-12345678901234567890123456789012345.123456789012345678901234567890", EXACT),
    ("float", "0.1", "{} * 1e0"),
    ("float", "3.4e38", "{} * 1e0"),
    ("double", "-1.7976931348623157e308", EXACT),
    ("bit(64)", "b'1000000000000000000000000000000000000000000000000000000000000001'", TEXT),
    ("year", "0", "{} + 0"),
    ("date", "'0000-00-00'", "CAST({} AS CHAR)"),
    ("time(6)", "'-838:59:58.000001'", "CAST({} AS CHAR)"),
    ("datetime(6)", "'9999-12-31 23:59:59.999999'", "CAST({} AS CHAR)"),
    ("timestamp(3) NULL", "'2026-11-24 10:00:00.125'", "CAST({} AS CHAR)"),
    ("char(5)", "'ab'", TEXT),
    ("varchar(20)", "'a '", TEXT),
    ("varchar(20) CHARACTER SET latin1", "'é''\\\\'", TEXT),
    ("text CHARACTER SET utf8mb4", "'😀\\n\\0\\\\ '' -- ; %s'", TEXT),
    ("binary(4)", "X'00FF00'", TEXT),
    ("varbinary(4)", "X''", TEXT),
    ("blob", "X'00275C0A'", TEXT),
    ("enum('a','b,c')", "'b,c'", "{} + 0"),
    ("set('a','b')", "'a,b'", "{} + 0"),
    ("point", "ST_GeomFromText('POINT(1 -2)', 4326)", TEXT),
    ("json", '\'{"b": [1.5, "é\\\\n"], "a": null}\'', "HEX(CAST({} AS CHAR))"),
]
NAMES = [f"c{at}" for at in range(len(COLUMNS))]


@dataclass
class KeptMysql:
    """A pipeline from a database of a MySQL or MariaDB into SQLite, and the command that runs it."""

    command: Command
    source: MysqlDatabase
    sink: str = "sqlite:out.db"

    @property
    def path(self) -> str:
        """The pipeline's file, written anew."""
        server = self.source.server
        return self.command.write(
            f"name: orders\nsource: {{mysql: {{host: {server.host}, port: {server.port}, user: {server.user}, "
            f"password: '{server.password}', start: now, zero_dates: 'null'}}}}\n"
            f"sink: '{self.sink}'\ntables: [{{from: {self.source.name}.*}}]\nheartbeat: 300ms\n"
        )

    def run(self) -> None:
        """Run until all that is committed now is stored."""
        process = self.command.start("run", self.path)
        end = self.end()
        arrived(process, lambda: reached(self.command.status(), end))
        assert stopped(process)[0] == 0

    def end(self) -> tuple[str, int]:
        """Where the log is now."""
        ((file, offset, *_),) = self.source.query("SHOW MASTER STATUS")
        return str(file), int(offset)

    def place(self) -> str:
        """The same as a word."""
        file, offset = self.end()
        return f"{file}:{offset}"

    def time(self) -> str:
        """What time it is at the server, in the next whole second: some logs know no fraction."""
        time.sleep(1.1)
        ((now,),) = self.source.query("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%dT%TZ')")
        time.sleep(1.1)
        return str(now)

    def rows(self, table: str = "t") -> list[tuple[Any, ...]]:
        """Every row, to the byte where a value is text."""
        told = {name: form.format(name) for name, (_, _, form) in zip(NAMES, COLUMNS, strict=True)}
        columns = self.source.query(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s "
            "ORDER BY ordinal_position",
            [self.source.name, table],
        )
        listed = ", ".join(told.get(name, name) for (name,) in columns)
        return self.source.query(f"SELECT {listed} FROM {table} ORDER BY 1")


def reached(got: dict[str, object], end: tuple[str, int]) -> bool:
    """Return whether the stored position has come so far."""
    if got.get("state") != "running" or not got.get("position"):
        return False
    position = json.loads(str(got["position"]))
    return (str(position["file"]), int(position["offset"])) >= end


@pytest.fixture(params=["mysql8", "mariadb10", "mariadb11"])
def kept(request: pytest.FixtureRequest, command: Command) -> Iterator[KeptMysql]:
    """The pipeline on every server in turn."""
    server: MysqlServer = request.getfixturevalue(request.param)
    database = make_mysql_database(server)
    yield KeptMysql(command, database)
    for process in command.started:
        process.kill()
        process.communicate()
    drop_mysql_database(database)


def script(kept: KeptMysql, start: str, form: str, *more: str, status: int = 0) -> str:
    """Return what `tail` writes from a place on."""
    got = kept.command("tail", kept.path, "--from", start, "--format", form, *more)
    assert got.returncode == status, got.stderr
    return got.stdout


def files(kept: KeptMysql, table: str = "t") -> list[tuple[Any, ...]]:
    """Return a table of the SQLite file."""
    with closing(sqlite3.connect(kept.command.folder / "out.db")) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


def prepare(kept: KeptMysql) -> None:
    columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in zip(NAMES, COLUMNS, strict=True))
    kept.source.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns}) CHARACTER SET utf8mb4")


def insert(kept: KeptMysql, identity: int) -> None:
    values = ", ".join(value for _, value, _ in COLUMNS)
    kept.source.execute(
        f"SET sql_mode = '', time_zone = '+00:00'; INSERT INTO t VALUES ({identity}, {values});"
        f"INSERT INTO t (id) VALUES ({identity + 1})"
    )


def test_every_type_is_mended_and_done_again_to_the_byte(kept: KeptMysql) -> None:
    prepare(kept)
    for identity in (1, 3, 5):
        insert(kept, identity)
    before, start = kept.rows(), kept.place()

    kept.source.execute("DELETE FROM t WHERE id IN (1, 2)")
    kept.source.execute("UPDATE t SET id = id + 100 WHERE id IN (3, 4) ORDER BY id DESC")
    emptied = ", ".join(f"{name} = NULL" for name in NAMES)
    kept.source.execute(f"UPDATE t SET {emptied} WHERE id = 5")
    insert(kept, 7)
    after = kept.rows()
    undo, redo = script(kept, start, "undo-sql"), script(kept, start, "sql", "--to", kept.place())
    kept.source.execute(undo)
    mended = kept.rows()
    kept.source.execute(redo)

    assert mended == before
    assert kept.rows() == after
    assert before != after


def test_a_column_that_the_server_sets_in_an_update_is_mended_too(kept: KeptMysql) -> None:
    kept.source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, note text, at timestamp(6) DEFAULT CURRENT_TIMESTAMP(6) "
        "ON UPDATE CURRENT_TIMESTAMP(6), s int AS (id * 2) STORED);"
        "INSERT INTO t (id, note) VALUES (1, 'a'), (2, 'b')"
    )
    before, start = kept.rows(), kept.place()

    kept.source.execute("UPDATE t SET note = 'x', at = at WHERE id = 1; UPDATE t SET note = 'y' WHERE id = 2")
    kept.source.execute(script(kept, start, "undo-sql"))

    assert kept.rows() == before


def test_an_update_without_where_and_keys_that_moved_are_mended(kept: KeptMysql) -> None:
    kept.source.execute("CREATE TABLE t (id int PRIMARY KEY, note varchar(20) UNIQUE, price decimal(9,2))")
    values = ", ".join(f"({at}, 'note {at}', {at}.50)" for at in range(1, 3001))
    kept.source.execute(f"INSERT INTO t VALUES {values}")
    before, start = kept.rows(), kept.place()

    kept.source.execute("UPDATE t SET price = 0; DELETE FROM t WHERE id % 3 = 0")
    kept.source.execute("UPDATE t SET id = id + 1 ORDER BY id DESC; INSERT INTO t VALUES (1, 'new', 1)")
    kept.source.execute(script(kept, start, "undo-sql"))

    assert kept.rows() == before


def test_one_of_several_equal_rows_of_a_table_without_a_key_is_mended(kept: KeptMysql) -> None:
    kept.source.execute(
        "CREATE TABLE t (a varchar(9), b float, c blob); INSERT INTO t VALUES ('x', 0.1, NULL), ('X', 0.1, X'00'),"
        "('x ', 0.1, NULL), ('x', 0.1, NULL)"
    )
    query = "SELECT HEX(a), b * 1e0, HEX(c), count(*) FROM t GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    before, start = kept.source.query(query), kept.place()

    kept.source.execute("DELETE FROM t WHERE BINARY a = 'x' LIMIT 1; UPDATE t SET b = 0.7 WHERE BINARY a <> 'x'")
    kept.source.execute("DELETE FROM t WHERE BINARY a = 'x' LIMIT 1; INSERT INTO t VALUES ('x', 0.1, NULL)")
    kept.source.execute(script(kept, start, "undo-sql"))

    assert kept.source.query(query) == before


def test_rows_of_which_a_minimal_image_lacks_the_old_values_are_named(kept: KeptMysql) -> None:
    kept.source.execute("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    start = kept.place()

    kept.source.execute(
        "SET binlog_row_image = MINIMAL; UPDATE t SET note = 'x' WHERE id = 1; DELETE FROM t WHERE id = 2;"
        "INSERT INTO t VALUES (3, 'c')"
    )
    undo = script(kept, start, "undo-sql", status=65)

    lacking = [line for line in undo.splitlines() if line.startswith("-- LACKING")]
    assert [line.split()[2] for line in lacking] == ["delete", "update"]
    assert all("SET GLOBAL binlog_row_image = FULL" in line for line in lacking)
    assert "WHERE `id` = 3;" in undo


def traffic(kept: KeptMysql) -> tuple[str, str]:
    """Change rows in transactions that are known; return where they begin and end."""
    start = kept.place()
    kept.source.execute("UPDATE t SET note = 'a' WHERE id <= 3")
    kept.source.execute("BEGIN; INSERT INTO t VALUES (100, 'b'), (101, 'c'); INSERT INTO u VALUES (1); COMMIT")
    kept.source.execute("DELETE FROM t WHERE id = 20")
    return start, kept.place()


SHOP = "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE u (id int PRIMARY KEY)"
FILL = "INSERT INTO t VALUES " + ", ".join(f"({at}, 'note {at}')" for at in range(1, 21))


def plan(kept: KeptMysql, *words: str) -> dict[str, Any]:
    """Return what a dry run says."""
    got = kept.command("replay", kept.path, *words, "--dry-run", "--json")
    assert got.returncode == 0, got.stderr
    told: dict[str, Any] = json.loads(got.stdout)
    return told


def test_a_dry_run_counts_what_lies_between_by_place_gtid_and_time(kept: KeptMysql) -> None:
    kept.source.execute("FLUSH BINARY LOGS")
    kept.source.execute(f"PURGE BINARY LOGS TO '{kept.end()[0]}'")
    kept.source.execute(SHOP)
    kept.run()
    kept.source.execute(FILL)
    first = kept.time()
    gtids = gtid(kept)
    start, end = traffic(kept)
    after = gtid(kept)
    last = kept.time()
    kept.source.execute("DELETE FROM t WHERE id = 1")
    kept.source.execute("FLUSH BINARY LOGS")

    wanted = {f"{kept.source.name}.t": {"update": 3, "insert": 2, "delete": 1}, f"{kept.source.name}.u": {"insert": 1}}
    for begin, until in ((start, end), (first, last), (gtids, after)):
        told = plan(kept, "--from", begin, "--to", until, "--sink", "stdout:")
        assert (told["transactions"], told["tables"]) == (3, wanted), (begin, until)
    assert "the server has it from" in plan(kept, "--from", "earliest", "--sink", "stdout:")["log"]


def test_a_position_of_a_server_that_was_replaced_is_found_by_its_gtids(kept: KeptMysql) -> None:
    kept.source.execute(SHOP)
    kept.source.execute(FILL)
    kept.run()
    traffic(kept)
    position = json.loads(kept.command("positions", "show", kept.path).stdout)
    elsewhere = {**position, "server": "00000000-0000-0000-0000-000000000001", "file": "other.000099", "offset": 4}

    told = plan(kept, "--from", json.dumps(elsewhere), "--sink", "stdout:")

    assert (told["transactions"], told["rows"]) == (3, 7)
    assert json.loads(told["from"])["file"] == kept.end()[0]


def gtid(kept: KeptMysql) -> str:
    """Return what is committed now as GTIDs."""
    maria = "maria" in str(kept.source.query("SELECT VERSION()")[0][0]).lower()
    ((text,),) = kept.source.query("SELECT @@gtid_binlog_pos" if maria else "SELECT @@gtid_executed")
    return str(text).replace("\n", "")


def test_a_target_that_was_damaged_is_right_again_after_the_pipeline_went_back(kept: KeptMysql) -> None:
    kept.source.execute(SHOP)
    kept.run()
    kept.source.execute(FILL)
    start, _ = traffic(kept)
    kept.run()
    with closing(sqlite3.connect(kept.command.folder / "out.db")) as connection:
        connection.executescript(
            "UPDATE t SET note = 'spoilt' WHERE id <= 3; DELETE FROM t WHERE id = 100; DELETE FROM u"
        )
    before = json.loads(kept.command("positions", "show", kept.path).stdout)

    got = kept.command("replay", kept.path, "--from", start, "--rewind", "--yes")
    then = json.loads(kept.command("positions", "show", kept.path).stdout)
    for wait_s in (0.7, 0.9):
        process = kept.command.start("run", kept.path)
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    kept.source.execute("INSERT INTO u VALUES (2)")
    kept.run()

    assert got.returncode == 0, got.stderr
    assert (f"{then['file']}:{then['offset']}", then["epoch"]) == (start, before["epoch"])
    assert files(kept) == kept.source.query("SELECT * FROM t ORDER BY 1")
    assert files(kept, "u") == [(1,), (2,)]


def test_a_stretch_as_logged_goes_to_another_sink_and_the_pipeline_stays(kept: KeptMysql) -> None:
    kept.source.execute(SHOP)
    kept.run()
    kept.source.execute(FILL)
    start, end = traffic(kept)
    before = kept.command("positions", "show", kept.path).stdout
    process = kept.command.start("run", kept.path)
    kept.command.wait(lambda got: got.get("state") == "running")
    other = kept.command.folder / "again.jsonl"

    got = kept.command("replay", kept.path, "--from", start, "--to", end, "--sink", f"jsonl:{other}", "--yes")
    stopped(process)

    assert got.returncode == 0, got.stderr
    lines = [json.loads(line) for line in other.read_text().splitlines()]
    assert [(line["operation"], line["key"]["id"]) for line in lines] == [
        ("update", 1),
        ("update", 2),
        ("update", 3),
        ("insert", 100),
        ("insert", 101),
        ("insert", 1),
        ("delete", 20),
    ]
    assert "delivered: 3 transactions, 7 changes" in got.stderr
    assert before


def test_replays_that_cannot_be_are_refused_by_name(kept: KeptMysql) -> None:
    kept.source.execute(SHOP)
    kept.run()
    kept.source.execute(FILL)
    start, _ = traffic(kept)
    kept.run()
    position = kept.command("positions", "show", kept.path).stdout.strip()
    file = kept.end()[0]

    for status, said, *words in (
        (78, "lies in the future", "--from", f"{file}:999999999", "--rewind"),
        (78, "has no file", "--from", f"{file[:-6]}999999:4", "--rewind"),
        (78, "lies in the future", "--from", "2100-01-01T00:00:00Z", "--rewind"),
        (78, "is not before the stored position", "--from", position, "--rewind"),
        (78, "is not after `--from`", "--from", start, "--to", start, "--sink", "stdout:"),
        (78, "not a place in a binlog", "--from", "16/B374D848", "--rewind"),
    ):
        got = kept.command("replay", kept.path, *words, "--yes")
        assert (got.returncode, "Traceback" in got.stderr) == (status, False), got.stderr
        assert said in got.stderr
    assert kept.command("positions", "show", kept.path).stdout.strip() == position


def test_a_position_is_set_by_a_place_and_by_a_time(kept: KeptMysql) -> None:
    kept.source.execute(SHOP)
    kept.run()
    kept.source.execute(FILL)
    at = kept.time()
    start, _ = traffic(kept)
    kept.run()

    by_place, by_time = (kept.command("positions", "set", kept.path, word) for word in (start, at))
    with closing(sqlite3.connect(kept.command.folder / "out.db")) as connection:
        connection.executescript("DELETE FROM u")
    kept.run()

    assert (by_place.returncode, by_time.returncode) == (0, 0), by_place.stderr + by_time.stderr
    places = [json.loads(got.stdout) for got in (by_place, by_time)]
    assert places[1]["epoch"] == places[0]["epoch"] + 1
    assert f"{places[0]['file']}:{places[0]['offset']}" == start
    assert files(kept, "u") == [(1,)]
