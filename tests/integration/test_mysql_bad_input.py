"""Bad input of every kind from MySQL and MariaDB: one clear message with its place, and nothing lost.

The real command runs from a binlog into SQLite. It has to end by itself with the right status, the position not moved;
after the remedy that the message names it goes on, and the target is equal.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from fix_command import Command, stopped
from fix_damage import HEADER, SIZE_AT, TYPE_AT, damaged, last_event
from fix_job import arrived, judged

from cdcsync.mysql.config import MysqlSource, from_url
from cdcsync.mysql.connection import connect
from cdcsync.mysql.stream import Reader, Stream
from cdcsync.testing.faults import Proxy
from cdcsync.testing.mysql_servers import MysqlServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUILDS: Final = ("mysql8", "mariadb10")


@dataclass
class Job:
    """A pipeline from a server of the module's own into SQLite."""

    command: Command
    server: MysqlServer
    start: str = "earliest"
    user: str = ""
    password: str = ""
    port: int = 0
    options: str = ""

    @property
    def path(self) -> str:
        """The pipeline's file, written anew."""
        url = self.server.url("shop", user=self.user, password=self.password, start=self.start) + self.options
        url = url.replace(f":{self.server.port}/", f":{self.port or self.server.port}/")
        return self.command.write(
            f"name: orders\nsource: '{url}'\nsink: 'sqlite:{self.target}'\ntables: [{{from: shop.orders, to: orders}}]\n"
        )

    @property
    def target(self) -> Path:
        return self.command.folder / "target.db"

    def refused(self, status: int, *said: str) -> str:
        """Run; it has to end by itself with one message that says all this, its position where it was."""
        before = self.position()
        message = judged(self.command("run", self.path), status, *said)
        assert before is None or self.position() == before
        return message

    def goes_on(self) -> None:
        """Run until the target is equal."""
        process = self.command.start("run", self.path)
        arrived(process, self.same)
        assert stopped(process)[0] == 0

    def same(self) -> bool:
        """Return whether source and target have the same rows."""
        want = self.server.query("SELECT id, note FROM shop.orders ORDER BY id")
        return self.rows("SELECT id, note FROM orders ORDER BY id") == want

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the target; nothing while it has no such table."""
        try:
            with closing(sqlite3.connect(self.target)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def position(self) -> dict[str, Any] | None:
        """Return the stored position."""
        found = self.rows("SELECT position FROM cdcsync_positions")
        decoded: dict[str, Any] | None = json.loads(found[0][0]) if found and found[0][0] else None
        return decoded

    def add(self, note: str) -> None:
        """Commit one more row."""
        self.server.execute("INSERT INTO shop.orders (note) VALUES (%s)", [note])


@pytest.fixture(scope="module", params=BUILDS)
def own(request: pytest.FixtureRequest) -> Iterator[MysqlServer]:
    """A server whose log and settings are the module's own."""
    server = MysqlServer(request.param).start()
    yield server
    server.stop()


@pytest.fixture
def job(command: Command, own: MysqlServer) -> Job:
    """A pipeline that has carried three rows, over a log that begins with them."""
    own.execute("DROP DATABASE IF EXISTS shop")
    own.execute("RESET MASTER")
    own.execute("CREATE DATABASE shop; CREATE TABLE shop.orders (id int AUTO_INCREMENT PRIMARY KEY, note varchar(40))")
    made = Job(command, own)
    for number in range(3):
        made.add(f"note {number}")
    made.goes_on()
    made.add("after the stop")
    return made


