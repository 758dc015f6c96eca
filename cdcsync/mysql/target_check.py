"""What `check` says of a target server: version, tables, grants, durability, foreign keys, each with the SQL that mends it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cdcsync.connectors import Finding, Severity
from cdcsync.errors import End
from cdcsync.mysql.connection import connect, quoted
from cdcsync.mysql.errors import MysqlError, verdict
from cdcsync.mysql.foreign_keys import ForeignKeys
from cdcsync.mysql.server import Flavor
from cdcsync.mysql.target import Target
from cdcsync.positions import NAME as POSITIONS
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdcsync.change import Table
    from cdcsync.mysql.config import MysqlSink
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.target import TargetTable
    from cdcsync.ports import SinkContext

OLDEST: Final = {Flavor.MYSQL: (5, 7, 0), Flavor.MARIADB: (10, 6, 0)}
"""The oldest servers that know all that is asked of them."""
_TO_WRITE: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
_TO_KEEP: Final = ("SELECT", "INSERT", "UPDATE")
_GRANT: Final = re.compile(r"GRANT (?P<what>.+?) ON (?P<where>\S+) TO ")
_PLACE: Final = re.compile(r"(\*|`(?:[^`]|``)*`|[^.`]+)\.(\*|`(?:[^`]|``)*`|[^.`]+)")
_VOLATILE: Final = (
    ("innodb_flush_log_at_trx_commit", "SET GLOBAL innodb_flush_log_at_trx_commit = 1"),
    ("sync_binlog", "SET GLOBAL sync_binlog = 1"),
)


def sink_check(config: MysqlSink, context: SinkContext) -> list[Finding]:
    """Look at the target without changing it."""
    with connect(config, purpose="cdcsync check", end=End.SINK, read_write=True) as connection:
        try:
            return list(_look(connection, config, context))
        except MysqlError as error:
            raise verdict(error, End.SINK, "checking the target") from error


def _look(connection: Connection, config: MysqlSink, context: SinkContext) -> Iterable[Finding]:
    target = Target(connection, config.database)
    grants = Grants.of(connection)
    yield _version(connection)
    yield from _durability(connection)
    yield from _logging(connection, config)
    yield from _positions(connection, config, grants)
    for table in context.tables:
        yield from _table(config, target, table, grants)
    databases = {target.place(table)[0] for table in context.tables}
    for key in ForeignKeys.read(connection, databases).circular():
        message = (
            f"foreign key {key.name} is in a circle, and is checked at every row: no order of writing satisfies it"
        )
        remedy = f"ALTER TABLE {quoted(*key.child)} DROP FOREIGN KEY {quoted(key.name)}"
        yield Finding(Severity.WARNING, f"target table {key.child_name}", message, remedy)


class Grants:
    """What the user may do, as far as SHOW GRANTS says it; a role that is not spelled out may grant more."""

    def __init__(self, user: str, lines: Sequence[str]) -> None:
        self.user = user
        self._open = any("ALL PRIVILEGES ON *.*" in line for line in lines)
        self._given: list[tuple[str, str, frozenset[str]]] = []
        for line in lines:
            found = _GRANT.match(line)
            if found is None:
                self._open = self._open or line.startswith("GRANT `")
                continue
            place = _PLACE.fullmatch(found["where"])
            if place is not None:
                words = frozenset(word.strip().upper() for word in found["what"].split(","))
                self._given.append((_bare(place[1]), _bare(place[2]), words))

    @classmethod
    def of(cls, connection: Connection) -> Grants:
        """Ask the server."""
        ((user,),) = connection.execute("SELECT CURRENT_USER()")
        name, _, host = str(user).rpartition("@")
        lines = [str(row[0]) for row in connection.execute("SHOW GRANTS")]
        return cls(f"{quoted(name)}@{quoted(host)}", lines)

    def lacks(self, wanted: Iterable[str], database: str, table: str) -> list[str]:
        """Return those that are not granted on the table, its database or everything."""
        if self._open:
            return []
        words = {
            word
            for in_database, on_table, given in self._given
            if _covers(in_database, database) and on_table in {"*", table}
            for word in given
        }
        return [] if "ALL PRIVILEGES" in words else [each for each in wanted if each not in words]


def _bare(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _covers(pattern: str, database: str) -> bool:
    """Return whether a grant's database is this one: _ and % are wildcards, unless a backslash is before them."""
    if pattern in {"*", database}:
        return True
    parts = re.split(r"(\\.|[%_])", pattern)
    wild = {"%": ".*", "_": "."}
    regex = "".join(wild.get(part) or re.escape(part.removeprefix("\\")) for part in parts)
    return re.fullmatch(regex, database) is not None


