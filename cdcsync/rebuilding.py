"""Builds tables anew beside those of the target: where each row goes meanwhile, and when both change places."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from cdcsync.change import Batch, Change, Operation, Rebuild, SchemaChange, Step
from cdcsync.pending import FAILED, FILL, FILLED, KEPT, Place

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from cdcsync.change import Item, Position, Table, Transaction
    from cdcsync.pending import Pending

NEW: Final = "__cdcsync_new"
"""Ends the name of the table that is filled."""
OLD: Final = "__cdcsync_old"
"""Ends the name of the table that was there before."""

P = TypeVar("P", bound=Place)


@lru_cache(maxsize=1024)
def beside(table: Table, ending: str) -> Table:
    """Return the table that stands beside one, under its name and an ending."""
    return replace(table, name=table.name + ending)


def beneath(table: Table) -> Table:
    """Return the table as its mapping knows it, for one that stands beside it too."""
    name = table.name.removesuffix(NEW).removesuffix(OLD)
    return table if name == table.name else replace(table, name=name)


def due(here: P) -> tuple[P, list[Batch]]:
    """Return the steps that come before anything more of the log, and the position after them.

    When all new tables are filled they take the others' places, together; what was not kept current is dropped.
    """
    anew = [each for each in here.pending if each.into]
    if not any(each.stage == FILLED for each in anew) or any(each.stage == FILL for each in anew):
        return here, []
    names = targets(anew)
    kept = tuple(replace(each, stage=KEPT) if each.into else each for each in here.pending)
    here, swap = _stepped(here, kept, Rebuild(Step.SWAP, names))
    if not any(each.only for each in anew):
        return here, [swap]
    here, end = _stepped(here, tuple(each for each in here.pending if not each.into), Rebuild(Step.END, names))
    return here, [swap, end]


def _stepped(here: P, pending: tuple[Pending, ...], rebuild: Rebuild) -> tuple[P, Batch]:
    here = replace(here, reads=here.reads + 1, pending=pending)  # type: ignore[type-var]
    return here, Batch((), cast("Position", here), 0, 0, rebuild=rebuild)


def targets(pending: Sequence[Pending]) -> tuple[str, ...]:
    """Return the qualified names of all targets that are built anew."""
    return tuple(dict.fromkeys(name for each in pending for name in each.into))


def figures(pending: Sequence[Pending]) -> dict[str, Any]:
    """Return what is shown of the tables that are built anew or have failed, nothing when there are none."""
    failed = {each.table: each.error for each in pending if each.stage == FAILED}
    return {**({"failed": failed} if failed else {}), **_anew([each for each in pending if each.into])}


def isolated(batch: Batch) -> Batch:
    """Return a batch of the source's without the changes of tables that have failed."""
    pending: Sequence[Pending] = getattr(batch.position, "pending", ())
    failed = {each.table for each in pending if each.stage == FAILED} if pending else ()
    if not failed:
        return batch
    transactions = [_without(each, failed) for each in batch.transactions]
    return replace(batch, transactions=transactions, changes=sum(len(each.items) for each in transactions))


def _without(given: Transaction, failed: Container[str]) -> Transaction:
    pairs = zip(given.items, given.ordinals, strict=True)
    kept = [pair for pair in pairs if not (isinstance(pair[0], Change) and pair[0].table.qualified in failed)]
    if len(kept) == len(given.items):
        return given
    return replace(given, items=[item for item, _ in kept], ordinals=[ordinal for _, ordinal in kept])


def _anew(anew: Sequence[Pending]) -> dict[str, Any]:
    if not anew:
        return {}
    stage = FILL if any(each.stage == FILL for each in anew) else anew[0].stage
    return {"rebuild": {"tables": list(targets(anew)), "stage": stage, "rows": sum(each.rows for each in anew)}}


def routed(batch: Batch) -> Batch:
    """Return a mapped batch with each change where it belongs: in the table that is there, the one beside it, or both.

    What was read goes into the new table alone until that has taken its place.
    """
    pending: Sequence[Pending] = getattr(batch.position, "pending", ())
    if not pending or not batch.transactions:
        return batch
    into = {name: each for each in pending for name in each.into}
    if not into:
        return batch
    transactions = [_routed(each, into) for each in batch.transactions]
    return replace(batch, transactions=transactions, changes=sum(len(each.items) for each in transactions))


def _routed(given: Transaction, into: Mapping[str, Pending]) -> Transaction:
    items: list[Item] = []
    ordinals: list[int] = []
    for item, ordinal in zip(given.items, given.ordinals, strict=True):
        for made in _places(item, into):
            items.append(made)
            ordinals.append(ordinal)
    return replace(given, items=items, ordinals=ordinals)


def _places(item: Item, into: Mapping[str, Pending]) -> Iterator[Item]:
    if isinstance(item, SchemaChange):
        yield item
        table = item.new or item.old
        pending = into.get(table.qualified) if table is not None else None
        if pending is not None and item.new is not None:
            old = None if item.old is None else beside(item.old, _ending(pending))
            yield item._replace(old=old, new=beside(item.new, _ending(pending)))
        return
    pending = into.get(item.table.qualified) if isinstance(item, Change) else None
    if pending is None or not isinstance(item, Change):
        yield item
        return
    filling = pending.stage != KEPT
    if not (filling and (pending.only or item.operation is Operation.READ)):
        yield item
    if filling or not pending.only:
        yield item._replace(table=beside(item.table, _ending(pending)))


def _ending(pending: Pending) -> str:
    return OLD if pending.stage == KEPT else NEW
