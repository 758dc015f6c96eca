"""The mapping as a pipeline's transform: source changes in, target changes out, in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from cdcsync.change import Change, CopyStart, SchemaChange, Table, Transaction, Unreadable
from cdcsync.errors import ExitStatus, Fatal, Incomplete, Rejected
from cdcsync.evolution import Alteration, Mode
from cdcsync.mapping import rows
from cdcsync.mapping.failures import FAILURES
from cdcsync.mapping.model import Routed, Rule, TableMapping, spelled_out
from cdcsync.mapping.names import Pattern, Template
from cdcsync.mapping.plan import Moment, Plan, Several, Stopped, Unmappable, projection
from cdcsync.mapping.schema import differences, renamed_target, stopped, together
from cdcsync.mapping.shape import nullable_key, shape
from cdcsync.ports import Wanted
from cdcsync.reads import Reads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Mapping as ReadOnly

    from cdcsync.change import Batch, Item
    from cdcsync.evolution import Follows
    from cdcsync.mapping.computed import Computed, Question
    from cdcsync.mapping.expressions import Program
    from cdcsync.mapping.shape import Shape

Chosen: TypeAlias = tuple[Rule, tuple[tuple[str, str], ...]]
"""An entry that takes a table, and the schemas and names of its targets there."""

NAMELESS: Final = ("", "")
"""The target of a table whose rows name theirs."""
PLANS_MAX: Final = 4096
"""Table objects remembered by identity; more come only where a source makes a new object per change."""


class Mapping:
    """The declared entries, compiled per source table version as they appear. Pure; `Transform` and `Selection`."""

    def __init__(self, rules: Iterable[Rule], secrets: ReadOnly[str, bytes] | None = None) -> None:
        """Take the entries in order: the first that matches a table wins, unless it says `match: all`.

        `secrets` are by name; None: each is its own name, as for examples.
        """
        self._rules = tuple(rules)
        self._secrets = secrets
        self._patterns = [Pattern.parse(rule.mapping.from_) for rule in self._rules]
        self._chosen: dict[tuple[str, str], tuple[Chosen, ...]] = {}
        self._plans: dict[Table, Plan | Several | None] = {}
        self._follows: dict[tuple[str, str], dict[tuple[str, str], Follows]] = {}
        """By the target's schema and name, and by those of the source tables that go there."""
        self._by_object: dict[int, tuple[Table, Plan | Several | None]] = {}
        """By id; the table beside it is kept alive, so that the id stays its own."""
        self._renamed: dict[int, Table] = {}
        """Of these the targets whose changes are the source's, but for the table."""

    def __reduce__(self) -> tuple[type[Mapping], tuple[Any, ...]]:
        """Pickle as declared; plans are compiled again where they are needed."""
        return type(self), (tuple(replace(rule, document=None) for rule in self._rules), self._secrets)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The entries."""
        return self._rules

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
        if not chosen:
            return None
        return Wanted.APPENDED if all(rule.mapping.key == "none" for rule, _ in chosen) else Wanted.KEYED

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
            for rule, names in self._choose(table.schema, table.name):
                made = shape(rule, table, self._secrets)
                wrong = made.problems or nullable_key(rule, made)
                problems += [_said(rule, table, problem) for problem in wrong]
                for schema, name in () if wrong or names == (NAMELESS,) else names:
                    target = made.target(schema, name)
                    self._note(table, rule, names)
                    other, source = targets.setdefault((schema, name), (target, table))
                    if not _alike(other, target):
                        clash = (
                            f"its target {target.qualified} is already that of {source.qualified}, with other columns "
                            "or another key"
                        )
                        problems.append(_said(rule, table, clash))
        if problems:
            hint = "mend these entries of the mapping"
            raise Fatal("\n".join(dict.fromkeys(problems)), hint=hint, status=ExitStatus.CONFIG)
        return [target for target, _ in targets.values()]

    def plans(self, table: Table) -> tuple[Plan, ...]:
        """Return how a table's changes are mapped, a plan for each entry that takes it. Raises Fatal."""
        if table not in self._plans:
            self._plans[table] = self._compiled(table, "")
        return _each(self._plans[table])

    def apply(self, batch: Batch) -> Batch:
        """Return the mapped batch: all its transactions with the items that are left.

        Raises Rejected (by indexes of this batch), Incomplete where rows read again would do, and Fatal.
        """
        reasons: dict[tuple[int, int], Unmappable] = {}
        changed = False
        changes = 0
        mapped: list[Transaction] = []
        for at, transaction in enumerate(batch.transactions):
            made = rows.renamed(transaction, self._renamed) or self._transaction(transaction, at, reasons)
            changed = changed or made is not transaction
            changes += len(made.items)
            mapped.append(made)
        if reasons:
            raise _refusal(reasons)
        return replace(batch, transactions=mapped, changes=changes) if changed else batch

    def _transaction(self, given: Transaction, at: int, reasons: dict[tuple[int, int], Unmappable]) -> Transaction:
        """Map by runs of changes of one table; the transaction itself comes back when nothing differs."""
        total = len(given.items)
        if type(given.items) is Reads and total:
            return self._uniform(given, at, reasons)
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
            made = _direct(plan, given.items)
            if made is not None:
                return _with(given, made, given.ordinals)
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
        else:
            made = _direct(plan, out.given.items[start:end]) if plan.direct else None
            if made is not None:
                out.same = False
                out.extend(made, start)
                return
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
            for plan in _each(self._plan(item.table, given)):
                for target in plan.targets:
                    out.put(item._replace(table=target), index)
        elif isinstance(item, SchemaChange):
            for made in self._schema_change(item, given):
                out.put(made, index)
        elif isinstance(item, Unreadable):
            out.refuse(item, index)
        out.same = False

    def _schema_change(self, item: SchemaChange, given: Transaction) -> Iterator[SchemaChange]:
        """Yield the changes for the targets, none when it does not concern them. Raises Fatal."""
        if item.new is None:
            yield from self._dropped(item, given)
            return
        old = _each(self._plan(item.old, given)) if item.old is not None else ()
        self._judge(item.old, item.new, old, given)
        for number, plan in enumerate(_each(self._plan(item.new, given))):
            was = old[number].targets if number < len(old) else ()
            for at, target in enumerate(plan.targets):
                before = was[at] if at < len(was) else None
                if before != target:
                    renamed = renamed_target(plan.rule.mapping, target, item.renamed)
                    yield SchemaChange(before, target, item.statement, renamed)

    def _dropped(self, item: SchemaChange, given: Transaction) -> Iterator[SchemaChange]:
        """Yield the drop of a table for its targets that follow it; the others keep what they have. Raises Fatal."""
        old = item.old
        for rule, names in self._choose(old.schema, old.name) if old is not None else ():
            follows = rule.mapping.follows
            if follows.mode is Mode.STOP and old is not None:
                raise stopped(old, ["it was dropped"], given.position.encode())
            if follows.takes(Alteration.DROP_TABLE):
                for schema, name in names:
                    yield SchemaChange(Table(schema, name, ()), None, item.statement)

    def _judge(self, old: Table | None, new: Table, plans: tuple[Plan, ...], given: Transaction) -> None:
        """Stop where a target cannot follow, or is told not to."""
        chosen = self._choose(new.schema, new.name)
        for plan in plans:
            said = self._unlike(plan, new, chosen)
            if said:
                raise stopped(plan.source, said, given.position.encode())
        if old is not None and (old.schema, old.name) != (new.schema, new.name):
            for sources in self._follows.values():
                sources.pop((old.schema, old.name), None)

    def _unlike(self, old: Plan, new: Table, chosen: tuple[Chosen, ...]) -> list[str]:
        """Return what of a schema change the target cannot follow, or is told not to."""
        names = next((names for rule, names in chosen if rule is old.rule), None)
        if names is None:
            return [f"it is called {new.qualified} now, which no entry of the mapping takes"]
        made = shape(old.rule, new, self._secrets)
        if made.problems:
            return [_said(old.rule, new, problem) for problem in made.problems]
        follows = old.rule.mapping.follows
        target = made.target(*names[0])
        same_name = (old.target.schema, old.target.name) == (target.schema, target.name)
        if follows.mode is not Mode.STOP and (same_name or follows.takes(Alteration.RENAME_TABLE)):
            return []
        return differences(old.target, target)

    def follows(self, target: Table) -> Follows:
        """Return how a target follows changes of its source tables, as far as these have come up."""
        return together(self._follows.get((target.schema, target.name), {}).values())

    def _choose(self, schema: str, name: str) -> tuple[Chosen, ...]:
        """Return the entries that take a table, and the schemas and names of their targets."""
        if (schema, name) not in self._chosen:
            self._chosen[schema, name] = tuple(self._find(schema, name))
        return self._chosen[schema, name]

    def _find(self, schema: str, name: str) -> Iterator[Chosen]:
        for rule, pattern in zip(self._rules, self._patterns, strict=True):
            captured = pattern.match(schema, name)
            if captured is None:
                continue
            to = rule.mapping.to
            if isinstance(to, Routed):
                yield rule, tuple(_qualified(place) for place in to.tables) or (NAMELESS,)
            elif to is None:
                yield rule, ((schema, name),)
            else:
                template = Template.parse(to, pattern)
                yield rule, (template.fill(captured | {"schema": schema, "table": name}),)
            if rule.mapping.match == "first":
                return

    def _plan(self, table: Table, given: Transaction) -> Plan | Several | None:
        """Return a table version's plan, None when it is not wanted. Raises Fatal when it has no form."""
        known = self._by_object.get(id(table))
        if known is not None:
            return known[1]
        if table not in self._plans:
            self._plans[table] = self._compiled(table, f" at {given.position.encode()}")
        if len(self._by_object) >= PLANS_MAX:
            self._by_object.clear()
            self._renamed.clear()
        plan = self._plans[table]
        self._by_object[id(table)] = (table, plan)
        if isinstance(plan, Plan) and plan.direct and plan.project is None:
            self._renamed[id(table)] = plan.target
        return plan

    def _note(self, table: Table, rule: Rule, names: tuple[tuple[str, str], ...]) -> None:
        for name in names:
            self._follows.setdefault(name, {})[table.schema, table.name] = rule.mapping.follows

    def _compiled(self, table: Table, at: str) -> Plan | Several | None:
        plans: list[Plan] = []
        for rule, names in self._choose(table.schema, table.name):
            made = shape(rule, table, self._secrets)
            if made.problems:
                msg = "\n".join(_said(rule, table, problem, at) for problem in made.problems)
                raise Fatal(msg, hint="mend this entry of the mapping", status=ExitStatus.CONFIG)
            self._note(table, rule, names)
            plans.append(compiled(rule, made, [made.target(schema, name) for schema, name in names]))
        if not plans:
            return None
        return plans[0] if len(plans) == 1 else Several(tuple(plans))