def _version(connection: Connection) -> Finding:
    server = connection.server
    new = server.version >= OLDEST[server.flavor]
    return Finding(Severity.OK if new else Severity.WARNING, "target server", server.title)


def _durability(connection: Connection) -> Iterable[Finding]:
    """A position that a crash of the server takes back is found at the next start, and is an error then."""
    for name, remedy in _VOLATILE:
        rows = connection.execute(f"SHOW GLOBAL VARIABLES LIKE '{name}'")
        if rows and str(rows[0][1]) != "1" and (name != "sync_binlog" or connection.server.is_on("log_bin")):
            message = f"is {rows[0][1]}: a crash of the server can lose what it has committed"
            yield Finding(Severity.WARNING, f"target {name}", message, remedy)


def _logging(connection: Connection, config: MysqlSink) -> Iterable[Finding]:
    server = connection.server
    if server.is_on("log_bin") and server.variable("binlog_format") == "STATEMENT":
        message = f"is STATEMENT: the server refuses to write under isolation {config.isolation.value}"
        yield Finding(Severity.ERROR, "target binlog_format", message, "SET GLOBAL binlog_format = ROW")


def _positions(connection: Connection, config: MysqlSink, grants: Grants) -> Iterable[Finding]:
    subject = f"table {quoted(config.database, POSITIONS)}"
    there = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
    is_there = bool(connection.execute(there, [config.database, POSITIONS]))
    wanted = _TO_KEEP if is_there else ("CREATE", *_TO_KEEP)
    yield from _granted(grants, wanted, config.database, POSITIONS, subject)
    if not is_there:
        yield Finding(Severity.OK, subject, "will be created")


def _table(config: MysqlSink, target: Target, table: Table, grants: Grants) -> Iterable[Finding]:
    database, name = target.place(table)
    subject = f"target table {target.name(table)}"
    there = target.there(table)
    if there is not None:
        yield from _fit(target, table, there, subject)
        yield from _granted(grants, _TO_WRITE, database, name, subject)
        return
    statements = "; ".join(target.statements(table))
    if not config.create_tables:
        yield Finding(Severity.ERROR, subject, "is missing", statements)
        return
    yield from _granted(grants, ("CREATE", *_TO_WRITE), database, name, subject)
    yield Finding(Severity.OK, subject, "is missing and will be created", statements)


def _fit(target: Target, table: Table, there: TargetTable, subject: str) -> Iterable[Finding]:
    lines = target.misfits(table, there)
    for line in lines:
        at = line.find(": ALTER TABLE")
        yield Finding(Severity.ERROR, subject, line[:at] if at >= 0 else line, line[at + 2 :] if at >= 0 else None)
    if lines:
        return
    yield Finding(Severity.OK, subject, "fits")
    for name in table.key:
        column = there.columns[name]
        if not column.is_exact and table.columns[table.at[name]].type.kind is Kind.TEXT:
            message = (
                f"key column {name} has collation {column.collation}: rows whose keys are equal to it are rejected"
            )
            finest = target.dialect.collation
            remedy = (
                f"ALTER TABLE {target.name(table)} MODIFY COLUMN {quoted(name)} {column.declared} "
                f"CHARACTER SET utf8mb4 COLLATE {finest} NOT NULL"
            )
            if column.collation != finest:
                yield Finding(Severity.WARNING, subject, message, remedy)


def _granted(grants: Grants, wanted: Sequence[str], database: str, table: str, subject: str) -> Iterable[Finding]:
    missing = grants.lacks(wanted, database, table)
    if missing:
        words = ", ".join(missing)
        remedy = f"GRANT {words} ON {quoted(database)}.* TO {grants.user}"
        yield Finding(Severity.ERROR, subject, f"{grants.user} lacks {words} on it", remedy)
