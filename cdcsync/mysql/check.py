"""What `cdcsync check` looks at in a source server, with the exact SQL that mends each finding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from cdcsync.addresses import TlsMode
from cdcsync.connectors import Finding, Severity
from cdcsync.errors import CdcsyncError, ExitStatus, Fatal
from cdcsync.mysql import catalogue, grants, logs, readers, retention
from cdcsync.mysql.connection import connect, quoted
from cdcsync.mysql.server import Flavor
from cdcsync.ports import Wanted
from cdcsync.positions import NAME as POSITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.server import Server
    from cdcsync.ports import SourceContext

SYSTEM: Final = ("mysql", "information_schema", "performance_schema", "sys")
"""Databases of the server's own."""

_TABLES: Final = """
SELECT table_schema, table_name, engine, table_type FROM information_schema.tables
WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1, 2
"""
_PRIMARY: Final = """
SELECT DISTINCT table_schema, table_name FROM information_schema.statistics
WHERE index_name = 'PRIMARY' AND table_schema IN %s
"""
_ENGINES: Final = {
    "MyISAM": "keeps no transactions: what a statement wrote stays, and is logged, when it is rolled back",
    "Aria": "keeps no transactions: what a statement wrote stays, and is logged, when it is rolled back",
    "MEMORY": "is empty after the server's restart, which the log says when the table is next used",
    "BLACKHOLE": "keeps nothing: its rows are in the log alone",
    "FEDERATED": "is another server's table: changes made there are not in this log",
    "MRG_MyISAM": "is a view of other tables: changes made to those are theirs in the log",
    "CSV": "keeps no transactions and has no key",
}


class Named(NamedTuple):
    """A table as the catalogue has it."""

    schema: str
    name: str
    engine: str
    is_versioned: bool
    wanted: Wanted

    @property
    def qualified(self) -> str:
        """`database.table`."""
        return f"{self.schema}.{self.name}"


def check(config: MysqlSource, context: SourceContext) -> list[Finding]:
    """Look at everything the source needs; changes nothing. Raises Transient and Fatal when it cannot look."""
    with connect(config, purpose=f"cdcsync check {context.pipeline}") as connection:
        server = connection.server
        found = [Finding(Severity.OK, "server", f"{server.title}, {server.name}"), *_tls(config, connection)]
        found += [*log_findings(server), *_rows(server), *_kept(server), *_history(config, server)]
        tables = _tables(connection, context)
        if not tables:
            message = "the mapping names no table that this user can see"
            found.append(
                Finding(Severity.ERROR, "tables", message, "check `from` in the mapping, and the user's grants")
            )
        found += grants.findings(connection, [(table.schema, table.name) for table in tables])
        if server.is_on("log_bin") and not any(finding.severity is Severity.ERROR for finding in found):
            found += [*_filters(connection, tables), *_reader(connection, config, context)]
        found += [*_keys(connection, tables), *_engines(tables), *circles(connection, tables, context)]
    return found


def refuse(connection: Connection, config: MysqlSource, context: SourceContext) -> None:
    """Raise Fatal for what a start cannot live with, with the SQL that mends it; cheap, for each start."""
    server = connection.server
    _refuse_errors(log_findings(server), ExitStatus.CONFIG)
    _refuse_errors(grants.findings(connection, ()), ExitStatus.PERMISSION)
    _refuse_errors(circles(connection, _tables(connection, context), context), ExitStatus.CONFIG)
    if config.server_id == server.server_id:
        msg = f"server_id {config.server_id} is taken by the server itself ({server.uuid})"
        hint = "give another `server_id` in the section, or none: one is chosen then"
        raise Fatal(msg, hint=hint, status=ExitStatus.OWNERSHIP)


def _refuse_errors(findings: Sequence[Finding], status: ExitStatus) -> None:
    wrong = [finding for finding in findings if finding.severity is Severity.ERROR]
    if wrong:
        msg = "; ".join(f"{finding.subject} {finding.message}" for finding in wrong)
        raise Fatal(
            msg, hint="\n     ".join(finding.remedy or "run `cdcsync check`" for finding in wrong), status=status
        )


