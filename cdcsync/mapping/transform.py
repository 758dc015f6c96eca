"""The mapping as a pipeline's transform: source changes in, target changes out, in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from cdcsync.change import Change, CopyStart, SchemaChange, Table, Transaction
from cdcsync.errors import ExitStatus, Fatal, Rejected
from cdcsync.mapping import rows
from cdcsync.mapping.model import Rule, TableMapping, spelled_out
from cdcsync.mapping.names import Pattern, Template
from cdcsync.mapping.plan import Plan, Stopped, Unmappable, projection
from cdcsync.mapping.schema import differences, stopped
from cdcsync.mapping.shape import nullable_key, shape
from cdcsync.ports import Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdcsync.change import Batch, Item
    from cdcsync.mapping.shape import Shape

PLANS_MAX: Final = 4096
"""Table objects remembered by identity; more come only where a source makes a new object per change."""


class Mapping:
    """The declared entries, compiled per source table version as they appear. Pure; `Transform` and `Selection`."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Take the entries in order: the first that matches a table wins."""
        self._rules = tuple(rules)
        self._patterns = [Pattern.parse(rule.mapping.from_) for rule in self._rules]
        self._chosen: dict[tuple[str, str], tuple[Rule, str, str] | None] = {}
        self._plans: dict[Table, Plan | None] = {}
        self._by_object: dict[int, tuple[Table, Plan | None]] = {}
        """By id; the table beside it is kept alive, so that the id stays its own."""

    @classmethod
    def of(cls, tables: Iterable[str | TableMapping]) -> Mapping:
        """Return the mapping of plain entries, as the command line and code give them."""
        entries = (
            TableMapping.model_validate(spelled_out(table)) if isinstance(table, str) else table for table in tables
        )
        return cls(Rule(entry) for entry in entries)

    def wants(self, schema: str, name: str) -> Wanted | None:
        """Return how a source table is wanted, None when it is not."""
        chosen = self._choose(schema, name)
        if chosen is None:
            return None
        return Wanted.APPENDED if chosen[0].mapping.key == "none" else Wanted.KEYED

    def missing(self, tables: Iterable[Table]) -> list[str]:
        """Return a line for each entry that names one table which is not among these."""
        there = {(table.schema, table.name) for table in tables}
        return [
            f"{rule}: the source has no table {pattern.text}"
            for rule, pattern in zip(self._rules, self._patterns, strict=True)
            if pattern.exact is not None and pattern.exact not in there
        ]

    def tables(self, tables: Sequence[Table]) -> list[Table]:
        """Return the targets of those of these source tables that are wanted. Raises Fatal naming every clash."""
        problems: list[str] = []
        targets: dict[tuple[str, str], tuple[Table, Table]] = {}
        for table in tables:
            chosen = self._choose(table.schema, table.name)
            if chosen is None:
                continue
            rule, schema, name = chosen
            made = shape(rule.mapping, table)
            wrong = made.problems or nullable_key(rule.mapping, made)
            problems += [f"{_place(rule)}table {table.qualified}: {problem}" for problem in wrong]
            if wrong:
                continue
            target = made.target(schema, name)
            other, source = targets.setdefault((schema, name), (target, table))
            if not _alike(other, target):
                problems.append(
                    f"{_place(rule)}table {table.qualified}: its target {target.qualified} is already that of "
                    f"{source.qualified}, with other columns or another key"
                )
        if problems:
            raise Fatal("\n".join(problems), hint="mend these entries of the mapping", status=ExitStatus.CONFIG)
        return [target for target, _ in targets.values()]

    def apply(self, batch: Batch) -> Batch:
        """Return the mapped batch: all its transactions with the items that are left.

        Raises Rejected (by indexes of this batch) and Fatal.
        """
        reasons: dict[tuple[int, int], Unmappable] = {}
        changed = False
        mapped: list[Transaction] = []
        for at, transaction in enumerate(batch.transactions):
            made = self._transaction(transaction, at, reasons)
            changed = changed or made is not transaction
            mapped.append(made)
        if reasons:
            raise Rejected(
                {at: str(reason) for at, reason in reasons.items()},
                {at: reason.change for at, reason in reasons.items()},
            )
        if not changed:
            return batch
        return replace(batch, transactions=mapped, changes=sum(len(made.items) for made in mapped))

    def _transaction(self, given: Transaction, at: int, reasons: dict[tuple[int, int], Unmappable]) -> Transaction:
        """Map by runs of changes of one table; the transaction itself comes back when nothing differs."""
        total = len(given.items)
        start = rows.run_end(given.items, 0, total) if total else 0
        if start == total:
            return self._uniform(given, at, reasons)
        out = _Output(given, at, reasons)
        start = 0
        while start < total:
            item = given.items[start]
            end = rows.run_end(given.items, start, total)
            if end == start:
                self._single(item, start, out)
                start += 1
                continue
            self._run(out, start, end)
            start = end
        return out.transaction()

    def _uniform(self, given: Transaction, at: int, reasons: dict[tuple[int, int], Unmappable]) -> Transaction:
        """Map a transaction of row changes of one table, or an empty one."""
        if not given.items:
            return given
        plan = self._plan(cast("Change", given.items[0]).table, given)
        if plan is not None and plan.same:
            return given
        if plan is not None and plan.direct:
            return _with(given, _direct(plan, given.items), given.ordinals)
        out = _Output(given, at, reasons)
        self._run(out, 0, len(given.items))
        return out.transaction()

    def _run(self, out: _Output, start: int, end: int) -> None:
        """Map a run of row changes of one table."""
        plan = self._plan(cast("Change", out.given.items[start]).table, out.given)
        if plan is None:
            out.same = False
        elif plan.same:
            out.extend(out.given.items[start:end], start)
        elif plan.direct:
            out.same = False
            out.extend(_direct(plan, out.given.items[start:end]), start)
        else:
            for index in range(start, end):
                out.careful(plan, index)

    def _single(self, item: Item, index: int, out: _Output) -> None:
        """Map what is no change of a row."""
        given = out.given
        if isinstance(item, Change):
            plan = self._plan(item.table, given)
            if plan is not None:
                out.careful(plan, index)
        elif isinstance(item, CopyStart):
            plan = self._plan(item.table, given)
            if plan is not None:
                out.put(item._replace(table=plan.target), index)
        elif isinstance(item, SchemaChange):
            made = self._schema_change(item, given)
            if made is not None:
                out.put(made, index)
        out.same = False

    def _schema_change(self, item: SchemaChange, given: Transaction) -> SchemaChange | None:
        """Return the change for the target, None when it does not concern it. Raises Fatal."""
        position = given.position.encode()
        old = self._plan(item.old, given) if item.old is not None else None
        if item.new is None:
            if item.old is not None and old is not None:
                raise stopped(item.old, ["it was dropped"], position)
            return None
        chosen = self._choose(item.new.schema, item.new.name)
        if item.old is not None and old is not None:
            said = self._said(old, item.new, chosen)
            if said:
                raise stopped(item.old, said, position)
        if chosen is None:
            return None
        new = self._plan(item.new, given)
        if new is None or (old is not None and old.target == new.target):
            return None
        return SchemaChange(old.target if old else None, new.target, item.statement)

    def _said(self, old: Plan, new: Table, chosen: tuple[Rule, str, str] | None) -> list[str]:
        """Return what of a schema change the target cannot follow."""
        if chosen is None:
            return [f"it is called {new.qualified} now, which no entry of the mapping takes"]
        made = shape(chosen[0].mapping, new)
        return made.problems or differences(old.target, made.target(chosen[1], chosen[2]))

    def _choose(self, schema: str, name: str) -> tuple[Rule, str, str] | None:
        """Return the entry that takes a table, and the target's schema and name."""
        if (schema, name) not in self._chosen:
            self._chosen[schema, name] = self._find(schema, name)
        return self._chosen[schema, name]

    def _find(self, schema: str, name: str) -> tuple[Rule, str, str] | None:
        for rule, pattern in zip(self._rules, self._patterns, strict=True):
            captured = pattern.match(schema, name)
            if captured is None:
                continue
            if rule.mapping.to is None:
                return rule, schema, name
            template = Template.parse(rule.mapping.to, pattern)
            return rule, *template.fill(captured | {"schema": schema, "table": name})
        return None

    def _plan(self, table: Table, given: Transaction) -> Plan | None:
        """Return a table version's plan, None when it is not wanted. Raises Fatal when it has no form."""
        known = self._by_object.get(id(table))
        if known is not None:
            return known[1]
        if table not in self._plans:
            self._plans[table] = self._compiled(table, given)
        if len(self._by_object) >= PLANS_MAX:
            self._by_object.clear()
        self._by_object[id(table)] = (table, self._plans[table])
        return self._plans[table]

    def _compiled(self, table: Table, given: Transaction) -> Plan | None:
        chosen = self._choose(table.schema, table.name)
        if chosen is None:
            return None
        rule, schema, name = chosen
        made = shape(rule.mapping, table)
        if made.problems:
            msg = f"{_place(rule)}table {table.qualified} at {given.position.encode()}: {'; '.join(made.problems)}"
            raise Fatal(msg, hint="mend this entry of the mapping", status=ExitStatus.CONFIG)
        return compiled(rule, made, made.target(schema, name))


