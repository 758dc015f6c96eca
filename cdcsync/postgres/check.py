"""What `cdcsync check` looks at in a source server, with the exact SQL that mends each finding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from cdcsync.connectors import Finding, Severity
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.ports import Wanted
from cdcsync.positions import NAME as POSITIONS
from cdcsync.postgres import retain, told
from cdcsync.postgres import slot as slots
from cdcsync.postgres.catalogue import Catalogue
from cdcsync.postgres.config import PublicationMode
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.publication import covering, describe, refusals, select
from cdcsync.postgres.types import column_type
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.ports import SourceContext
    from cdcsync.postgres.catalogue import TableInfo
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection

_ROOM: Final = """
SELECT current_setting('wal_level'), pg_catalog.pg_is_in_recovery(),
       current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_catalog.pg_replication_slots)::int,
       current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_catalog.pg_stat_replication)::int,
       (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
       has_database_privilege(current_database(), 'CREATE'), current_user::text, current_database()::text,
       current_setting('max_slot_wal_keep_size')
"""

_GRANTS: Final = """
SELECT c.oid::int8, has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(c.relnamespace, 'USAGE'),
       pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner)::text
FROM pg_catalog.pg_class c WHERE c.oid = ANY(%s::int8[]::oid[])
"""


def check(config: PostgresSource, context: SourceContext) -> list[Finding]:
    """Look at everything the source needs; changes nothing. Raises Transient and Fatal when it cannot look."""
    with connect(config, application_name=f"cdcsync check {context.pipeline}") as connection:
        catalogue = Catalogue(connection)
        tables = select(catalogue, context.selection, config.partitions)
        server = _row(connection, _ROOM)
        findings = _server(server)
        findings += _slots(connection, config, context, room=server[2])
        if not tables:
            message = f"the mapping names no table of database {config.database}"
            return [*findings, Finding(Severity.ERROR, "tables", message, "check `from` in the mapping")]
        findings += _grants(connection, server, [table for table, _ in tables], config, context)
        findings += [
            Finding(Severity.ERROR, f"table {refused.subject}", refused.message, refused.remedy)
            for refused in refusals(tables, connection.info.server_version)
        ]
        findings += _keys(tables)
        findings += _types(catalogue, [table for table, _ in tables])
        findings += _publication(connection, tables, config, context)
        findings += circles(connection, [table for table, _ in tables], context)
        findings.append(_tells(connection))
    return findings


def _tells(connection: Connection) -> Finding:
    """Say whether dropped tables and renamed columns are told of; the log alone shows neither."""
    subject = f"event trigger {told.NAME}"
    if told.is_there(connection):
        return Finding(Severity.OK, subject, "tells of dropped tables and renamed columns")
    message = (
        "is not there: a renamed column shows in the log as one dropped and one added, a dropped table not at all; "
        "a superuser may make it"
    )
    return Finding(Severity.OK, subject, message, told.INSTALL)


def circles(connection: Connection, tables: Sequence[TableInfo], context: SourceContext) -> list[Finding]:
    """Find pipelines that write into these tables from where this one writes to: changes would run for ever.

    One without a position never ran, or was dropped: being refused once is not to stop the other for good.
    """
    writers = _rows(
        connection,
        "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relname = %s AND c.relkind = 'r' AND has_table_privilege(c.oid, 'SELECT')",
        [POSITIONS],
    )
    ours = {table.qualified for table in tables}
    found: list[Finding] = []
    for (schema,) in writers:
        query = sql.SQL("SELECT pipeline, source, tables FROM {} WHERE position IS NOT NULL").format(
            sql.Identifier(schema, POSITIONS)
        )
        for pipeline, source, written in _rows(connection, query, []):
            names = {name if "." in name else f"{schema}.{name}" for name in json.loads(written)}
            both = sorted(ours & names)
            if both and source and source == context.sink:
                message = f"pipeline {pipeline} writes it from {source}, which is this pipeline's target: a circle"
                remedy = "leave the table out of one of the two mappings"
                found.append(Finding(Severity.ERROR, f"tables {', '.join(both)}", message, remedy))
    return found


def refuse_circles(connection: Connection, tables: Sequence[TableInfo], context: SourceContext) -> None:
    """Raise Fatal when `circles` finds one; for a start."""
    for finding in circles(connection, tables, context):
        msg = f"{finding.subject}: {finding.message}"
        raise Fatal(msg, hint=finding.remedy or "", status=ExitStatus.CONFIG)


def _server(server: tuple[Any, ...]) -> list[Finding]:
    wal_level, standby, _, senders, may_replicate, _, _, user, _, keep = server
    found = []
    if wal_level == "logical":
        found.append(Finding(Severity.OK, "wal_level", "logical"))
    else:
        remedy = "ALTER SYSTEM SET wal_level = logical;  -- then restart the server"
        found.append(Finding(Severity.ERROR, "wal_level", f"is {wal_level}, has to be logical", remedy))
    if standby:
        message = "this server is a standby: slots and publications are made at the primary"
        found.append(Finding(Severity.ERROR, "server", message, "name the primary with `host`, or all with `hosts`"))
    if senders < 1:
        remedy = "ALTER SYSTEM SET max_wal_senders = 20;  -- then restart the server"
        found.append(Finding(Severity.ERROR, "max_wal_senders", "none is free", remedy))
    if not may_replicate:
        remedy = f"ALTER ROLE {sql.Identifier(user).as_string()} REPLICATION;"
        found.append(Finding(Severity.ERROR, f"user {user}", "may not replicate", remedy))
    if keep == "-1":
        message = "is not set: a pipeline that stands still lets the WAL grow until the disk is full"
        remedy = "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();"
        found.append(Finding(Severity.WARNING, "max_slot_wal_keep_size", message, remedy))
    return found


def _slots(connection: Connection, config: PostgresSource, context: SourceContext, *, room: int) -> list[Finding]:
    name = config.slot_of(context.pipeline)
    slot = slots.find(connection, name)
    missing = int(slot is None)
    if config.retain is not None:
        missing += int(slots.find(connection, retain.slot_of(config, context.pipeline)) is None)
    found = []
    if missing > room:
        remedy = "ALTER SYSTEM SET max_replication_slots = 20;  -- then restart the server"
        message = f"{max(room, 0)} slot(s) free, {missing} needed"
        found.append(Finding(Severity.ERROR, "max_replication_slots", message, remedy))
    if slot is None:
        return [*found, Finding(Severity.OK, f"slot {name}", "will be made at the first start")]
    try:
        slots.check_form(slot, config.database)
    except Fatal as fatal:
        return [*found, Finding(Severity.ERROR, f"slot {name}", fatal.args[0], fatal.hint)]
    state = f"read by process {slot.active_pid}" if slot.active_pid else "not being read"
    return [*found, Finding(Severity.OK, f"slot {name}", f"{state}, WAL {slot.wal_status}")]


def _grants(
    connection: Connection,
    server: tuple[Any, ...],
    tables: Sequence[TableInfo],
    config: PostgresSource,
    context: SourceContext,
) -> list[Finding]:
    user, database = (sql.Identifier(name).as_string() for name in server[7:9])
    found = []
    rows = {row[0]: row[1:] for row in _rows(connection, _GRANTS, [[table.oid for table in tables]])}
    makes = config.publication.mode is not PublicationMode.EXISTING and not describe(
        connection, [config.publication_of(context.pipeline)]
    )
    if makes and not server[6]:
        remedy = f"GRANT CREATE ON DATABASE {database} TO {user};"
        found.append(Finding(Severity.ERROR, f"database {server[8]}", "no publication may be made", remedy))
    if makes and config.publication.mode is PublicationMode.ALL_TABLES and not server[5]:
        message = "only a superuser may make a publication of all tables"
        found.append(Finding(Severity.ERROR, f"user {server[7]}", message, "publication: {mode: filtered}"))
    for table in tables:
        readable, owned, owner = rows[table.oid]
        name = table.identifier.as_string()
        if not readable:
            schema = sql.Identifier(table.schema).as_string()
            remedy = f"GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT SELECT ON {name} TO {user};"
            found.append(Finding(Severity.ERROR, f"table {table.qualified}", "may not be read", remedy))
        if makes and not owned:
            remedy = f"GRANT {sql.Identifier(owner).as_string()} TO {user};  -- or let the owner make the publication"
            message = "only its owner may publish it"
            found.append(Finding(Severity.ERROR, f"table {table.qualified}", message, remedy))
    return found


def _keys(tables: Sequence[tuple[TableInfo, Wanted]]) -> list[Finding]:
    found = []
    for table, wanted in tables:
        if wanted is Wanted.KEYED and table.has_identity and not table.key:
            name = table.identifier.as_string()
            message = "has no key to tell rows apart by (its replica identity is FULL)"
            remedy = f"ALTER TABLE {name} ADD PRIMARY KEY (...);  -- or `key: [..]` or `key: none` in the mapping"
            found.append(Finding(Severity.WARNING, f"table {table.qualified}", message, remedy))
    return found


def _types(catalogue: Catalogue, tables: Sequence[TableInfo]) -> list[Finding]:
    """Name what goes through as PostgreSQL's own text."""
    types = catalogue.types({column.type for table in tables for column in table.columns})
    found = []
    for table in tables:
        opaque = [
            f"{column.name} {shown.name}"
            for column in table.columns
            if (shown := _innermost(column_type(column.type, column.modifier, types))).kind is Kind.OPAQUE
        ]
        if opaque:
            message = f"as PostgreSQL's own text: {', '.join(opaque)}"
            found.append(Finding(Severity.OK, f"table {table.qualified}", message))
    return found


def _innermost(shown: Type) -> Type:
    while shown.element is not None:
        shown = shown.element
    return shown


def _publication(
    connection: Connection, tables: Sequence[tuple[TableInfo, Wanted]], config: PostgresSource, context: SourceContext
) -> list[Finding]:
    name = config.publication_of(context.pipeline)
    exists = bool(describe(connection, [name]))
    if not exists and config.publication.mode is not PublicationMode.EXISTING:
        return [Finding(Severity.OK, f"publication {name}", "will be made at the first start")]
    main = [(table, wanted) for table, wanted in tables if table.has_identity] if exists else list(tables)
    try:
        covering(connection, [name], main, config)
    except Fatal as fatal:
        return [Finding(Severity.ERROR, f"publication {name}", fatal.args[0], fatal.hint)]
    return [Finding(Severity.OK, f"publication {name}", f"covers {len(main)} table(s)")]


def _row(connection: Connection, query: str) -> tuple[Any, ...]:
    return _rows(connection, query, [])[0]


def _rows(connection: Connection, query: str | sql.Composed, params: list[object]) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query.encode() if isinstance(query, str) else query, params).fetchall()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "looking at the source") from error
