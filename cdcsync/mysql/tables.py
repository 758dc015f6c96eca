"""Turns table maps into table versions and plans, and judges what statements do to the tables that are wanted."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cdcsync.change import Change, Operation, SchemaChange, Table
from cdcsync.errors import Fatal
from cdcsync.evolution import renaming
from cdcsync.mysql import table_map
from cdcsync.mysql.catalogue import SYSTEM
from cdcsync.mysql.groups import Plan
from cdcsync.mysql.query import effects, tokens
from cdcsync.mysql.rows import RowsDecoder
from cdcsync.mysql.types import described, is_unmeasured, table_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Item
    from cdcsync.mysql.binlog import Framing, Query
    from cdcsync.mysql.config import ZeroDates
    from cdcsync.mysql.query import Effects, Name
    from cdcsync.mysql.schema import Schema
    from cdcsync.mysql.table_map import Dialect, Layout
    from cdcsync.ports import Selection

REMEDY: Final = (
    "take the table out of the mapping; or mend its rows in the target by hand and go on behind the statement with "
    "`cdcsync positions set`"
)
ROW_HINT: Final = (
    "SET GLOBAL binlog_format = 'ROW', and let no session change it; mend the rows of the statement in the target by "
    "hand, and go on behind it with `cdcsync positions set`"
)
SEQUENCE: Final = (
    "next_not_cached_value", "minimum_value", "maximum_value", "start_value", "increment", "cache_size", "cycle_option",
    "cycle_count",
)  # fmt: skip
"""Columns of MariaDB's sequences, which log their numbers as rows of a table."""
_SHADOWS: Final = re.compile(r"_+(?P<of>.+?)_(?:gho|new|ghost)")
_LEFT: Final = re.compile(r"_+(?P<of>.+?)_(?:\d+_)?(?:del|old)\d*")
"""The tables that gh-ost and pt-online-schema-change put in a table's place, and what they call the old one."""


