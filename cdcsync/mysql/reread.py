"""Reads rows again by their keys, in a view that sees the transactions whose changes are to be completed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from cdcsync.change import PLACE_BITS
from cdcsync.errors import End, Fatal, Transient
from cdcsync.mysql import catalogue
from cdcsync.mysql.connection import connect_to
from cdcsync.mysql.errors import MysqlError, verdict
from cdcsync.mysql.position import MysqlPosition
from cdcsync.mysql.scan import KEYS_MAX
from cdcsync.mysql.select import SelectedRows, expressions
from cdcsync.mysql.statements import Plan
from cdcsync.mysql.target import Target
from cdcsync.mysql.view import Logged, opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.addresses import Host
    from cdcsync.change import Row, Table, Transaction
    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.connection import Connection

PATIENCE_S: Final = 30.0
"""How long a transaction that is in the log is waited for to become visible."""
LOOK_AGAIN_S: Final = 0.1
_PLACE: Final = (1 << PLACE_BITS) - 1


class Rereader:
    """One session at the server whose log is read, made when it is first needed."""

    def __init__(self, config: MysqlSource, name: str) -> None:
        self._config = config
        self._name = name
        self._connection: Connection | None = None
        self._never = threading.Event()

    def read(
        self, address: Host | None, table: Table, keys: Sequence[Row], transactions: Sequence[Transaction]
    ) -> list[Row]:
        """Return the rows of these keys as they are at the server at `address`. Raises Transient and Fatal."""
        doing = f"reading rows of {table.qualified} again"
        if address is None:
            msg = f"{doing}: the source is not open"
            raise Transient(End.SOURCE, msg)
        try:
            connection = self._connected(address)
            _refuse_another(connection, transactions)
            self._open_view(connection, [Logged(each.version & _PLACE, each.id) for each in transactions])
            refuse_altered(connection, table)
            rows = rows_of(connection, self._config, table, keys)
            connection.execute("COMMIT")
        except MysqlError as error:
            self.close()
            raise verdict(error, End.SOURCE, doing) from error
        except (Transient, Fatal):
            self.close()
            raise
        return rows

    def close(self) -> None:
        """Disconnect. Never raises; may be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self, address: Host) -> Connection:
        if self._connection is not None and self._connection.address != address:
            self.close()
        if self._connection is None:
            self._connection = connect_to(address, self._config, purpose=f"{self._name} reread")
        return self._connection

    def _open_view(self, connection: Connection, transactions: Sequence[Logged]) -> None:
        """Begin a transaction that sees all of these."""
        for _ in range(int(PATIENCE_S / LOOK_AGAIN_S)):
            view = opened(connection)
            if all(map(view.sees, transactions)):
                return
            connection.execute("ROLLBACK")
            self._never.wait(LOOK_AGAIN_S)
        msg = f"a row has to be read again, and its transaction is in the log, but not visible for {PATIENCE_S:.0f} s"
        raise Transient(End.SOURCE, msg)


def refuse_altered(connection: Connection, table: Table) -> None:
    """Raise Fatal unless the server's table has all columns of this version, of the same types."""
    now = catalogue.table(connection, table.schema, table.name)
    if now is None:
        what = "is gone"
    else:
        types = {column.name: column.type for column in now.columns}
        others = [column.name for column in table.columns if types.get(column.name) != column.type]
        if not others:
            return
        what = f"was altered since then ({', '.join(others)})"
    msg = f"rows of {table.qualified} have to be read again, as the log does not have them whole, and the table {what}"
    raise Fatal(msg, hint="SET GLOBAL binlog_row_image = 'FULL' at the source, and fill the target table anew")


def _refuse_another(connection: Connection, transactions: Sequence[Transaction]) -> None:
    """Places say nothing at another server than the one that they are of."""
    for each in transactions:
        assert isinstance(each.position, MysqlPosition)  # noqa: S101  this system's own
        if each.position.server != connection.server.uuid:
            msg = f"rows have to be read again, and the server is now {connection.server.uuid}"
            raise Transient(End.SOURCE, msg)


def rows_of(connection: Connection, config: MysqlSource, table: Table, keys: Sequence[Row]) -> list[Row]:
    """Return the rows of these keys in the open view. Raises MysqlError."""
    target = Target(connection, config.database or "")
    there = target.there(table)
    if there is None:
        return []
    plan, read = Plan(table, target.name(table), there, 1 << 20), SelectedRows(table, config.zero_dates).row
    select = f"SELECT {', '.join(expressions(table))} FROM {plan.name} WHERE "  # noqa: S608  quoted
    rows: list[Row] = []
    for first in range(0, len(keys), KEYS_MAX):
        some = keys[first : first + KEYS_MAX]
        rows += [read(answer) for answer in connection.execute(select + plan.among(some))]
    return rows
