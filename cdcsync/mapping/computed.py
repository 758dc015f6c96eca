"""A row's expressions, evaluated: the fast way for rows that are in order, and what is left of one that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdcsync.change import UNCHANGED
from cdcsync.mapping.expressions.program import Program, row_function, value_function, why
from cdcsync.mapping.failures import FAILURES, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Row, Value


class Computed:
    """Makes the target's rows of a source table version."""

    def __init__(self, outputs: Sequence[int | Program], names: Sequence[str], table: str) -> None:
        """Take for each target column the source column's index or an expression."""
        self.outputs = tuple(outputs)
        """For each target column the source column's index or an expression."""
        self._names = tuple(names)
        self._table = table
        self.make: Callable[..., Row] = row_function(self.outputs, table)
        """Of row, row before and moment; raises what `FAILURES` names."""
        self.plain = all(output.plain for output in self.outputs if isinstance(output, Program))
        """Whether no expression reads more than the row itself."""
        own = [output if not isinstance(output, Program) or output.plain else None for output in self.outputs]
        self._earlier: Callable[..., Row] = self.make if self.plain else row_function(own, table)
        self._single: dict[int, Callable[..., Value]] = {}

    def row(self, row: Row, before: Row | None, moment: Any) -> Row:
        """Return the target's row. Raises Failed."""
        try:
            return self.make(row, before, moment)
        except FAILURES as error:
            made, said = self._partly(row, before, moment)
            if not said:
                raise
            raise Failed(said, made) from error

    def earlier(self, row: Row) -> Row:
        """Return the target's row of a row before; what it needs beside the row is not known, nor what fails."""
        try:
            return self._earlier(row)
        except FAILURES:
            return self._partly(row, None, None)[0]

    def _partly(self, row: Row, before: Row | None, moment: Any) -> tuple[Row, str]:
        """Return what can be had of the row, and why the first of the others cannot."""
        values: list[Value] = []
        said = ""
        for at, output in enumerate(self.outputs):
            if not isinstance(output, Program):
                values.append(row[output])
                continue
            if moment is None and not output.plain:
                values.append(UNCHANGED)
                continue
            function = self._single.setdefault(at, value_function(output, self._table))
            try:
                values.append(function(row, before, moment))
            except FAILURES as error:
                values.append(UNCHANGED)
                said = said or f"{self._table}: column {self._names[at]}: {why(output, error)}"
        return tuple(values), said


class Question:
    """One expression asked of rows: `where`, or where a row goes."""

    def __init__(self, program: Program, name: str, table: str) -> None:
        self.program = program
        self.name = name
        self._table = table
        self._ask = value_function(program, table)

    def of(self, row: Row, before: Row | None, moment: Any) -> Value:
        """Return the answer, UNCHANGED when the log does not carry what it needs. Raises Failed."""
        try:
            return self._ask(row, before, moment)
        except FAILURES as error:
            msg = f"{self._table}: {self.name}: {why(self.program, error)}"
            raise Failed(msg, row) from error

    def of_earlier(self, row: Row) -> Value:
        """Return the answer for a row before, UNCHANGED when it cannot be told."""
        if not self.program.plain:
            return UNCHANGED
        try:
            return self._ask(row, None, None)
        except FAILURES:
            return UNCHANGED
