"""Alters the targets of an SQL sink, as their entries say, to the table versions whose rows it is about to write."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from cdcsync.connectors import ALTERED, Planned
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.evolution import Alteration, Applied, Met, Mode, after, followed, is_older, steps, trimmed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cdcsync.change import SchemaChange, Table
    from cdcsync.evolution import Follows, Step


class Ground(Protocol):
    """One database's targets. Every method is idempotent: what was done before a kill is done again."""

    def load(self) -> dict[tuple[str, str], Applied]:
        """Return what is kept of the targets, by schema and name; the table for it is made where it is missing."""
        ...

    def keep(self, table: Table, applied: Applied | None) -> None:
        """Keep what the target looks like now, or forget it."""
        ...

    def alter(self, table: Table, done: Sequence[Step]) -> None:
        """Do these steps on the target of that name, those that are not done yet. Raises what the client raises."""
        ...

    def move(self, table: Table, new: Table | None) -> None:
        """Give the target another name, or drop it; nothing happens where that was done before."""
        ...


class Altering:
    """Decides for each table version that comes up, and remembers what was decided."""

    def __init__(self, ground: Ground, follows: Callable[[Table], Follows]) -> None:
        self._ground = ground
        self._follows = follows
        self._known: dict[tuple[str, str], Applied] | None = None
        self.altered = False
        """Whether something was kept since `settled`: an undone transaction takes that along."""

    def settled(self) -> None:
        """Note that all is committed."""
        self.altered = False

    def undone(self) -> None:
        """Read again what is kept: the transaction was undone."""
        self._known = None
        self.altered = False

    def found(self, tables: Sequence[Table], missing: Sequence[Table]) -> list[Met]:
        """Return which of the tables that the source has by now are looked at before the log goes on.

        The others are met in it first: they look otherwise by now, or are `missing` at a target that has a position
        and may come there by another's change of name.
        """
        return [Met(table, 0) for table in tables if not self._waits(table, missing)]

    def _waits(self, table: Table, missing: Sequence[Table]) -> bool:
        if self._follows(table).mode is Mode.STOP:
            return False
        applied = self._applied(table)
        return table in missing if applied is None else bool(steps(applied.table, table)) and self._is_ours(applied)

    def prepare(self, met: Met) -> Table:
        """Alter the target; return the table as its rows are written: without the columns that it does not follow."""
        table, follows = met.table, self._follows(met.table)
        applied = self.shape(table)
        if applied is None:
            return table
        done = chosen(follows, applied, met)
        if done:
            self._ground.alter(table, done)
        there = after(applied.table, table, done)
        if done or met.begun:
            self._keep(there, met.version)
        return trimmed(table, there)

    def settle(self, met: Met) -> None:
        """Note what the target looks like that was created or found to fit."""
        if self._follows(met.table).mode is Mode.STOP:
            return
        applied = self._applied(met.table)
        if applied is None or not self._is_ours(applied):
            self._keep(met.table, max(met.version, applied.version if applied is not None else 0))

    def shape(self, table: Table) -> Applied | None:
        """Return what its target looks like; None where nobody alters it, or another entry made it."""
        applied = self._applied(table) if self._follows(table).mode is not Mode.STOP else None
        return applied if applied is not None and self._is_ours(applied) else None

    def _is_ours(self, applied: Applied) -> bool:
        """Return whether the entry is still what it was: what another entry makes is checked, as at the first start."""
        return applied.entry == self._follows(applied.table).entry

    def move(self, item: SchemaChange, version: int) -> None:
        """Follow a table to another name, or drop it."""
        old, new = item.old, item.new
        if old is None or (new is not None and (old.schema, old.name) == (new.schema, new.name)):
            return
        kind = Alteration.DROP_TABLE if new is None else Alteration.RENAME_TABLE
        if not self._follows(new or old).takes(kind) or (new is not None and self._applied(new) is not None):
            return
        applied = self._applied(old)
        self._ground.move(old, new)
        self._ground.keep(old, None)
        self._all().pop((old.schema, old.name), None)
        self.altered = True
        if new is not None:
            there = applied.table if applied is not None else old
            self._keep(replace(there, schema=new.schema, name=new.name), version)

    def _keep(self, table: Table, version: int) -> None:
        applied = Applied(table, version, self._follows(table).entry)
        self._ground.keep(table, applied)
        self._all()[table.schema, table.name] = applied
        self.altered = True

    def _applied(self, table: Table) -> Applied | None:
        return self._all().get((table.schema, table.name))

    def _all(self) -> dict[tuple[str, str], Applied]:
        if self._known is None:
            self._known = self._ground.load()
        return self._known


def chosen(follows: Follows, applied: Applied, met: Met) -> list[Step]:
    """Return what is done for a table version; of one that may be older than the target, what loses nothing."""
    if follows.mode is Mode.LENIENT or not is_older(met, applied):
        return followed(follows, applied.table, met.table, met.renamed)
    if not met.copied:
        return []
    return followed(replace(follows, mode=Mode.LENIENT), applied.table, met.table)


def planned(
    name: str, follows: Follows, applied: Applied | None, table: Table, statements: Callable[[Step], Iterable[str]]
) -> list[Planned] | None:
    """Return what becomes of a target when the log comes to the table as it is; None where nobody alters it."""
    if follows.mode is Mode.STOP or applied is None or applied.entry != follows.entry:
        return None
    done = chosen(follows, applied, Met(table, applied.version))
    return [Planned(name, ALTERED, statement) for step in done for statement in statements(step)]


def misfit(name: str, line: str) -> Planned:
    """Return a line about what does not fit, and what mends it, as a step of the plan."""
    said, _, statement = line.partition(": ALTER TABLE ")
    return Planned(name, f"does not fit: {said}", f"ALTER TABLE {statement}" if statement else "")


def refused(name: str, statement: str, reason: str) -> Fatal:
    """Return the error of a target that cannot follow."""
    msg = f"target table {name} cannot follow its source: {statement}: {reason}"
    hint = (
        "make the target fit by hand and start again; or set `schema_changes: lenient` (or ignore) for its entry; where "
        "its rows no longer fit, empty it and copy the table again"
    )
    return Fatal(msg, hint=hint, status=ExitStatus.DATA)
