"""What an event trigger of the source tells of tables: dropped, and with renamed columns. The log alone shows neither.

The trigger writes a logical message into the log, in the transaction of the statement. It is the operator's to make, as a
superuser; `cdcsync check` prints its SQL.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import psycopg

from cdcsync.change import SchemaChange, Table
from cdcsync.errors import End, Fatal
from cdcsync.evolution import renaming
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.groups import PREFIX
from cdcsync.postgres.publication import Published

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cdcsync.change import Item
    from cdcsync.ports import Selection
    from cdcsync.postgres.catalogue import Catalogue
    from cdcsync.postgres.connection import Connection

NAME: Final = "cdcsync_ddl"
INSTALL: Final = f"""\
CREATE OR REPLACE FUNCTION {NAME}() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE each record;
BEGIN
  IF tg_event = 'sql_drop' THEN
    FOR each IN SELECT * FROM pg_event_trigger_dropped_objects() WHERE object_type = 'table' AND NOT is_temporary LOOP
      PERFORM pg_logical_emit_message(true, '{PREFIX}', json_build_object(
        'schema', each.schema_name, 'table', each.object_name, 'statement', current_query())::text);
    END LOOP;
  ELSE
    FOR each IN SELECT c.relname, n.nspname, a.attname FROM pg_event_trigger_ddl_commands() d
        JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = d.objid AND a.attnum = d.objsubid
        WHERE d.object_type = 'table column' LOOP
      PERFORM pg_logical_emit_message(true, '{PREFIX}', json_build_object('schema', each.nspname,
        'table', each.relname, 'column', each.attname, 'statement', current_query())::text);
    END LOOP;
  END IF;
END $$;
CREATE EVENT TRIGGER {NAME} ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION {NAME}();
CREATE EVENT TRIGGER {NAME}_drop ON sql_drop EXECUTE FUNCTION {NAME}();"""  # noqa: S608  constants
_NAME: Final = r'("(?:[^"]|"")+"|[^\s";,]+)'
_RENAME: Final = re.compile(rf"\bRENAME\s+(?:COLUMN\s+)?{_NAME}\s+TO\s+{_NAME}", re.IGNORECASE)


def is_there(connection: Connection) -> bool:
    """Return whether the database has the trigger. Raises Transient and Fatal."""
    query = "SELECT 1 FROM pg_catalog.pg_event_trigger WHERE evtname = %s AND evtenabled <> 'D'"
    try:
        return connection.execute(query, [NAME]).fetchone() is not None
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "looking for the event trigger") from error


class Told:
    """Turns the trigger's messages into schema changes of wanted tables."""

    def __init__(self, catalogue: Catalogue, selection: Selection, known: Callable[[str, str], Table | None]) -> None:
        self._catalogue = catalogue
        self._selection = selection
        self._known = known
        """The table of a schema and name as the log showed it last."""

    def items(self, content: bytes) -> list[Item]:
        """Return what a message says. Raises Fatal where it is none of the trigger's."""
        try:
            said: dict[str, Any] = json.loads(content)
            schema, name, statement = said["schema"], said["table"], said["statement"]
        except (ValueError, KeyError, TypeError) as error:
            msg = f"a logical message {PREFIX} is none that the event trigger {NAME} writes"
            raise Fatal(msg, hint=f"write messages of your own under another prefix than {PREFIX}") from error
        if self._selection.wants(schema, name) is None:
            return []
        table = self._known(schema, name)
        if "column" not in said:
            return [SchemaChange(table or Table(schema, name, ()), None, statement)]
        table = table or self._now(schema, name)
        old = old_name(statement, said["column"])
        made = renaming(table, ((old, said["column"]),)) if table is not None and old is not None else None
        return [] if made is None else [SchemaChange(made[0], made[1], statement, made[2])]

    def _now(self, schema: str, name: str) -> Table | None:
        """Return the table as the catalogue has it."""
        oids = [each.oid for each in self._catalogue.names() if (each.schema, each.name) == (schema, name)]
        wanted = self._selection.wants(schema, name)
        for info in self._catalogue.tables(oids):
            types = self._catalogue.types(column.type for column in info.columns)
            if wanted is not None:
                return Published(info, wanted, info.columns).table(types)
        return None


def old_name(statement: str, new: str) -> str | None:
    """Return what a statement renames to that name; None where its words do not say."""
    pairs = [(_plain(match[1]), _plain(match[2])) for match in _RENAME.finditer(statement)]
    return next((old for old, other in pairs if other == new), None)


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
