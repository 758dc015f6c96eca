"""What `check` says of a target server: version, tables, grants, foreign keys, each with the SQL that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg

from cdcsync.connectors import Finding, Severity
from cdcsync.errors import End
from cdcsync.positions import NAME as POSITIONS
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.foreign_keys import ForeignKeys
from cdcsync.postgres.target import Target
from cdcsync.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdcsync.change import Table
    from cdcsync.ports import SinkContext
    from cdcsync.postgres.config import PostgresSink
    from cdcsync.postgres.connection import Connection

OLDEST: Final = 15
"""The oldest server that the tests run on."""
_TO_WRITE: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
_TO_KEEP: Final = ("SELECT", "INSERT", "UPDATE")
_SCHEMA: Final = """
SELECT quote_ident(current_user), quote_ident(current_database()), n.oid IS NOT NULL,
       coalesce(has_schema_privilege(n.oid, 'USAGE'), false), coalesce(has_schema_privilege(n.oid, 'CREATE'), false),
       has_database_privilege(current_database(), 'CREATE')
FROM (SELECT %s::text AS wanted) w LEFT JOIN pg_namespace n ON n.nspname = w.wanted
"""
_GRANTED: Final = "SELECT p FROM unnest(%s::text[]) AS p WHERE NOT has_table_privilege(to_regclass(%s), p)"


def sink_check(config: PostgresSink, context: SinkContext) -> list[Finding]:
    """Look at the target without changing it."""
    with connect(config, application_name="cdcsync check", end=End.SINK, read_write=True) as connection:
        target = Target(connection, config.schema_)
        try:
            return [
                _version(connection),
                *_schemas(connection, config, context.tables),
                *_positions(connection, config),
                *[found for table in context.tables for found in _table(connection, config, target, table)],
                *[_circular(key.child_name, key.name) for key in ForeignKeys.read(connection).circular()],
            ]
        except psycopg.Error as error:
            raise verdict(error, End.SINK, "checking the target") from error


def _version(connection: Connection) -> Finding:
    version = connection.info.server_version // 10000
    severity = Severity.OK if version >= OLDEST else Severity.WARNING
    return Finding(severity, "target server", f"PostgreSQL {version}")


def _schemas(connection: Connection, config: PostgresSink, tables: Iterable[Table]) -> list[Finding]:
    """Look at every schema: it is entered, and created or created in where a table is missing."""
    findings: list[Finding] = []
    for schema in dict.fromkeys([config.schema_, *[table.schema or config.schema_ for table in tables]]):
        subject = f"target schema {schema}"
        user, database, exists, usage, _, makes = _rights(connection, schema)
        if not exists and not makes:
            remedy = f"CREATE SCHEMA {quote(schema)} AUTHORIZATION {user}"
            findings.append(
                Finding(Severity.ERROR, subject, f"is missing, and {user} may not create it in {database}", remedy)
            )
        elif exists and not usage:
            remedy = f"GRANT USAGE ON SCHEMA {quote(schema)} TO {user}"
            findings.append(Finding(Severity.ERROR, subject, f"{user} may not use it", remedy))
    return findings


def _rights(connection: Connection, schema: str) -> Sequence[object]:
    """Return user, database, whether the schema exists, is usable, takes tables, and whether one may be made."""
    row = connection.execute(_SCHEMA, [schema]).fetchone()
    assert row is not None  # noqa: S101  a left join with one row
    return row


def _positions(connection: Connection, config: PostgresSink) -> list[Finding]:
    user, _, exists, usage, creates, makes = _rights(connection, config.schema_)
    name = f"{quote(config.schema_)}.{POSITIONS}"
    subject = f"table {name}"
    if not usage if exists else not makes:
        return []
    if _is_there(connection, name):
        return _grants(connection, name, subject, _TO_KEEP)
    if exists and not creates:
        remedy = f"GRANT CREATE ON SCHEMA {quote(config.schema_)} TO {user}"
        return [Finding(Severity.ERROR, subject, f"is missing, and {user} may not create it", remedy)]
    return [Finding(Severity.OK, subject, "will be created")]


def _table(connection: Connection, config: PostgresSink, target: Target, table: Table) -> list[Finding]:
    schema = table.schema or config.schema_
    user, _, exists, usage, creates, makes = _rights(connection, schema)
    if not usage if exists else not makes:
        return []
    name = target.name(table)
    subject = f"target table {name}"
    columns = target.columns(table)
    if columns:
        return [*_fit(target, table, subject), *_grants(connection, name, subject, _TO_WRITE)]
    statements = "; ".join(target.statements(table))
    if not config.create_tables:
        return [Finding(Severity.ERROR, subject, "is missing", statements)]
    if exists and not creates:
        remedy = f"GRANT CREATE ON SCHEMA {quote(schema)} TO {user}"
        return [Finding(Severity.ERROR, subject, f"is missing, and {user} may not create it", remedy)]
    return [Finding(Severity.OK, subject, "is missing and will be created", statements)]


def _fit(target: Target, table: Table, subject: str) -> list[Finding]:
    lines = target.misfits(table, target.columns(table))
    if not lines:
        return [Finding(Severity.OK, subject, "fits")]
    return [Finding(Severity.ERROR, subject, line.partition(": ALTER")[0], _statement(line)) for line in lines]


def _statement(line: str) -> str | None:
    at = line.find("ALTER TABLE")
    return line[at:] if at >= 0 else None


def _grants(connection: Connection, name: str, subject: str, wanted: Sequence[str]) -> list[Finding]:
    missing = [row[0] for row in connection.execute(_GRANTED, [list(wanted), name]).fetchall()]
    if not missing:
        return []
    user = _rights(connection, "")[0]
    words = ", ".join(missing)
    return [Finding(Severity.ERROR, subject, f"{user} lacks {words} on it", f"GRANT {words} ON {name} TO {user}")]


def _is_there(connection: Connection, name: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone()
    return row is not None and bool(row[0])


def _circular(child: str, name: str) -> Finding:
    remedy = f"ALTER TABLE {child} ALTER CONSTRAINT {quote(name)} DEFERRABLE"
    message = f"foreign key {name} is in a circle and not deferrable: no order of writing satisfies it"
    return Finding(Severity.WARNING, f"target table {child}", message, remedy)
