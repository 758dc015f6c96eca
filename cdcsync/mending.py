"""Mends a target by keys, in a running pipeline's own stream: their rows are read again, those that are gone deleted."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync import control
from cdcsync.change import Change, Operation
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.named import KEYS_BYTES_MAX, KEYS_MAX, named
from cdcsync.pending import written_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cdcsync.assembly import Assembly
    from cdcsync.change import Batch, Row, Table

LOOK_S: Final = 0.05
"""Between two looks whether an order is carried out."""


def whole(assembly: Assembly, tables: Sequence[str]) -> Iterator[tuple[str, list[Row]]]:
    """Have these tables read as a whole, then yield all keys that their targets have. Raises Fatal."""
    if tables:
        _carried_out(assembly, tables, {"action": "read", "tables": list(tables), "where": ""})
        yield from keys_of_targets(assembly, tables)


def order(assembly: Assembly, table: str, keys: Sequence[Row], *, gone: bool = False) -> None:
    """Have these keys read, and return when what came of them is on its way. Raises Fatal when it is refused."""
    words = {"action": "read", "tables": [table], "where": "", "keys": written_keys(keys), "gone": gone}
    _carried_out(assembly, [table], words)


def _carried_out(assembly: Assembly, tables: Sequence[str], words: dict[str, Any]) -> None:
    """Give an order, and wait until nothing is left to read of these tables."""
    answer = _asked(assembly, "snapshot", **words)
    pause = threading.Event()
    while True:
        figures = _asked(assembly, "status")["snapshot"]
        left = set(tables) & set(figures.get("tables_left", ()))
        if figures.get("orders", 0) >= answer["number"] and not left:
            return
        pause.wait(LOOK_S)


def _asked(assembly: Assembly, command: str, **words: object) -> dict[str, Any]:
    name = assembly.config.name
    try:
        answer = control.ask(assembly.config.socket, command, **words)
    except control.NotRunning as error:
        msg = f"pipeline {name} does not run: {error}"
        raise Fatal(msg, hint=f"`cdcsync run {name}` starts it", status=ExitStatus.CONFIG) from error
    if "error" in answer:
        raise Fatal(str(answer["error"]), hint="nothing was changed", status=ExitStatus.CONFIG)
    return answer


class Keys:
    """Keys by table, each once as long as it waits; bounded."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Row, None]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, table: str, key: Row) -> list[Row]:
        """Take one; return all of the table when they are enough for an order."""
        waiting = self._waiting.setdefault(table, {})
        if key not in waiting:
            waiting[key] = None
            self._bytes[table] = self._bytes.get(table, 0) + len(orjson.dumps(written_keys([key])))
        enough = len(waiting) >= KEYS_MAX or self._bytes[table] >= KEYS_BYTES_MAX
        return self._taken(table) if enough else []

    def rest(self) -> Iterator[tuple[str, list[Row]]]:
        """Yield what is left."""
        for table in list(self._waiting):
            if self._waiting[table]:
                yield table, self._taken(table)

    def _taken(self, table: str) -> list[Row]:
        self._bytes[table] = 0
        return list(self._waiting.pop(table))


def keys_in(batches: Iterable[Batch], emptied: set[str]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the keys that changes touch, by table; note which tables were emptied."""
    keys = Keys()
    for batch in batches:
        for transaction in batch.transactions:
            changes = [item for item in transaction.items if isinstance(item, Change)]
            emptied |= {each.table.qualified for each in changes if each.operation is Operation.TRUNCATE}
            for table, key in named(changes):
                enough = keys.add(table.qualified, key)
                if enough:
                    yield table.qualified, enough
    yield from keys.rest()


def keys_of_targets(assembly: Assembly, tables: Sequence[str]) -> Iterator[tuple[str, list[Row]]]:
    """Yield all keys that the targets of these source tables have, as the sources name them.

    Raises Fatal where a target's key is not its source's, or several sources share the target.
    """
    facts = assembly.facts()
    scanner = assembly.sink.scanner
    if scanner is None:
        msg = f"the keys in {assembly.config.sink.system} cannot be read back"
        raise Fatal(msg, hint="build the table anew instead", status=ExitStatus.CONFIG)
    chosen = [_Keyed(assembly, table, facts.tables) for table in facts.tables if table.qualified in tables]
    for each in chosen:
        keys = Keys()
        with closing(scanner(assembly.config.sink.config, assembly.sink_context(facts))) as target:
            for row in target.scan(each.target):
                enough = keys.add(each.source.qualified, each.key(row))
                if enough:
                    yield each.source.qualified, enough
            yield from keys.rest()


class _Keyed:
    """A target's key columns, and where in them its source's key is."""

    def __init__(self, assembly: Assembly, table: Table, all_: Sequence[Table]) -> None:
        plans = assembly.mapping.plans(table)
        sharing = [each for each in all_ if each is not table]
        if len(plans) != 1 or plans[0].by is not None or plans[0].history or plans[0].delete != "hard":
            raise _unlike(table, "has several targets, a history, or keeps what is deleted")
        plan = plans[0]
        if any(target.qualified == plan.target.qualified for target in assembly.mapping.tables(sharing)):
            raise _unlike(table, "shares its target with another table")
        names = [plan.lineage[at] for at in plan.target.key_at]
        if set(names) != set(table.key):
            raise _unlike(table, f"has the key {', '.join(table.key)}, and its target another")
        self.source = table
        self.target = type(table)(
            plan.target.schema,
            plan.target.name,
            tuple(plan.target.columns[at] for at in plan.target.key_at),
            plan.target.key,
        )
        self._order = [names.index(name) for name in table.key]

    def key(self, row: Row) -> Row:
        """Return the source's key."""
        return tuple(row[at] for at in self._order)


def _unlike(table: Table, why: str) -> Fatal:
    msg = f"table {table.qualified} {why}: its target's keys are not the source's"
    return Fatal(msg, hint="build the table anew instead: `cdcsync rebuild`", status=ExitStatus.CONFIG)