class _Output:
    """One transaction's items as they are mapped."""

    __slots__ = ("_at", "_items", "_ordinals", "_reasons", "given", "same")

    def __init__(self, given: Transaction, at: int, reasons: dict[tuple[int, int], Unmappable]) -> None:
        self.given = given
        self.same = True
        """Nothing is different so far."""
        self._at = at
        self._reasons = reasons
        self._items: list[Item] = []
        self._ordinals: list[int] = []

    def put(self, item: Item, index: int) -> None:
        """Take what came of the item at `index`."""
        self._items.append(item)
        self._ordinals.append(self.given.ordinals[index])

    def extend(self, items: Sequence[Item], start: int) -> None:
        """Take what came of as many items from `start` on, one of each."""
        self._items += items
        self._ordinals += self.given.ordinals[start : start + len(items)]

    def careful(self, plan: Plan, index: int) -> None:
        """Map one change by all that its entry says."""
        self.same = False
        change = cast("Change", self.given.items[index])
        try:
            made = plan.map(change, self.given.commit_time_us)
        except Unmappable as error:
            self._reasons[self._at, index] = error
        except Stopped as error:
            msg = f"{error} at {self.given.position.encode()}"
            hint = "set `truncate: ignore` (or apply, under `delete: hard`) in the mapping to go on past it"
            raise Fatal(msg, hint=hint) from error
        else:
            if made is not None:
                self.put(made, index)

    def transaction(self) -> Transaction:
        """Return the mapped transaction; the given one when nothing is different."""
        return self.given if self.same else _with(self.given, self._items, self._ordinals)


