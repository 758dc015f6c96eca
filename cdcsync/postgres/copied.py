"""Decodes lines of COPY's text format into rows that were read (manual, COPY, "Text Format").

The hot path of a copy: plain Python here, C types in `copied.pxd`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cdcsync.postgres.pgoutput import code_of
from cdcsync.postgres.types import decoder

if TYPE_CHECKING:
    from cdcsync.change import Table

_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
"""What COPY writes in text format; any other character stands for itself."""


class Lines:
    """The lines of one table."""

    def __init__(self, table: Table) -> None:
        self.size = len(table.columns)
        self.decoders = [decoder(column.type) for column in table.columns]
        self.codes = [code_of(column.type) for column in table.columns]
        self.others = [index for index, code in enumerate(self.codes) if code != 1]
        """Columns that are no plain text."""

    def take(self, get: Any, rows: list[Any], size_max: int) -> int:
        """Append what `get`, a connection's get_copy_data, has at hand, up to so many bytes; return how many it had.

        Its complement where the copy has ended. Raises ValueError as `row` does.
        """
        size = 0
        while size < size_max:
            count, data = get(1)
            if count == 0:
                return size
            if count < 0:
                return ~size
            size += count
            rows.append(self.row(bytes(data)))
        return size

    def row(self, line: bytes) -> Any:
        """Return the row of one line, which ends with a newline. Raises ValueError for another number of values."""
        size = self.size
        text = line.decode()
        fields: list[Any] = text.split("\t") if size else []
        if len(fields) != size:
            raise ValueError(len(fields))
        if size:
            fields[size - 1] = fields[size - 1][:-1]
        codes = self.codes
        escaped = "\\" in text
        if escaped:
            self._unescape(fields)
        for index in self.others:
            field = fields[index]
            if field is None:
                continue
            code = codes[index]
            if code == 2:  # noqa: PLR2004
                fields[index] = int(field)
            elif code == 4 and field[10:11] == " " and field[-3:] == "+00":  # noqa: PLR2004
                fields[index] = field[:10] + "T" + field[11:-3] + "Z"
            elif code == 3:  # noqa: PLR2004
                fields[index] = field == "t"
            else:
                fields[index] = self.decoders[index](field.encode())
        return tuple(fields)

    def _unescape(self, fields: list[Any]) -> None:
        for index, field in enumerate(fields):
            if "\\" in field:
                fields[index] = None if field == "\\N" else _ESCAPE.sub(_plain, field)


def _plain(matched: re.Match[str]) -> str:
    return _ESCAPED.get(matched[1], matched[1])
