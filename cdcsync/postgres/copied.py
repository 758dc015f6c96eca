"""Decodes lines of COPY's text format into rows that were read (manual, COPY, "Text Format").

The hot path of a copy: plain Python here, C types in `copied.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdcsync.change import Change, Operation
from cdcsync.postgres.copy import unescape
from cdcsync.postgres.pgoutput import code_of
from cdcsync.postgres.types import decoder

if TYPE_CHECKING:
    from cdcsync.change import Table

_READ = Operation.READ


class Lines:
    """The lines of one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.size = len(table.columns)
        self.decoders = [decoder(column.type) for column in table.columns]
        self.codes = [code_of(column.type) for column in table.columns]

    def change(self, line: bytes) -> Any:
        """Return the change of one line, which ends with a newline. Raises ValueError for another number of values."""
        fields = line[:-1].split(b"\t") if self.size else []
        if len(fields) != self.size:
            raise ValueError(len(fields))
        escaped = b"\\" in line
        codes = self.codes
        values: list[Any] = []
        for index in range(self.size):
            field = fields[index]
            if escaped and b"\\" in field:
                if field == b"\\N":
                    values.append(None)
                    continue
                field = unescape(field)
            code = codes[index]
            if code == 1:
                values.append(field.decode())
            elif code == 2:  # noqa: PLR2004
                values.append(int(field))
            elif code == 4 and field[10:11] == b" " and field[-3:] == b"+00":  # noqa: PLR2004
                text = field.decode()
                values.append(text[:10] + "T" + text[11:-3] + "Z")
            elif code == 3:  # noqa: PLR2004
                values.append(field == b"t")
            else:
                values.append(self.decoders[index](field))
        return tuple.__new__(Change, (self.table, _READ, None, tuple(values)))
