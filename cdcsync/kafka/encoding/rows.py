"""How the rows of one table version become objects."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from cdcsync.change import UNCHANGED
from cdcsync.kafka.encoding.modes import Unfit
from cdcsync.kafka.encoding.values import form_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Column, Row, Table
    from cdcsync.kafka.encoding.modes import Modes
    from cdcsync.kafka.encoding.values import Form

_missing: Final = UNCHANGED
_dumps: Final = orjson.dumps


class Partial(ValueError):  # noqa: N818  a finding about one row
    """A row lacks values that the format cannot leave out."""


class Rows:
    """Writes the rows of one table version; columns that are the message's key alone are no part of a row."""

    def __init__(self, table: Table, forms: Sequence[Form]) -> None:
        """`forms` says how each column of the table is written."""
        self.table = table
        self.forms = list(forms)
        self._every = [column.name for column in table.columns]
        self._text = len(table.message_key) == 1 and "." not in table.message_key[0]
        """The key is a text, and no object."""
        apart = frozenset(table.message_key)
        self.shown = [at for at, name in enumerate(self._every) if name not in apart]
        """The columns of a row."""
        self.key_at = list(table.message_key_at or table.key_at)
        self.key_names = [self._every[at].partition(".")[2] if apart else self._every[at] for at in self.key_at]
        rest = [at for at in range(len(self._every)) if at not in self.key_at]
        self._rest = itemgetter(*rest) if rest else None
        """Picks the columns beside the key."""
        self._no_rest = (_missing,) * len(rest) if len(rest) > 1 else _missing
        """What it gives of a row whose key alone was carried."""
        self._names = [self._every[at] for at in self.shown]
        self._converters = [form.convert for form in self.forms]

    @classmethod
    def of(cls, table: Table, modes: Modes) -> Self:
        """Return how Debezium's handling modes have them written."""
        return cls(table, [form_of(column, modes) for column in table.columns])

    @property
    def columns(self) -> list[tuple[Column, Form]]:
        """The columns of a row, with their forms."""
        return [(self.table.columns[at], self.forms[at]) for at in self.shown]

    @property
    def text_key(self) -> bool:
        """Whether the key is a text, and no object."""
        return self._text

    def whole(self, row: Row) -> dict[str, Any] | None:
        """Return the object of a whole row; None when a value was not carried. Raises Unfit."""
        return self._made(row, self.shown, self._names)

    def keyed(self, row: Row) -> dict[str, Any] | None:
        """Return the object of its key, in the same way."""
        return self._made(row, self.key_at, self.key_names)

    def _made(self, row: Row, columns: list[int], names: list[str]) -> dict[str, Any] | None:
        missing = _missing
        converters = self._converters
        made: dict[str, Any] = {}
        at = 0
        try:
            for column in columns:
                value = row[column]
                if value is missing:
                    return None
                convert = converters[column]
                made[names[at]] = value if convert is None or value is None else convert(value)
                at += 1
        except Unfit:
            self.blame(row)
            raise
        return made

    def key_bytes(self, row: Row) -> bytes | None:
        """Return the key as JSON, or the text that it is; None where there is no key. Raises Partial, Unfit."""
        if not self.key_at:
            return None
        made = self.key_object(row)
        return str(next(iter(made.values()))).encode() if self._text else _dumps(made)

    def key_object(self, row: Row) -> dict[str, Any]:
        """Return the key's object. Raises Partial, Unfit."""
        made = self.keyed(row)
        if made is None:
            lacking = ", ".join(self._every[at] for at in self.key_at if row[at] is _missing)
            msg = f"the log did not carry {lacking}, which the record's key needs"
            raise Partial(msg)
        return made

    def object(self, row: Row) -> dict[str, Any]:
        """Return the row; what the log did not carry is the placeholder. Raises Partial where that cannot be, Unfit."""
        made = self.whole(row)
        if made is not None:
            return made
        lacking = [at for at in self.shown if row[at] is _missing and self.forms[at].placeholder is None]
        if lacking:
            raise self._partial(lacking)
        return {
            self._every[at]: self.forms[at].placeholder if row[at] is _missing else _written(self.forms[at], row[at])
            for at in self.shown
        }

    def full(self, row: Row) -> dict[str, Any]:
        """Return a row of which every value has to be there. Raises Partial, Unfit."""
        made = self.whole(row)
        if made is None:
            raise self._partial([at for at in self.shown if row[at] is _missing])
        return made

    def known(self, row: Row) -> dict[str, Any]:
        """Return a row before: what the log did not carry is null."""
        made = self.whole(row)
        if made is not None:
            return made
        return {
            self._every[at]: None if row[at] is _missing else _written(self.forms[at], row[at]) for at in self.shown
        }

    def carried(self, row: Row, other: Row | None = None) -> dict[str, Any]:
        """Return what the log carried of a row; beside another only what differs from it."""
        return {
            self._every[at]: _written(self.forms[at], row[at])
            for at in self.shown
            if row[at] is not _missing and (other is None or other[at] != row[at])
        }

    def carries_key_alone(self, row: Row) -> bool:
        """Return whether the log carried nothing beside the key."""
        return self._rest is None or self._rest(row) == self._no_rest

    def key_differs(self, before: Row, after: Row) -> bool:
        """Return whether an update moves the key."""
        return any(before[at] is not _missing and before[at] != after[at] for at in self.key_at)

    def _partial(self, lacking: list[int]) -> Partial:
        return Partial(f"the log did not carry {', '.join(self._every[at] for at in lacking)}")

    def blame(self, row: Row) -> None:
        """Raise Unfit naming the column."""
        for name, form, value in zip(self._every, self.forms, row, strict=True):
            try:
                if value is not _missing:
                    _written(form, value)
            except Unfit as unfit:
                msg = f"column {name}: {unfit}"
                raise Unfit(msg) from None


def _written(form: Form, value: Any) -> Any:
    return value if value is None or form.convert is None else form.convert(value)