def log_findings(server: Server) -> list[Finding]:
    """Judge whether the server has a log that can be read at all."""
    if not server.is_on("log_bin"):
        return [Finding(Severity.ERROR, "log_bin", "is off: the server writes no binlog", logs.NO_LOG_HINT)]
    found = []
    form = server.variable("binlog_format", "ROW").upper()
    if form == "ROW":
        found.append(Finding(Severity.OK, "binlog_format", "ROW"))
    else:
        message = f"is {form}: the log has statements in place of rows"
        remedy = (
            f"{server.lasting('binlog_format', 'ROW')}\n"
            "-- sessions that are open keep the old format until they connect anew"
        )
        found.append(Finding(Severity.ERROR, "binlog_format", message, remedy))
    if server.server_id == 0:
        message = "is 0: such a server lets nobody read its log"
        found.append(Finding(Severity.ERROR, "server_id", message, server.lasting("server_id", "1")))
    if server.is_on("encrypt_binlog"):
        message = "is on: encrypted logs are not read yet"
        remedy = "in the server's configuration: encrypt_binlog = OFF; then restart the server"
        found.append(Finding(Severity.ERROR, "encrypt_binlog", message, remedy))
    return found


def _rows(server: Server) -> list[Finding]:
    """Look at what the log has of a row."""
    found = []
    metadata = server.variable("binlog_row_metadata").upper()
    if metadata == "FULL":
        found.append(Finding(Severity.OK, "binlog_row_metadata", "FULL"))
    elif metadata:
        message = f"is {metadata}: names and types come from the catalogue, and a table altered while the pipeline stood stops it"
        remedy = server.lasting("binlog_row_metadata", "FULL")
        found.append(Finding(Severity.WARNING, "binlog_row_metadata", message, remedy))
    else:
        message = f"{server.title} does not have it: names and types come from the catalogue, and a table altered while the pipeline stood stops it"
        found.append(Finding(Severity.WARNING, "binlog_row_metadata", message))
    image = server.variable("binlog_row_image", "FULL").upper()
    if image != "FULL":
        message = f"is {image}: an update has not the whole row, and targets that need it have to read it again"
        remedy = server.lasting("binlog_row_image", "FULL")
        found.append(Finding(Severity.WARNING, "binlog_row_image", message, remedy))
    if "PARTIAL_JSON" in server.variable("binlog_row_value_options").upper():
        message = "is PARTIAL_JSON: an update has of a document what changed"
        remedy = server.lasting("binlog_row_value_options", "")
        found.append(Finding(Severity.WARNING, "binlog_row_value_options", message, remedy))
    if server.variable("binlog_checksum", "CRC32").upper() == "NONE":
        message = "is NONE: a damaged event may go unnoticed"
        remedy = server.lasting("binlog_checksum", "CRC32")
        found.append(Finding(Severity.WARNING, "binlog_checksum", message, remedy))
    return found


def _kept(server: Server) -> list[Finding]:
    """Look at how long the log is kept, and whether it outlives a crash."""
    found = retention.findings(server)
    if server.variable("sync_binlog", "1") != "1":
        message = "is not 1: after a crash of its machine the server may have lost what was delivered"
        found.append(Finding(Severity.WARNING, "sync_binlog", message, server.lasting("sync_binlog", "1")))
    return found


def _history(config: MysqlSource, server: Server) -> list[Finding]:
    """Look at whether another server can go on where this one ends."""
    several = len(config.addresses) > 1
    found = []
    if not server.has_gtids:
        severity = Severity.ERROR if several else Severity.WARNING
        message = (
            f"is {server.variable('gtid_mode') or 'not there'}: after a failover no other server can be read on from"
        )
        remedy = "SET GLOBAL enforce_gtid_consistency = ON;\n" + "\n".join(
            f"SET GLOBAL gtid_mode = {step};" for step in ("OFF_PERMISSIVE", "ON_PERMISSIVE", "ON")
        )
        found.append(Finding(severity, "gtid_mode", message, remedy))
    elif server.flavor is Flavor.MARIADB and not server.is_on("gtid_strict_mode"):
        message = "is off: a replica may log transactions in another order than its primary"
        remedy = server.lasting("gtid_strict_mode", "ON")
        found.append(Finding(Severity.WARNING if several else Severity.OK, "gtid_strict_mode", message, remedy))
    return found


def _filters(connection: Connection, tables: Sequence[Named]) -> list[Finding]:
    """Find mapped tables whose changes the server does not log."""
    found = []
    status = connection.named("looking at what is logged", connection.server.status_query)
    row = {name.lower(): str(value or "") for name, value in (status[0] if status else {}).items()}
    only = {name for name in row.get("binlog_do_db", "").split(",") if name}
    never = {name for name in row.get("binlog_ignore_db", "").split(",") if name}
    for schema in sorted({table.schema for table in tables}):
        if (only and schema not in only) or schema in never:
            message = "its changes are not logged: binlog_do_db or binlog_ignore_db leaves it out"
            remedy = "remove that line from the server's configuration, and restart it"
            found.append(Finding(Severity.ERROR, f"database {schema}", message, remedy))
    name = next(
        (name for name in ("log_replica_updates", "log_slave_updates") if name in connection.server.variables), ""
    )
    if name and not connection.server.is_on(name):
        replica = connection.named("looking whether it is a replica", connection.server.replica_query)
        if replica:
            message = "is off: the changes that this replica gets from its primary are not in its log"
            remedy = f"in the server's configuration: {name} = ON; then restart the server"
            found.append(Finding(Severity.ERROR, name, message, remedy))
    return found