@contextmanager
def setting(server: MysqlServer, name: str, value: str) -> Iterator[None]:
    ((before,),) = server.query(f"SELECT @@GLOBAL.{name}")
    server.execute(f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        server.execute(f"SET GLOBAL {name} = %s", [before])


def test_a_wrong_password_is_said_without_the_password(job: Job) -> None:
    job.password = "not-the-right-one"

    said = job.refused(77, "Access denied", "`password`")

    assert "not-the-right-one" not in said
    job.password = ""
    job.goes_on()


def test_a_certificate_that_does_not_verify_is_refused_with_the_line_to_add(job: Job) -> None:
    job.options = "&ssl-mode=VERIFY_IDENTITY"

    job.refused(77, "certificate", "tls: {mode: verify-full, ca:")

    job.options = f"&ssl-mode=VERIFY_IDENTITY&ssl-ca={job.server.authority}"
    job.goes_on()


def test_a_server_without_a_log_is_refused_and_works_when_it_has_one(job: Job) -> None:
    log = job.server.settings.pop("log_bin")
    job.server.settings["skip_log_bin"] = "ON"
    job.server.restart()
    try:
        job.refused(78, "log_bin", "log_bin = binlog")
    finally:
        del job.server.settings["skip_log_bin"]
        job.server.settings["log_bin"] = log
        job.server.restart()

    job.goes_on()


@pytest.mark.parametrize("form", ["STATEMENT", "MIXED"])
def test_a_log_of_statements_is_refused_before_it_is_read(job: Job, form: str) -> None:
    with setting(job.server, "binlog_format", f"'{form}'"):
        job.refused(78, f"binlog_format is {form}", "binlog_format = 'ROW'")

    job.goes_on()


def test_a_session_that_logs_a_mapped_tables_rows_as_statements_stops_with_the_reason_and_its_place(job: Job) -> None:
    job.goes_on()
    file, offset = job.server.position()
    job.server.execute("SET binlog_format = 'STATEMENT'; UPDATE shop.orders SET note = 'unseen' WHERE id = 2")

    said = job.refused(65, "shop.orders", f"{file}:", "in ")

    assert "unseen" not in said
    assert offset < job.server.position()[1]
    after = ":".join(map(str, job.server.position()))
    assert job.command("positions", "set", "orders.yaml", after).returncode == 0
    job.server.execute("UPDATE shop.orders SET note = 'by row' WHERE id = 2")
    job.goes_on()


def test_a_user_without_the_rights_is_told_the_grants_and_works_when_they_are_given(job: Job) -> None:
    job.server.execute("DROP USER IF EXISTS poor; CREATE USER poor IDENTIFIED BY 'poor'")
    job.server.execute("GRANT SELECT ON shop.* TO poor")
    job.user = job.password = "poor"

    said = job.refused(77, "GRANT REPLICATION SLAVE ON *.* TO 'poor'@'%';")
    checked = job.command("check", job.path)

    assert checked.returncode == 1
    grants = [line[line.index("GRANT ") :] for line in said.splitlines() if "GRANT " in line]
    assert all(grant in checked.stdout for grant in grants)
    for grant in grants:
        job.server.execute(grant)
    job.goes_on()


def test_a_server_id_of_nought_is_refused(job: Job) -> None:
    with setting(job.server, "server_id", "0"):
        if job.server.build.name == "mysql8":
            job.refused(78, "server_id is 0", "server_id = 1")
        else:
            assert job.server.query("SELECT @@server_id") == [(1,)]  # MariaDB takes none of nought

    job.goes_on()


def test_a_server_id_that_the_server_or_another_reader_has_is_refused_and_nobody_is_thrown_out(job: Job) -> None:
    job.options = f"&server_id={job.server.server_id}"
    job.refused(76, f"server_id {job.server.server_id} is taken by the server itself", "`server_id`")
    config = MysqlSource.model_validate({**from_url(job.server.url()), "start": "now"})
    connection = connect(config, purpose="test")
    other = Stream(connection, Reader(4711, "somebody else", 1, 60))
    other.start_at(job.server.binlogs()[-1], 4)
    try:
        job.options = "&server_id=4711"
        job.refused(76, "server_id 4711 is taken by somebody else")
        job.options = ""
        job.goes_on()
        until = time.monotonic() + 2.5
        while time.monotonic() < until:  # a beat a second: it still reads
            if other.read() is None:
                other.wait(0.2)
    finally:
        other.close()


def purge(server: MysqlServer) -> None:
    """Leave the last file alone; MariaDB keeps one until its engine has let go of it, a moment later."""
    server.execute("FLUSH BINARY LOGS")
    for _ in range(200):
        server.execute(f"PURGE BINARY LOGS TO '{server.binlogs()[-1]}'")
        if len(server.binlogs()) == 1:
            return
        time.sleep(0.05)
    pytest.fail(f"not purged: {server.binlogs()}")


def test_a_position_that_was_purged_is_refused_with_what_to_do(job: Job) -> None:
    purge(job.server)

    job.refused(65, "has purged transactions that were not delivered", "cannot be read any more", "cdcsync drop")

    filled_anew(job)


def test_a_retention_shorter_than_the_lag_is_warned_of_and_then_refused(job: Job) -> None:
    with setting(job.server, "binlog_expire_logs_seconds", "1"):
        checked = job.command("check", job.path)
        time.sleep(1.2)
        for _ in range(40):
            job.server.execute("FLUSH BINARY LOGS")
            if job.server.binlogs()[0] != "binlog.000001":
                break
            time.sleep(0.3)

        assert "loses its place" in checked.stdout
        job.refused(65, "cannot be read any more")


def test_a_log_that_was_reset_is_refused(job: Job) -> None:
    job.server.execute("RESET MASTER")

    job.refused(65, "never had these transactions", "reset")

    filled_anew(job)


def filled_anew(job: Job) -> None:
    """Follow the hint: drop, empty the target, fill it anew: here from rows written again."""
    dropped = job.command("drop", job.path, "--yes")
    assert dropped.returncode == 0, dropped.stderr
    with closing(sqlite3.connect(job.target)) as connection:
        connection.execute("DELETE FROM orders")
        connection.commit()
    job.server.execute(
        "CREATE TABLE shop.kept LIKE shop.orders; INSERT INTO shop.kept SELECT * FROM shop.orders; DELETE FROM shop.orders"
    )
    job.server.execute("RESET MASTER")
    job.server.execute("INSERT INTO shop.orders SELECT * FROM shop.kept")
    job.goes_on()


def test_another_server_at_the_same_address_is_refused(job: Job) -> None:
    other = MysqlServer(job.server.build.name).start()
    try:
        other.execute("CREATE DATABASE shop; CREATE TABLE shop.orders (id int PRIMARY KEY, note text)")
        job.port = other.port
        job.refused(65, "never had these transactions", "point `host` at the server that the position came from")
    finally:
        other.stop()

    job.port = 0
    job.goes_on()


def test_a_byte_that_changed_is_found_by_its_checksum(job: Job) -> None:
    event = last_event(job.server, rows_event(job.server))

    def change(data: bytearray) -> None:
        data[-8] ^= 0xFF

    with damaged(job.server, event, change, sealed=False):
        job.refused(65, "checksum", event.file)

    job.goes_on()


def rows_event(server: MysqlServer) -> str:
    return "Write_rows" if server.build.name == "mysql8" else "Write_rows_v1"


def test_an_event_that_says_another_size_stops(job: Job) -> None:
    event = last_event(job.server, rows_event(job.server))

    def change(data: bytearray) -> None:
        data[SIZE_AT : SIZE_AT + 4] = (1 << 20).to_bytes(4, "little")

    job.server.execute("FLUSH BINARY LOGS")  # at the end of the log MariaDB waits for the rest of such an event
    with damaged(job.server, event, change, sealed=False):
        job.refused(65, event.file)

    job.goes_on()


def test_an_event_of_a_type_that_nobody_knows_stops_with_its_place_and_transaction(job: Job) -> None:
    event = last_event(job.server, rows_event(job.server))

    def change(data: bytearray) -> None:
        data[TYPE_AT] = 200

    with damaged(job.server, event, change):
        job.refused(65, "an event of a type that is not known, 200", event.place, gtid_of(job.server))

    job.goes_on()


def gtid_of(server: MysqlServer) -> str:
    """Return the last transaction's."""
    logged = server.logged()
    uuid, _, last = logged.rpartition(":")
    return f"{uuid}:{last.rpartition('-')[2]}" if ":" in logged else logged


@pytest.mark.parametrize("columns", [1, 200])
def test_a_table_map_that_does_not_fit_stops_with_its_place(job: Job, columns: int) -> None:
    event = last_event(job.server, "Table_map")

    def change(data: bytearray) -> None:
        at = HEADER + 8 + 1 + len("shop") + 1 + 1 + len("orders") + 1
        assert data[at] == 2
        data[at] = columns

    with damaged(job.server, event, change):
        job.refused(65, event.file, gtid_of(job.server))

    job.goes_on()


def test_a_text_that_its_character_set_does_not_have_stops_with_column_and_place_but_without_the_text(job: Job) -> None:
    event = last_event(job.server, rows_event(job.server))

    def change(data: bytearray) -> None:
        at = data.index(b"after the stop")
        data[at + 5] = 0xFF

    with damaged(job.server, event, change):
        said = job.refused(65, "shop.orders", "note", event.place, gtid_of(job.server))

    assert "the stop" not in said
    job.goes_on()


def test_a_connection_that_is_cut_within_an_event_is_made_anew_and_nothing_is_lost(job: Job) -> None:
    job.server.execute("ALTER TABLE shop.orders MODIFY note mediumtext")
    job.goes_on()
    with Proxy("127.0.0.1", job.server.port) as proxy:
        job.port = proxy.port
        process = job.command.start("run", job.path)
        arrived(process, job.same)
        for number in range(3):
            proxy.stall()
            job.add("x" * (4 << 20) + str(number))
            proxy.cut()
            proxy.go()
        arrived(process, job.same)
        assert stopped(process)[0] == 0
