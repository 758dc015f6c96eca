"""Compares source and target through the mapping, under traffic; only settled differences are reported as such."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.verify.compare import Comparison, Ends
from cdcsync.verify.pair import Pair, paired
from cdcsync.verify.result import Difference, Result, TableResult
from cdcsync.verify.values import differing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Table

__all__ = ["Difference", "Ends", "Result", "TableResult", "differing", "verify"]


def verify(
    ends: Ends, tables: Sequence[Table], *, progress: Callable[[TableResult], None] = lambda _result: None
) -> Result:
    """Compare the targets of these source tables; `progress` sees each table's figures as they grow.

    Bounded memory. Raises Transient and Fatal as the ends do.
    """
    groups: dict[str, list[Pair]] = {}
    for table in tables:
        for pair in paired(ends.transform, table):
            groups.setdefault(pair.target.qualified, []).append(pair)
    return Result([Comparison(ends, pairs, progress).run() for pairs in groups.values()])
