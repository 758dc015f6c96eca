"""How the rows of one table version become objects: functions written for its columns, as a dataclass's are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import UNCHANGED
from cdcsync.kafka.encoding.modes import Unfit
from cdcsync.kafka.encoding.values import form_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.kafka.encoding.modes import Modes
    from cdcsync.kafka.encoding.values import Form

    Maker = Callable[[Row], dict[str, Any] | None]

_missing: Final = UNCHANGED
_dumps: Final = orjson.dumps


class Partial(ValueError):  # noqa: N818  a finding about one row
    """A row lacks values that the format cannot leave out."""


class Rows:
    """Writes the rows of one table version."""

    def __init__(self, table: Table, modes: Modes, key: Sequence[str] | None = None) -> None:
        """`key` names the columns of the record's key; absent: the table's."""
        self.table = table
        self.forms: list[Form] = [form_of(column, modes) for column in table.columns]
        self.names = [column.name for column in table.columns]
        self.key = tuple(table.key if key is None else key)
        self.key_at = tuple(table.at[name] for name in self.key)
        self._key_set = frozenset(self.key_at)
        self.whole: Maker = self._maker(range(len(self.names)))
        """Returns the object of a whole row; None when a value was not carried."""
        self.keyed: Maker = self._maker(self.key_at)

    def key_bytes(self, row: Row) -> bytes | None:
        """Return the key's object as JSON; None where there is no key. Raises Partial, Unfit."""
        if not self.key_at:
            return None
        return _dumps(self.key_object(row))

    def key_object(self, row: Row) -> dict[str, Any]:
        """Return the key's object. Raises Partial, Unfit."""
        made = self._guarded(self.keyed, row)
        if made is None:
            lacking = ", ".join(self.names[at] for at in self.key_at if row[at] is _missing)
            msg = f"the log did not carry {lacking}, which the record's key needs"
            raise Partial(msg)
        return made

    def object(self, row: Row) -> dict[str, Any]:
        """Return the row; what the log did not carry is the placeholder. Raises Partial where that cannot be, Unfit."""
        made = self._guarded(self.whole, row)
        if made is not None:
            return made
        lacking = [
            self.names[at] for at, value in enumerate(row) if value is _missing and self.forms[at].placeholder is None
        ]
        if lacking:
            msg = f"the log did not carry {', '.join(lacking)}"
            raise Partial(msg)
        return {
            name: form.placeholder if value is _missing else _written(form, value)
            for name, form, value in zip(self.names, self.forms, row, strict=True)
        }

    def full(self, row: Row) -> dict[str, Any]:
        """Return a row of which every value has to be there. Raises Partial, Unfit."""
        made = self._guarded(self.whole, row)
        if made is None:
            lacking = ", ".join(name for name, value in zip(self.names, row, strict=True) if value is _missing)
            msg = f"the log did not carry {lacking}"
            raise Partial(msg)
        return made

    def known(self, row: Row) -> dict[str, Any]:
        """Return a row before: what the log did not carry is null."""
        made = self._guarded(self.whole, row)
        if made is not None:
            return made
        return {
            name: None if value is _missing else _written(form, value)
            for name, form, value in zip(self.names, self.forms, row, strict=True)
        }

    def carries_key_alone(self, row: Row) -> bool:
        """Return whether the log carried nothing beside the key."""
        key_set = self._key_set
        return all(value is _missing for at, value in enumerate(row) if at not in key_set)

    def key_differs(self, before: Row, after: Row) -> bool:
        """Return whether an update moves the key."""
        return any(before[at] is not _missing and before[at] != after[at] for at in self.key_at)

    def _guarded(self, make: Maker, row: Row) -> dict[str, Any] | None:
        try:
            return make(row)
        except Unfit:
            self._blame(row)
            raise

    def _blame(self, row: Row) -> None:
        """Raise Unfit naming the column."""
        for name, form, value in zip(self.names, self.forms, row, strict=True):
            try:
                if value is not _missing:
                    _written(form, value)
            except Unfit as unfit:
                msg = f"column {name}: {unfit}"
                raise Unfit(msg) from None

    def _maker(self, columns: Sequence[int]) -> Maker:
        """Write a function for these columns; a display of known keys costs half of `dict(zip(..))`."""
        unpack = f"{', '.join(f'v{at}' for at in range(len(self.names)))}, = row" if self.names else "pass"
        missing = " or ".join(f"v{at} is missing" for at in columns) or "False"
        fields = (f"{self.names[at]!r}: {self._value(at)}" for at in columns)
        text = f"def made(row):\n {unpack}\n if {missing}:\n  return None\n return {{{', '.join(fields)}}}"
        converters = {f"convert{at}": form.convert for at, form in enumerate(self.forms)}
        scope: dict[str, Any] = {"missing": _missing, **converters}
        exec(text, scope)  # noqa: S102  names come in as literals alone
        made: Maker = scope["made"]
        return made

    def _value(self, at: int) -> str:
        return f"v{at}" if self.forms[at].convert is None else f"(None if v{at} is None else convert{at}(v{at}))"


def _written(form: Form, value: Any) -> Any:
    return value if value is None or form.convert is None else form.convert(value)
