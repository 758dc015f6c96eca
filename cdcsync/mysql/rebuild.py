"""Builds target tables anew beside those that are there. Every statement commits: a step that was done is told by names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cdcsync.change import Step
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.mysql.connection import connect, quoted
from cdcsync.mysql.errors import MysqlError, verdict
from cdcsync.rebuilding import NEW, OLD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.change import Table
    from cdcsync.mysql.config import MysqlSink
    from cdcsync.mysql.connection import Connection
    from cdcsync.ports import SinkContext

NAME_MAX: Final = 64
"""Characters of a name."""
_THERE: Final = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
_BOUND: Final = """
SELECT CONCAT('trigger ', TRIGGER_NAME) FROM information_schema.TRIGGERS
WHERE EVENT_OBJECT_SCHEMA = %s AND EVENT_OBJECT_TABLE = %s
UNION SELECT CONCAT('foreign key ', CONSTRAINT_NAME, ' of ', TABLE_NAME) FROM information_schema.KEY_COLUMN_USAGE
WHERE REFERENCED_TABLE_NAME IS NOT NULL AND ((TABLE_SCHEMA = %s AND TABLE_NAME = %s)
    OR (REFERENCED_TABLE_SCHEMA = %s AND REFERENCED_TABLE_NAME = %s))
"""


def take(connection: Connection, database: str, step: Step, tables: Sequence[Table]) -> None:
    """Take a step for all tables; RENAME TABLE does all of its tables or none. Raises MysqlError."""
    places = [(table.schema or database, table.name) for table in tables]
    if step is Step.BEGIN:
        for place in places:
            _drop(connection, place)
            connection.execute(f"CREATE TABLE {_named(place, NEW)} LIKE {quoted(*place)}")
    elif step is Step.SWAP:
        if all(_is_there(connection, place, NEW) for place in places):
            for place in places:
                connection.execute(f"DROP TABLE IF EXISTS {_named(place, OLD)}")
            _rename(connection, places, OLD, NEW)
    else:
        if step is Step.BACK and all(_is_there(connection, place, OLD) for place in places):
            for place in places:
                connection.execute(f"DROP TABLE IF EXISTS {_named(place, NEW)}")
            _rename(connection, places, NEW, OLD)
        for place in places:
            _drop(connection, place)


def _drop(connection: Connection, place: tuple[str, str]) -> None:
    connection.execute(f"DROP TABLE IF EXISTS {_named(place, NEW)}, {_named(place, OLD)}")


def _rename(connection: Connection, places: Sequence[tuple[str, str]], away: str, here: str) -> None:
    pairs = [
        f"{quoted(*place)} TO {_named(place, away)}, {_named(place, here)} TO {quoted(*place)}" for place in places
    ]
    connection.execute(f"RENAME TABLE {', '.join(pairs)}")


def _named(place: tuple[str, str], ending: str) -> str:
    return quoted(place[0], place[1] + ending)


def _is_there(connection: Connection, place: tuple[str, str], ending: str) -> bool:
    return bool(connection.execute(_THERE, [place[0], place[1] + ending]))


def obstacles(config: MysqlSink, context: SinkContext, tables: Sequence[Table]) -> list[str]:
    """Return what would stay with the table that is there when another takes its place, a line each."""
    with connect(config, purpose=f"cdcsync {context.pipeline}", end=End.SINK, read_write=True) as connection:
        try:
            places = [(table.schema or config.database, table.name) for table in tables]
            return [line for place in places for line in _obstacles(connection, place)]
        except MysqlError as error:
            raise verdict(error, End.SINK, "looking at the target's tables") from error


def _obstacles(connection: Connection, place: tuple[str, str]) -> Iterator[str]:
    name = ".".join(place)
    if len(place[1] + NEW) > NAME_MAX:
        yield f"table {name}: {place[1] + NEW} is longer than {NAME_MAX} characters"
    if not _is_there(connection, place, ""):
        msg = f"target table {name} is not there"
        raise Fatal(msg, hint="start the pipeline again: it creates what is missing", status=ExitStatus.CONFIG)
    for (bound,) in connection.execute(_BOUND, [*place, *place, *place]):
        yield f"table {name}: {bound if isinstance(bound, str) else bytes(bound).decode()}"
