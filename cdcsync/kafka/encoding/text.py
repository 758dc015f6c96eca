"""A value as it is: the column `value` alone is the record's value, and `_key` its key, where the mapping makes none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cdcsync.change import UNCHANGED
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.kafka.encoding.modes import Unfit
from cdcsync.kafka.encoding.rows import Rows
from cdcsync.types import Kind

if TYPE_CHECKING:
    from cdcsync.change import Change, Row, Table, Transaction
    from cdcsync.kafka.encoding.modes import Modes
    from cdcsync.kafka.encoding.records import Encoded

VALUE: Final = "value"
KEY: Final = "_key"
_TEXTS: Final = frozenset({Kind.TEXT, Kind.JSON, Kind.BYTES})


class TextTable:
    """Writes the values of one table version."""

    def __init__(self, table: Table, modes: Modes) -> None:
        """Raise Fatal when the table has no column of that name that is a text."""
        at = table.at.get(VALUE)
        if at is None or table.columns[at].type.kind not in _TEXTS:
            msg = f"table {table.qualified} has no column `{VALUE}` that is text, json or bytes"
            hint = "make one under `columns` in the mapping, or choose another `format`"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
        self._at = at
        self._rows = Rows.of(table, modes) if table.message_key else None
        self._key_at = table.at.get(KEY)

    def encode(self, change: Change, _transaction: Transaction, _now_us: int) -> list[Encoded]:
        """Return the one record of an insert. Raises Unfit for what is none."""
        row = change.after
        if change.before is not None or row is None:
            raise Unfit("a text cannot say that a row was changed or deleted: choose another `format`")
        value = row[self._at]
        if value is UNCHANGED:
            raise Unfit("the value was not carried")
        return [(self._key(row), value if isinstance(value, bytes) or value is None else value.encode())]

    def _key(self, row: Row) -> bytes | None:
        if self._rows is not None:
            return self._rows.key_bytes(row)
        key = None if self._key_at is None else row[self._key_at]
        return None if key is None or key is UNCHANGED else str(key).encode()