class _Output:
    """One transaction's items as they are mapped."""

    __slots__ = ("_at", "_items", "_moment", "_ordinals", "_reasons", "given", "same")

    def __init__(self, given: Transaction, at: int, reasons: dict[tuple[int, int], Unmappable]) -> None:
        self.given = given
        self.same = True
        """Nothing is different so far."""
        self._at = at
        self._reasons = reasons
        self._items: list[Item] = []
        self._ordinals: list[int] = []
        self._moment: Moment | None = None

    def put(self, item: Item, index: int) -> None:
        """Take what came of the item at `index`."""
        self._items.append(item)
        self._ordinals.append(self.given.ordinals[index])

    def extend(self, items: Sequence[Item], start: int) -> None:
        """Take what came of as many items from `start` on, one of each."""
        self._items += items
        self._ordinals += self.given.ordinals[start : start + len(items)]

    def careful(self, plan: Plan | Several, index: int) -> None:
        """Map one change by all that its entry says."""
        self.same = False
        change = cast("Change", self.given.items[index])
        moment = self._moment = self._moment or Moment(self.given)
        try:
            made = plan.map(change, moment)
        except Unmappable as error:
            self._reasons[self._at, index] = error
        except Stopped as error:
            msg = f"{error} at {self.given.position.encode()}"
            hint = "set `truncate: ignore` (or apply, under `delete: hard`) in the mapping to go on past it"
            raise Fatal(msg, hint=hint) from error
        else:
            for item in made:
                self.put(item, index)

    def refuse(self, item: Unreadable, index: int) -> None:
        """Take nothing of the item at `index`."""
        self._reasons[self._at, index] = Unmappable(item.reason, item)

    def transaction(self) -> Transaction:
        """Return the mapped transaction; the given one when nothing is different."""
        return self.given if self.same else _with(self.given, self._items, self._ordinals)


