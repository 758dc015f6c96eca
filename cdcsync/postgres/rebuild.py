"""Builds target tables anew beside those that are there; all of a step is done in the transaction that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, LiteralString

import psycopg
from psycopg import sql

from cdcsync.change import Step
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import verdict
from cdcsync.rebuilding import NEW, OLD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.change import Table
    from cdcsync.ports import SinkContext
    from cdcsync.postgres.config import PostgresSink
    from cdcsync.postgres.connection import Connection

NAME_MAX: Final = 63
"""Bytes of a name (NAMEDATALEN - 1)."""
LOCK_TIMEOUT: Final = "3s"
"""How long readers of a table may be waited for; who comes after waits behind us as long."""

_BOUND: Final = """
SELECT 'view ' || r.ev_class::regclass FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s::regclass
    AND r.ev_class <> d.refobjid
UNION SELECT 'rule ' || rulename FROM pg_catalog.pg_rewrite WHERE ev_class = %(table)s::regclass
UNION SELECT 'foreign key ' || conname || ' of ' || conrelid::regclass FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND %(table)s::regclass IN (conrelid, confrelid)
UNION SELECT 'trigger ' || tgname FROM pg_catalog.pg_trigger WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal
UNION SELECT 'policy ' || polname FROM pg_catalog.pg_policy WHERE polrelid = %(table)s::regclass
UNION SELECT 'publication ' || pubname FROM pg_catalog.pg_publication_rel r
JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = %(table)s::regclass
UNION SELECT 'inheritance or partitioning' FROM pg_catalog.pg_inherits
WHERE %(table)s::regclass IN (inhrelid, inhparent)
UNION SELECT 'partitioning' FROM pg_catalog.pg_class WHERE oid = %(table)s::regclass AND relkind <> 'r'
ORDER BY 1
"""
_GRANTS: Final = """
SELECT format('GRANT %%s ON %%s TO %%s%%s', privilege_type, %(new)s::text,
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(grantee)) END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_catalog.pg_class, pg_catalog.aclexplode(relacl)
WHERE oid = %(table)s::regclass AND grantee <> relowner
"""
_SEQUENCES: Final = """
SELECT d.objid::regclass::text, a.attname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attribute a
ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
    AND d.refobjid = to_regclass(%s)
"""


def take(connection: Connection, schema: str, step: Step, tables: Sequence[Table]) -> None:
    """Take a step for all tables. Raises what psycopg raises."""
    connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
    for table in tables:
        names = _Names(connection, table.schema or schema, table.name)
        _STEPS[step](names)


class _Names:
    """One table and what stands beside it."""

    def __init__(self, connection: Connection, schema: str, name: str) -> None:
        self._connection = connection
        self._schema = schema
        self.there = name
        self.new = name + NEW
        self.old = name + OLD

    def place(self, name: str) -> sql.Identifier:
        return sql.Identifier(self._schema, name)

    def text(self, name: str) -> str:
        return self.place(name).as_string(self._connection)

    def begin(self) -> None:
        self.end()
        self._run("CREATE TABLE {} (LIKE {} INCLUDING ALL)", self.place(self.new), self.place(self.there))
        values = {"new": self.text(self.new), "table": self.text(self.there)}
        for (grant,) in self._connection.execute(_GRANTS, values).fetchall():
            self._connection.execute(grant.encode())

    def swap(self) -> None:
        self._run("DROP TABLE IF EXISTS {}", self.place(self.old))
        self._rename(self.there, self.old)
        self._rename(self.new, self.there)

    def back(self) -> None:
        self._rename(self.there, self.new)
        self._rename(self.old, self.there)
        self.end()

    def end(self) -> None:
        """A sequence that an old column owns goes on with the column that is there."""
        for name in (self.old, self.new):
            for sequence, column in self._connection.execute(_SEQUENCES, [self.text(name)]).fetchall():
                owner = sql.Identifier(self._schema, self.there, column)
                self._connection.execute(sql.SQL("ALTER SEQUENCE {} OWNED BY {}").format(sql.SQL(sequence), owner))
            self._run("DROP TABLE IF EXISTS {}", self.place(name))

    def _rename(self, name: str, to: str) -> None:
        self._run("ALTER TABLE {} RENAME TO {}", self.place(name), sql.Identifier(to))

    def _run(self, text: LiteralString, *names: sql.Identifier) -> None:
        self._connection.execute(sql.SQL(text).format(*names))


_STEPS: Final = {
    Step.BEGIN: _Names.begin,
    Step.SWAP: _Names.swap,
    Step.BACK: _Names.back,
    Step.END: _Names.end,
}


def obstacles(config: PostgresSink, context: SinkContext, tables: Sequence[Table]) -> list[str]:
    """Return what would stay with the table that is there when another takes its place, a line each."""
    with connect(config, application_name=f"cdcsync {context.pipeline} check", end=End.SINK, read_write=True) as found:
        try:
            return [line for table in tables for line in _obstacles(found, table.schema or config.schema_, table.name)]
        except psycopg.Error as error:
            raise verdict(error, End.SINK, "looking at the target's tables") from error


def _obstacles(connection: Connection, schema: str, name: str) -> Iterator[str]:
    if len((name + NEW).encode()) > NAME_MAX:
        yield f"table {schema}.{name}: {name + NEW} is longer than {NAME_MAX} bytes"
        return
    table = sql.Identifier(schema, name).as_string(connection)
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        msg = f"target table {schema}.{name} is not there"
        raise Fatal(msg, hint="start the pipeline again: it creates what is missing", status=ExitStatus.CONFIG)
    for (bound,) in connection.execute(_BOUND, {"table": table}).fetchall():
        yield f"table {schema}.{name}: {bound}"