def _direct(plan: Plan, items: Sequence[Item]) -> list[Item]:
    """Map row changes in which nothing has to be looked at."""
    changes = cast("Sequence[Change]", items)
    if plan.project is None:
        return rows.swapped(changes, plan.target)
    return rows.projected(changes, plan.target, plan.project)


def _with(given: Transaction, items: Sequence[Item], ordinals: Sequence[int]) -> Transaction:
    """Return the transaction with other items; `replace` is three times as slow."""
    return Transaction(
        given.id,
        given.commit_time_us,
        given.position,
        given.version,
        items,
        ordinals,
        given.part,
        given.last,
    )


def compiled(rule: Rule, made: Shape, target: Table) -> Plan:
    """Return the plan of a source table version whose shape has no problems."""
    mapping = rule.mapping
    own = {target.columns[at].name for at, index in enumerate(made.taken) if index in made.source.key_at}
    proved = () if set(target.key) <= own else target.key_at
    delete = mapping.delete if isinstance(mapping.delete, str) else "soft"
    direct = delete == "hard" and not proved
    project = projection(made.taken, len(made.source.columns))
    return Plan(
        rule=rule,
        source=made.source,
        target=target,
        project=project,
        key_at=proved,
        delete=delete,
        truncate=mapping.on_truncate,
        direct=direct,
        same=direct and project is None and target is made.source,
    )


def _place(rule: Rule) -> str:
    return f"{rule.where}: " if rule.where else ""


def _alike(table: Table, other: Table) -> bool:
    """Return whether rows of both fit into one target: the same columns in any order, and the same key."""
    return table is other or not differences(table, other)