class Tables:
    """Describes the tables of one log. Rows are laid out as the log says."""

    def __init__(
        self,
        selection: Selection,
        schema: Schema,
        dialect: Dialect,
        options: tuple[ZeroDates, bool],
        known: Callable[[], list[Table]],
    ) -> None:
        self._selection = selection
        self._schema = schema
        self._dialect = dialect
        self._zero_dates, self._folds = options
        """What becomes of zero dates, and whether the server takes names without minding their case."""
        self._known = known
        """The wanted tables that the catalogue has now."""
        self._listed: set[Name] | None = None
        """Their names, as they were when they were last needed."""
        self._plans: dict[Name, Plan] = {}
        """The newest of each table."""
        self._gone: set[Name] = set()
        """Dropped, as far as this process has seen."""
        self._statements: dict[Name, str] = {}
        """What altered a table since its newest plan was made."""

    def plan(self, event: bytes, end: int, body: bytes, framing: Framing) -> Plan:
        """Return how the rows after this table map are decoded. Raises Transient and Fatal."""
        layout = table_map.parse(event, 19, end, self._dialect)
        name = layout.schema, layout.name
        old = self._plans.get(name)
        statement = self._statements.get(name)
        if old is not None and old.body == body and statement is None:
            return old
        if not self._wants(name):
            decoder = None if is_unmeasured(layout) else RowsDecoder(layout, None, self._zero_dates)
            plan = Plan(body, None, decoder, False, [])  # noqa: FBT003
        else:
            plan = self._wanted(layout, body, framing, (old, statement))
        self._plans[name] = plan
        self._statements.pop(name, None)
        return plan

    def close(self) -> None:
        """Leave off what is being proved. Never raises."""
        self._schema.close()

    def _wanted(self, layout: Layout, body: bytes, framing: Framing, before: tuple[Plan | None, str | None]) -> Plan:
        if layout.names:
            hints = self._schema.look(layout.schema, layout.name)
        else:
            hints = self._schema.prove(layout, framing.file, framing.began)
        full = described(layout, hints)
        if full.names == SEQUENCE:
            return Plan(body, None, RowsDecoder(layout, None, self._zero_dates), False, [])  # noqa: FBT003
        table = table_of(full)
        old, statement = before
        last = old.table if old is not None else None
        changes: list[Item] = [SchemaChange(last, table, statement)] if last is not None and last != table else []
        if last == table:
            table = last
        return Plan(body, table, RowsDecoder(full, table, self._zero_dates), True, changes)  # noqa: FBT003

    def judge(self, query: Query) -> tuple[list[Item], bool]:
        """Return the items that a statement gives, and whether rows follow it in its transaction.

        Raises Fatal when it changes rows that the mapping wants and the log does not show.
        """
        done = effects(query)
        if done.rows:
            self._refuse_rows(query)
        if done.database_gone:
            self._refuse_database(self._folded((done.database_gone, ""))[0])
        items = self._moves(done, query.text)
        if done.unlogged:
            for name in done.altered:
                if self._wants(name):
                    msg = f"{done.unlogged} changed rows of {_dotted(name)} without logging them"
                    raise Fatal(msg, hint=REMEDY)
        for name in done.altered:
            if self._wants(name):
                self._statements[self._folded(name)] = query.text
                self._listed = None
                items += self._renames(self._folded(name), done, query.text)
        items += [self._truncate(self._folded(name)) for name in done.truncated if self._wants(name)]
        return items + self._created(done), done.opens

    def _renames(self, name: Name, done: Effects, text: str) -> list[Item]:
        """Return that columns have other names: told at once, as no row may come before the next start."""
        table = self._table(name) if done.columns else None
        made = renaming(table, done.columns) if table is not None else None
        return [] if made is None else [SchemaChange(made[0], made[1], text, made[2])]

    def _created(self, done: Effects) -> list[Item]:
        """Return that tables which were dropped are there again, and empty."""
        again = [self._folded(name) for name in done.created if self._folded(name) in self._gone]
        self._gone.difference_update(again)
        return [Change(table, Operation.TRUNCATE, None, None) for name in again if (table := self._table(name))]

    def _table(self, name: Name) -> Table | None:
        """Return a wanted table as the log showed it last, or as the catalogue has it now."""
        plan = self._plans.get(name)
        if plan is not None and plan.table is not None:
            return plan.table
        return next((each for each in self._known() if (each.schema, each.name) == name), None)

    def _truncate(self, name: Name) -> Item:
        table = self._table(name)
        if table is None:
            msg = f"{_dotted(name)} was truncated, and is gone since"
            raise Fatal(msg, hint=REMEDY)
        return Change(table, Operation.TRUNCATE, None, None)

    def _refuse_rows(self, query: Query) -> None:
        """Stop at a statement that may change rows of a wanted table: it is told by any of its words, in doubt too."""
        wanted = self._all_wanted()
        before, after_dot, first = "", False, True
        for token in tokens(query):
            if token.kind not in {"w", "q"}:
                after_dot = token.text == "."
                continue
            name = (before, token.text) if after_dot else (query.database, token.text)
            if self._folded(name) in wanted:
                what = f"may change rows of {_dotted(name)}"
                raise _unlogged(what)
            if first and wanted and token.says("CALL", "DO", "SELECT", "VALUES"):
                raise _unlogged("calls what may change rows of any table")
            before, after_dot, first = token.text, False, False

    def _all_wanted(self) -> set[Name]:
        """Return the wanted tables that the log has shown or the catalogue has."""
        if self._listed is None:
            self._listed = {(table.schema, table.name) for table in self._known()}
        return self._listed | {name for name, plan in self._plans.items() if plan.wanted}

    def _refuse_database(self, schema: str) -> None:
        for name in sorted(self._all_wanted()):
            if name[0] == schema:
                msg = f"database {schema} was dropped, with {_dotted(name)}"
                raise Fatal(msg, hint=REMEDY)

    def _moves(self, done: Effects, text: str) -> list[Item]:
        """Return what went and what has another name. Raises Fatal where rows would be missing.

        A copy that takes the table's place has its rows; an online schema change ends so, in one statement or in two.
        """
        swapped, new_names = _swapped(done), dict(done.renamed)
        items: list[Item] = []
        for name in done.gone:
            new = new_names.get(name)
            if not self._wants(name) or name in swapped or (new is not None and _is_left(name, new)):
                continue
            if new is None:
                items.append(SchemaChange(self._plan_table(name), None, text))
                self._gone.add(self._folded(name))
            elif self._wants(new):
                items.append(self._renamed(name, new, text))
            else:
                msg = f"table {_dotted(name)} was renamed to {_dotted(new)}"
                raise Fatal(msg, hint=REMEDY)
        for old, new in done.renamed:
            if self._wants(new) and new not in swapped and not self._wants(old) and not _is_shadow(old, new):
                msg = f"table {_dotted(old)} was renamed to {_dotted(new)}: its rows until then are not in the target"
                raise Fatal(msg, hint=REMEDY)
        return items

    def _plan_table(self, name: Name) -> Table:
        """Return a table that is gone, without columns where the log has not shown it."""
        schema, table = self._folded(name)
        plan = self._plans.get((schema, table))
        return plan.table if plan is not None and plan.table is not None else Table(schema, table, ())

    def _renamed(self, name: Name, new: Name, text: str) -> Item:
        """Return that a table has another name, which is wanted too."""
        schema, table = self._folded(new)
        plan = self._plans.pop(self._folded(name), None)
        old = plan.table if plan is not None else self._table((schema, table))
        if old is None:
            msg = f"table {_dotted(name)} was renamed to {_dotted(new)}, and is gone since"
            raise Fatal(msg, hint=REMEDY)
        first, last = self._folded(name)
        return SchemaChange(replace(old, schema=first, name=last), replace(old, schema=schema, name=table), text)

    def _wants(self, name: Name) -> bool:
        schema, table = self._folded(name)
        return schema not in SYSTEM and self._selection.wants(schema, table) is not None

    def _folded(self, name: Name) -> Name:
        return (name[0].lower(), name[1].lower()) if self._folds else name


def _is_left(name: Name, new: Name) -> bool:
    """Return whether a table is put aside by an online schema change, whose copy takes its place next."""
    found = _LEFT.fullmatch(new[1])
    return found is not None and (name[0], found["of"]) == (new[0], name[1])


def _is_shadow(old: Name, new: Name) -> bool:
    """Return whether a copy takes the place of its table."""
    found = _SHADOWS.fullmatch(old[1])
    return found is not None and (old[0], found["of"]) == (new[0], new[1])


def _swapped(done: Effects) -> set[Name]:
    """Return the names of a swap by which an online schema change ends: the copy has the table's rows."""
    found: set[Name] = set()
    old = {new: each for each, new in done.renamed}
    for name in done.gone:
        source, target = old.get(name), dict(done.renamed).get(name)
        if source is None or target is None or source[0] != name[0]:
            continue
        shadow, left = _SHADOWS.fullmatch(source[1]), _LEFT.fullmatch(target[1])
        if shadow and left and shadow["of"] == left["of"] == name[1]:
            found |= {name, source, target}
    return found


def _unlogged(what: str) -> Fatal:
    msg = f"a statement that {what} is logged as such, without the rows: binlog_format was not ROW in its session"
    return Fatal(msg, hint=ROW_HINT)


def _dotted(name: Name) -> str:
    return ".".join(name)
