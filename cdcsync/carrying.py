"""A pipeline as a call: each row goes through a function of yours, on its way from one URL to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cdcsync.assembly import Assembly
from cdcsync.change import Batch, Change, Item, Transaction
from cdcsync.config import from_urls
from cdcsync.daemon import Signals
from cdcsync.errors import Rejected
from cdcsync.mapping.failures import FAILURES, reason
from cdcsync.mapping.transform import Mapping
from cdcsync.pipeline import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.mapping.model import Rule

    Function: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]

EVERY: Final = ("/.*/",)


def each(source: str, sink: str, function: Function, *, tables: Sequence[str] = EVERY, name: str = "cdcsync") -> None:
    """Carry what comes at the URL `source` to the URL `sink`, each row through a function, until a signal.

    The function is given a row by column names, and returns it with other values, or None to leave it out. The
    position is stored as a pipeline's is, under `name`; every pipeline needs one of its own. Raises Fatal, also for a
    row on which the function fails.
    """
    assembly = Assembly(from_urls(source, sink, tables, name=name))
    assembly.mapping = Each(assembly.config.rules, function)
    assembly.make_state()
    pipeline = assembly.pipeline(Surroundings())
    with Signals(pipeline):
        pipeline.run()


class Each(Mapping):
    """A mapping, and after it a function of each row."""

    def __init__(self, rules: Iterable[Rule], function: Function) -> None:
        super().__init__(rules)
        self._function = function

    def apply(self, batch: Batch) -> Batch:
        """Return the mapped batch with the rows that the function returned. Raises Rejected, Fatal."""
        mapped = super().apply(batch)
        reasons: dict[tuple[int, int], str] = {}
        made = [self._through(each, at, reasons) for at, each in enumerate(mapped.transactions)]
        if reasons:
            raise Rejected(reasons)
        return Batch(made, mapped.position, sum(len(each.items) for each in made), mapped.size_bytes, mapped.lane)

    def _through(self, given: Transaction, at: int, reasons: dict[tuple[int, int], str]) -> Transaction:
        items: list[Item] = []
        ordinals: list[int] = []
        for index, item in enumerate(given.items):
            made: Item | None = item
            if isinstance(item, Change):
                try:
                    made = self._changed(item)
                except FAILURES as error:
                    reasons[at, index] = f"the function fails on it: {reason(error)}"
            if made is not None:
                items.append(made)
                ordinals.append(given.ordinals[index])
        return Transaction(
            given.id, given.commit_time_us, given.position, given.version, items, ordinals, given.part, given.last
        )

    def _changed(self, item: Change) -> Change | None:
        before, after = self._row(item.table, item.before), self._row(item.table, item.after)
        if (item.before is not None and before is None) or (item.after is not None and after is None):
            return None
        return Change(item.table, item.operation, before, after)

    def _row(self, table: Table, row: Row | None) -> Row | None:
        if row is None:
            return None
        names = [column.name for column in table.columns]
        made = self._function(dict(zip(names, row, strict=True)))
        return None if made is None else tuple(made[name] for name in names)