def _direct(plan: Plan | Several, items: Sequence[Item]) -> Sequence[Item] | None:
    """Map row changes in which nothing has to be looked at; None when an expression fails on one after all."""
    assert isinstance(plan, Plan)  # noqa: S101  several are never direct
    changes = cast("Sequence[Change]", items)
    if plan.project is None:
        return rows.swapped(changes, plan.target)
    if plan.computed is None:
        return rows.projected(changes, plan.target, plan.project)
    try:
        return rows.projected(changes, plan.target, plan.project)
    except FAILURES:
        return None


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


def compiled(rule: Rule, made: Shape, targets: Sequence[Table]) -> Plan:
    """Return the plan of a source table version whose shape has no problems."""
    mapping = rule.mapping
    target = targets[0]
    proved = () if set(target.key) <= made.own else target.key_at
    delete = mapping.delete if isinstance(mapping.delete, str) else "soft"
    computed = None if mapping.plain else _computed(made)
    project = projection(made.passed, len(made.source.columns)) if computed is None else computed.make
    message_at = () if _always(made) else target.message_key_at
    careful = made.where or made.by or mapping.history or made.skip_at or (computed is not None and not computed.plain)
    direct = delete == "hard" and not proved and not message_at and not careful
    return Plan(
        rule=rule,
        source=made.source,
        target=target,
        targets=() if mapping.free else tuple(targets),
        project=project,
        key_at=proved,
        delete=delete,
        truncate=mapping.on_truncate,
        direct=direct,
        same=direct and project is None and target is made.source,
        computed=computed,
        where=_question(made, made.where, "where"),
        by=_question(made, made.by, "to.by"),
        places=_places(mapping.to, targets),
        free=mapping.free,
        history=mapping.history is not None,
        skip_at=made.skip_at,
        message_at=message_at,
    )


