"""What the user of a source may do at its server: tried, not read from tables that he may not see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cdcsync.connectors import Finding, Severity
from cdcsync.mysql.connection import quoted
from cdcsync.mysql.errors import MysqlError, Verdict, rule_of, verdict
from cdcsync.mysql.server import Flavor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.mysql.connection import Connection

DUMPS: Final = ("REPLICATION SLAVE", "ALL PRIVILEGES")


def findings(connection: Connection, tables: Sequence[tuple[str, str]]) -> list[Finding]:
    """Return an error with the GRANT for each right that is missing. Raises Transient and Fatal when it cannot look."""
    user = _account(connection)
    found = [
        Finding(Severity.ERROR, f"user {user}", f"may not {what}", f"GRANT {right} ON *.* TO {user};")
        for right, what in _missing(connection)
    ]
    for schema, name in tables:
        table = quoted(schema, name)
        if not may(connection, f"SELECT 1 FROM {table} LIMIT 0"):  # noqa: S608  quoted
            remedy = f"GRANT SELECT ON {table} TO {user};"
            found.append(Finding(Severity.ERROR, f"table {schema}.{name}", "may not be read", remedy))
    return found or [Finding(Severity.OK, f"user {user}", "may read the log and the tables")]


def _missing(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield the global rights that are missing, and what each is for."""
    server = connection.server
    is_mariadb = server.flavor is Flavor.MARIADB
    if not any(reads_log(line) for (line,) in connection.ask("looking at the grants", _granted(connection))):
        yield "REPLICATION SLAVE", "read the log (REPLICATION SLAVE)"
    if server.is_on("log_bin") and not may(connection, server.status_query):
        right = "BINLOG MONITOR" if is_mariadb and server.version >= (10, 5, 2) else "REPLICATION CLIENT"
        yield right, f"see where the log ends ({right})"
    if is_mariadb and not may(connection, server.readers_query):
        right = "REPLICATION MASTER ADMIN" if server.version >= (10, 5, 2) else "REPLICATION SLAVE"
        yield right, f"see who else reads the log ({right})"


def _granted(connection: Connection) -> str:
    """Return the statement that shows the rights in force, those of active roles too where the server tells them apart."""
    if connection.server.flavor is Flavor.MYSQL and connection.server.version >= (8, 0, 0):
        ((roles,),) = connection.ask("looking at the roles", "SELECT CURRENT_ROLE()")
        if roles != "NONE":
            return f"SHOW GRANTS FOR CURRENT_USER() USING {roles}"
    return "SHOW GRANTS"


def reads_log(line: str) -> bool:
    """Return whether one line of SHOW GRANTS lets its user read the log; REPLICATION SLAVE ADMIN does not."""
    rights, _, rest = line.removeprefix("GRANT ").partition(" ON ")
    return rest.startswith("*.*") and any(right.strip() in DUMPS for right in rights.split(","))


def may(connection: Connection, query: str) -> bool:
    """Return whether the server lets us run a query. Raises Transient and Fatal for other errors than that."""
    try:
        connection.execute(query)
    except MysqlError as error:
        if rule_of(error).verdict is Verdict.PERMISSION:
            return False
        raise verdict(error, connection.end, "looking at the grants") from error
    return True


def _account(connection: Connection) -> str:
    """Return the account that we are, as GRANT takes it."""
    ((text,),) = connection.ask("looking who we are", "SELECT CURRENT_USER()")
    name, _, host = text.rpartition("@")
    return "@".join("'" + part.replace("'", "''") + "'" for part in (name, host))