def _reader(connection: Connection, config: MysqlSource, context: SourceContext) -> list[Finding]:
    """Look which number we would read with."""
    try:
        number = readers.choose(connection, config, context)
    except CdcsyncError as error:
        hint = error.hint if isinstance(error, Fatal) else None
        return [Finding(Severity.ERROR, "server_id", str(error.args[0]), hint)]
    return [Finding(Severity.OK, "server_id", f"{number} is free for this pipeline")]


def _tls(config: MysqlSource, connection: Connection) -> list[Finding]:
    if not connection.is_encrypted:
        severity = Severity.OK if connection.address.is_local else Severity.WARNING
        return [
            Finding(
                severity, "tls", "the connection is not encrypted", None if connection.address.is_local else _VERIFY
            )
        ]
    if config.tls_mode in {TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL}:
        return [Finding(Severity.OK, "tls", "encrypted, the server is verified")]
    severity = Severity.OK if connection.address.is_local else Severity.WARNING
    return [Finding(severity, "tls", "encrypted, but anybody could be the server", _VERIFY)]


_VERIFY: Final = "tls: {mode: verify-full, ca: /path/to/ca.pem}"


def _tables(connection: Connection, context: SourceContext) -> list[Named]:
    """Return the tables that the mapping takes, as far as we may see them."""
    found = []
    for schema, name, engine, kind in connection.ask("looking at the tables", _TABLES):
        wanted = context.selection.wants(schema, name) if schema not in SYSTEM else None
        if wanted is not None:
            found.append(Named(schema, name, engine or "", kind == "SYSTEM VERSIONED", wanted))
    return found


def _keys(connection: Connection, tables: Sequence[Named]) -> list[Finding]:
    schemas = sorted({table.schema for table in tables})
    keyed = set(connection.ask("looking at the keys", _PRIMARY, [schemas])) if schemas else set()
    found = []
    for table in tables:
        if table.wanted is not Wanted.KEYED or (table.schema, table.name) in keyed:
            continue
        if not catalogue.unique_key(connection, table.schema, table.name):
            message = "has no primary key to tell rows apart by"
            remedy = (
                f"ALTER TABLE {quoted(table.schema, table.name)} ADD PRIMARY KEY (...);"
                "  -- or `key: [..]` or `key: none` in the mapping"
            )
            found.append(Finding(Severity.WARNING, f"table {table.qualified}", message, remedy))
    return found


def _engines(tables: Sequence[Named]) -> list[Finding]:
    found = []
    for table in tables:
        if table.engine in _ENGINES:
            message = f"its engine, {table.engine}, {_ENGINES[table.engine]}"
            remedy = f"ALTER TABLE {quoted(table.schema, table.name)} ENGINE = InnoDB;"
            found.append(Finding(Severity.WARNING, f"table {table.qualified}", message, remedy))
        if table.is_versioned:
            message = "is system-versioned: the rows of its history are in the log among the others"
            found.append(Finding(Severity.WARNING, f"table {table.qualified}", message))
    return found


def circles(connection: Connection, tables: Sequence[Named], context: SourceContext) -> list[Finding]:
    """Find pipelines that write into these tables from where this one writes to: changes would run for ever.

    One without a position never ran, or was dropped: being refused once is not to stop the other for good.
    """
    ours = {table.qualified for table in tables}
    where = "SELECT table_schema FROM information_schema.tables WHERE table_name = %s AND table_type = 'BASE TABLE'"
    found: list[Finding] = []
    for (schema,) in connection.ask("looking for other pipelines", where, [POSITIONS]):
        query = f"SELECT pipeline, source, tables FROM {quoted(schema, POSITIONS)} WHERE position IS NOT NULL"  # noqa: S608
        if not grants.may(connection, query):
            continue
        for pipeline, source, written in connection.ask("looking for other pipelines", query):
            names = {name if "." in name else f"{schema}.{name}" for name in json.loads(written)}
            both = sorted(ours & names)
            if both and source and source == context.sink:
                message = f"pipeline {pipeline} writes it from {source}, which is this pipeline's target: a circle"
                remedy = "leave the table out of one of the two mappings"
                found.append(Finding(Severity.ERROR, f"tables {', '.join(both)}", message, remedy))
    return found
