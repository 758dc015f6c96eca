"""Reads rows again by their keys, in a view that sees the transactions whose changes are to be completed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from cdcsync.errors import End, Transient
from cdcsync.postgres.connection import connect
from cdcsync.postgres.copy import filter_of
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.scan import rows_of
from cdcsync.postgres.snapshot import VIEW, parse_view

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cdcsync.change import Row, Table, Transaction
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection
    from cdcsync.postgres.publication import Published

PATIENCE_S: Final = 30.0
"""How long a transaction that is in the log is waited for to become visible."""
LOOK_AGAIN_S: Final = 0.1


class Rereader:
    """One connection, made when it is first needed."""

    def __init__(self, config: PostgresSource, name: str) -> None:
        self._config = config
        self._name = name
        self._connection: Connection | None = None
        self._never = threading.Event()

    def read(
        self, tables: Sequence[Published], table: Table, keys: Sequence[Row], transactions: Sequence[Transaction]
    ) -> list[Row]:
        """Return the rows of these keys, as far as the published tables show them. Raises Transient and Fatal."""
        names = (table.schema, table.name)
        published = next((each for each in tables if (each.info.schema, each.info.name) == names), None)
        if published is None:
            msg = f"rows of {table.qualified} cannot be read again while the source is not open"
            raise Transient(End.SOURCE, msg)
        try:
            connection = self._connected()
            self._open_view(connection, {int(each.id.partition(":")[0]) for each in transactions})
            found = rows_of(connection, published.info.identifier, table, keys, _only(published))
            connection.execute("COMMIT")
        except psycopg.Error as error:
            self.close()
            raise verdict(error, End.SOURCE, f"reading rows of {table.qualified} again") from error
        return found

    def close(self) -> None:
        """Disconnect. Never raises; may be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            several = len(self._config.addresses) > 1
            self._connection = connect(self._config, application_name=f"{self._name} reread", read_write=several)
            self._connection.prepare_threshold = None
        return self._connection

    def _open_view(self, connection: Connection, xids: Collection[int]) -> None:
        """Begin a transaction that sees all of these."""
        for _ in range(int(PATIENCE_S / LOOK_AGAIN_S)):
            connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            row = connection.execute(VIEW).fetchone()
            assert row is not None  # noqa: S101  functions give one row
            view = parse_view(*row)
            if all(map(view.sees, xids)):
                return
            connection.execute("ROLLBACK")
            self._never.wait(LOOK_AGAIN_S)
        msg = f"a row has to be read again, and its transaction is in the log, but not visible for {PATIENCE_S:.0f} s"
        raise Transient(End.SOURCE, msg)


def _only(published: Published) -> sql.Composable:
    """Return what the publication's row filter adds."""
    text = published.row_filter
    return sql.SQL("") if text is None else sql.SQL(" AND {}").format(filter_of(text))
