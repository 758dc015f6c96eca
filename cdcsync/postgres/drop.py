"""Removes what a pipeline keeps at its source server: slots and the publications that cdcsync made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from cdcsync.errors import End
from cdcsync.postgres import retain
from cdcsync.postgres import slot as slots
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.publication import INSERTS, MARK, describe

if TYPE_CHECKING:
    from cdcsync.ports import SourceContext
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection


def drop(config: PostgresSource, context: SourceContext) -> list[str]:
    """Remove slots and own publications; return a line for each, and for what is left. Raises Transient, Fatal.

    The slot goes first: while somebody reads it, nothing is removed.
    """
    done: list[str] = []
    with connect(config, application_name=f"cdcsync drop {context.pipeline}", read_write=True) as connection:
        for name in (config.slot_of(context.pipeline), retain.slot_of(config, context.pipeline)):
            done += _drop_slot(connection, name, config.database)
        done += drop_publications(connection, config, context)
    return done


def drop_publications(connection: Connection, config: PostgresSource, context: SourceContext) -> list[str]:
    """Remove the publications that were made for this pipeline; return a line for each. Raises Transient, Fatal."""
    done: list[str] = []
    main = config.publication_of(context.pipeline)
    for name, fields in describe(connection, (main, main + INSERTS)).items():
        if fields["mark"] != MARK + context.pipeline:
            done.append(f"publication {name} left: it was not made for this pipeline")
            continue
        try:
            connection.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise verdict(error, End.SOURCE, f"dropping publication {name}") from error
        done.append(f"publication {name} removed")
    return done


def _drop_slot(connection: Connection, name: str, database: str) -> list[str]:
    slot = slots.find(connection, name)
    if slot is None:
        return []
    if slot.plugin != slots.PLUGIN or slot.database != database:
        return [f"slot {name} left: it is of {slot.plugin or slot.type}, database {slot.database or 'none'}"]
    slots.drop(connection, name)
    return [f"slot {name} removed"]