def _always(made: Shape) -> bool:
    """Return whether the message's key is in every row that the log has: of the source's key alone, and never null."""
    own = {("r", at) for at in made.source.key_at}
    taken = [made.taken[at] for at, column in enumerate(made.columns) if column.name in made.message_key]
    return all(not isinstance(each, int) and each.inputs <= own and not each.nullable for each in taken)


def _computed(made: Shape) -> Computed:
    from cdcsync.mapping.computed import Computed  # noqa: PLC0415  sqlglot is not waited for without expressions

    names = [column.name for column in made.columns]
    return Computed(made.taken, names, made.source.qualified)


def _question(made: Shape, program: Program | None, name: str) -> Question | None:
    if program is None:
        return None
    from cdcsync.mapping.computed import Question  # noqa: PLC0415  as above

    return Question(program, name, made.source.qualified)


def _places(to: object, targets: Sequence[Table]) -> dict[str, Table] | None:
    """Return the targets by the names that an expression may give: as they are listed."""
    return dict(zip(to.tables, targets, strict=False)) if isinstance(to, Routed) else None


def _qualified(text: str) -> tuple[str, str]:
    schema, dot, name = text.partition(".")
    return (schema, name) if dot else ("", text)


def _refusal(reasons: ReadOnly[tuple[int, int], Unmappable]) -> Rejected:
    """Return the error of these changes; first of those that the source could complete, if there are any."""
    lacking = {at: reason for at, reason in reasons.items() if reason.lacking}
    kind, named = (Incomplete, lacking) if lacking else (Rejected, reasons)
    return kind(
        {at: str(reason) for at, reason in named.items()},
        {at: reason.change for at, reason in named.items()},
    )


def _each(plan: Plan | Several | None) -> tuple[Plan, ...]:
    if plan is None:
        return ()
    return plan.plans if isinstance(plan, Several) else (plan,)


def _said(rule: Rule, table: Table, problem: str, at: str = "") -> str:
    """Return a problem with its place, the entry's where it has none of its own, and its table."""
    place, tab, text = problem.partition("\t")
    if not tab:
        place, text = "", problem
    place = place or (f"{rule.where}: " if rule.where else "")
    return f"{place}table {table.qualified}{at}: {text}"


def _alike(table: Table, other: Table) -> bool:
    """Return whether rows of both fit into one target: the same columns in any order, and the same key."""
    return table is other or not differences(table, other)
