"""Compares source and target through the mapping, under traffic; only settled differences are reported."""

from __future__ import annotations

import hashlib
import pickle
import sqlite3
import tempfile
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from cdcsync.change import Batch, Change, Operation, Transaction, key_of
from cdcsync.errors import Fatal
from cdcsync.lines import encode_key, encode_row
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cdcsync.change import Row, Table, Value
    from cdcsync.connectors import Scanner
    from cdcsync.ports import Transform
    from cdcsync.types import Type

CHUNK_ROWS: Final = 1000
SUSPECTS_MAX: Final = 500
"""Differing keys gathered before they are read again."""
REPORTED_MAX: Final = 1000
"""Differing keys named per table; past it they are counted."""
SAMPLES_MAX: Final = 64
"""Values of one hot source row remembered while it settles."""
STABLE_ROUNDS: Final = 3
PAUSE_S: Final = 0.05
_ORDERED: Final = {Kind.INTEGER, Kind.TEXT, Kind.UUID, Kind.ENUM}
"""Kinds of key columns that every scanner gives in one order; other keys are sorted here."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not the same at both ends."""

    key: dict[str, Any]
    kind: str
    """missing (at the target), extra (at the target) or different."""
    columns: tuple[str, ...] = ()
    """Names of the columns that differ."""


@dataclass(slots=True)
class TableResult:
    """What was found for one target table."""

    table: str
    rows: int = 0
    """Rows read at the source."""
    missing: int = 0
    extra: int = 0
    different: int = 0
    reread: int = 0
    """Keys that differed at first and were read again."""
    passed: bool = True
    """Whether the stored position passed the end of the source's log while rows were read again."""
    differences: list[Difference] = field(default_factory=list)
    """The first of them by key."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.extra or self.different)


@dataclass(slots=True)
class Result:
    """What was found for all tables."""

    tables: list[TableResult] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing differs in any table."""
        return all(table.equal for table in self.tables)

    @property
    def status(self) -> int:
        """The exit status: 0 when equal, 1 when not."""
        return 0 if self.equal else 1

    def figures(self) -> dict[str, Any]:
        """Return all as JSON can carry it."""
        return {"equal": self.equal, "tables": [asdict(table) | {"equal": table.equal} for table in self.tables]}


@dataclass(frozen=True, slots=True)
class Ends:
    """What is compared, and through what."""

    source: Scanner
    sink: Scanner
    transform: Transform
    stored: Callable[[], str | None] | None = None
    """The stored position; None: the sink keeps it, and its scanner's `end` is it."""
    patience_s: float = 60.0
    """How long a differing row may take to settle."""


def verify(
    ends: Ends, tables: Sequence[Table], *, progress: Callable[[TableResult], None] = lambda _result: None
) -> Result:
    """Compare the targets of these source tables; `progress` sees each table's figures as they grow.

    Bounded memory. Raises Transient and Fatal as the ends do.
    """
    groups: dict[str, list[_Pair]] = {}
    for table in tables:
        pair = _pair(ends.transform, table)
        if pair is not None:
            groups.setdefault(pair.target.qualified, []).append(pair)
    result = Result()
    for pairs in groups.values():
        comparison = _Comparison(ends, pairs, progress)
        result.tables.append(comparison.run())
    return result


class _Nowhere:
    """The position of the transactions in which scanned rows go through the mapping."""

    epoch = 0

    def encode(self) -> str:
        return "verify"

    def covers(self, other: _Nowhere) -> bool:  # noqa: ARG002  the protocol's
        return True


@dataclass(frozen=True, slots=True)
class _Pair:
    """One source table and its target."""

    source: Table
    """With the target's key, by the source's names, so that both scans have one order."""
    given: Table
    """As the source has it: what the mapping knows."""
    target: Table
    soft_at: int | None
    """Index of the column that soft delete sets."""
    keeps_deleted: bool
    """Deletes are ignored: rows gone from the source stay in the target."""


def _pair(transform: Transform, table: Table) -> _Pair | None:
    """Find out what the mapping does with a table by marked values; None when it does not take it."""
    marks = tuple(object() for _ in table.columns)
    mapped = _map(transform, [Change(table, Operation.READ, None, marks)])
    if not mapped or mapped[0].after is None:
        return None
    target, after = mapped[0].table, mapped[0].after
    came_from = {id(mark): column.name for mark, column in zip(marks, table.columns, strict=True)}
    names = [came_from.get(id(value)) for value in after]
    key = tuple(name for index in target.key_at if (name := names[index]) is not None)
    soft_at = keeps = None
    if target.key:
        deleted = _map(transform, [Change(table, Operation.DELETE, marks, None)])
        keeps = not deleted
        if deleted and deleted[0].after is not None:
            soft_at = next(index for index, name in enumerate(names) if name is None)
    return _Pair(replace(table, key=key), table, target, soft_at, bool(keeps))


def _map(transform: Transform, changes: Sequence[Change]) -> list[Change]:
    """Send changes through the mapping."""
    nowhere = _Nowhere()
    transaction = Transaction("verify", 0, nowhere, 0, changes, range(len(changes)))
    mapped = transform.apply(Batch((transaction,), nowhere, len(changes), 0))
    return [item for each in mapped.transactions for item in each.items if isinstance(item, Change)]


class _Suspect:
    """What is known of one differing key while it settles."""

    def __init__(self) -> None:
        self.samples: deque[Row | None] = deque(maxlen=SAMPLES_MAX)
        """Values at the source, oldest first."""
        self._end: Callable[[str], bool] | None = None
        self._rounds = 0

    def sample(self, row: Row | None, end: Callable[[str], bool]) -> None:
        """Take the source's value and the log's end after it; when the value moved, the proof begins again."""
        if self._end is None or self.samples[-1] != row:
            self._end = end
            self._rounds = 0
            self.samples.append(row)

    def is_proved(self, stored: str) -> bool:
        """Return whether the value stood still, in several rounds, while the target passed it."""
        if self._end is None or not self._end(stored):
            return False
        self._rounds += 1
        return self._rounds >= STABLE_ROUNDS


class _Comparison:
    """One target table and the source tables that flow into it."""

    def __init__(self, ends: Ends, pairs: Sequence[_Pair], progress: Callable[[TableResult], None]) -> None:
        self._ends = ends
        self._pairs = pairs
        self._progress = progress
        self._target = pairs[0].target
        self._result = TableResult(self._target.qualified)
        self._ordered = len(pairs) == 1 and all(
            kind.kind in _ORDERED and not kind.fixed for kind in _key_types(self._target)
        )
        self._waiting = threading.Event()

    def run(self) -> TableResult:
        """Compare, and settle what differs on the way."""
        if not self._target.key:
            self._compare_bags()
        else:
            self._compare_keys()
        self._progress(self._result)
        return self._result

    def _compare_keys(self) -> None:
        suspects: dict[Row, None] = {}
        for source, sink in self._merged():
            if source is not None and sink is not None and source == sink:
                continue
            if self._agree(source, sink):
                continue
            row = source if source is not None else sink
            assert row is not None  # noqa: S101  one of both is there
            suspects[key_of(self._target, row)] = None
            if len(suspects) >= SUSPECTS_MAX:
                self._settle(suspects)
                suspects = {}
        if suspects:
            self._settle(suspects)

    def _merged(self) -> Iterator[tuple[Row | None, Row | None]]:
        """Join both scans by key, one row of each in memory."""
        sources, sinks = self._in_order(self._source_rows()), self._in_order(self._ends.sink.scan(self._target))
        source, sink = next(sources, None), next(sinks, None)
        while source is not None or sink is not None:
            if sink is None or (source is not None and source[0] < sink[0]):
                assert source is not None  # noqa: S101  both cannot be None here
                yield source[1], None
                source = next(sources, None)
            elif source is None or sink[0] < source[0]:
                yield None, sink[1]
                sink = next(sinks, None)
            else:
                yield source[1], sink[1]
                source, sink = next(sources, None), next(sinks, None)

    def _source_rows(self) -> Iterator[Row]:
        for pair in self._pairs:
            rows = self._ends.source.scan(pair.source)
            while some := list(islice(rows, CHUNK_ROWS)):
                self._result.rows += len(some)
                yield from self._mapped(pair, some)
                self._progress(self._result)

    def _mapped(self, pair: _Pair, rows: Iterable[Row]) -> list[Row]:
        changes = [Change(pair.given, Operation.READ, None, row) for row in rows]
        return [change.after for change in _map(self._ends.transform, changes) if change.after is not None]

    def _in_order(self, rows: Iterator[Row]) -> Iterator[tuple[Any, Row]]:
        """Give (order, row), by key: as they come where both ends have one order, else sorted on disk."""
        if not self._ordered:
            yield from _sorted(self._target, rows)
            return
        last: Row | None = None
        for row in rows:
            order = key_of(self._target, row)
            if last is not None and order <= last:
                msg = f"rows of {self._target.qualified} do not come in the order of their key, or a key comes twice"
                raise Fatal(msg, hint="the key has to be unique at both ends; see `cdcsync check`")
            last = order
            yield order, row

    def _agree(self, source: Row | None, sink: Row | None) -> bool:
        if source is None:
            pair = self._pairs[0]
            gone = sink is None or (pair.soft_at is not None and sink[pair.soft_at] is not None)
            return gone or pair.keeps_deleted
        return sink is not None and not differing(self._target, source, sink)

    def _settle(self, suspects: dict[Row, None]) -> None:
        """Read the keys again from both ends until each agrees or is proved to differ.

        A target row agrees when it equals any value that the source had since the end was noted, and all before
        that end is applied: hot rows never stand still long enough for one pair of reads. It differs when the
        source's value stood still since before an end that the target has passed.
        """
        self._result.reread += len(suspects)
        passed = self._ends.source.end()
        left = {key: _Suspect() for key in suspects}
        until = time.monotonic() + self._ends.patience_s
        while left:
            sources = self._read_source(left)
            end = self._ends.source.end()
            for key, suspect in left.items():
                suspect.sample(sources.get(key), end)
            stored = self._stored() or ""
            has_passed = bool(stored) and passed(stored)
            sinks = {key_of(self._target, row): row for row in self._ends.sink.read(self._target, list(left))}
            late = time.monotonic() > until
            self._result.passed = self._result.passed and (has_passed or not late)
            for key, suspect in list(left.items()):
                held = sinks.get(key)
                agrees = has_passed and any(self._agree(sample, held) for sample in suspect.samples)
                if not (agrees or late or (has_passed and suspect.is_proved(stored))):
                    continue
                del left[key]
                if not agrees and not self._agree(sources.get(key), held):
                    self._report(key, sources.get(key), held)
            if left:
                self._waiting.wait(PAUSE_S / 10 if has_passed else PAUSE_S)

    def _stored(self) -> str | None:
        stored: str | None = self._ends.stored() if self._ends.stored is not None else self._ends.sink.end()
        return stored

    def _read_source(self, keys: Iterable[Row]) -> dict[Row, Row]:
        wanted = list(keys)
        return {
            key_of(self._target, row): row
            for pair in self._pairs
            for row in self._mapped(pair, self._ends.source.read(pair.source, wanted))
        }

    def _report(self, key: Row, source: Row | None, sink: Row | None) -> None:
        columns: tuple[str, ...] = ()
        if source is None:
            kind = "extra"
            self._result.extra += 1
        elif sink is None:
            kind = "missing"
            self._result.missing += 1
        else:
            kind = "different"
            self._result.different += 1
            columns = tuple(differing(self._target, source, sink))
        if len(self._result.differences) < REPORTED_MAX:
            row = source if source is not None else sink
            assert row is not None and key_of(self._target, row) == key  # noqa: S101, PT018
            named = orjson.loads(encode_key(self._target, row) or "{}")
            self._result.differences.append(Difference(named, kind, columns))

    def _compare_bags(self) -> None:
        """Compare rows without a key as a bag: each target count lies between the source's before and after."""
        with _Bags() as bags:
            bags.count("before", (_digest(self._target, row) for row in self._source_rows()))
            passed = self._ends.source.end()
            self._result.passed = self._wait(passed)
            bags.count("there", (_digest(self._target, row) for row in self._ends.sink.scan(self._target)))
            self._result.rows = 0
            bags.count("after", (_digest(self._target, row) for row in self._source_rows()))
            self._result.missing, self._result.extra = bags.differences()

    def _wait(self, passed: Callable[[str], bool]) -> bool:
        until = time.monotonic() + self._ends.patience_s
        while time.monotonic() < until:
            stored = self._stored()
            if stored is not None and passed(stored):
                return True
            self._waiting.wait(PAUSE_S)
        return False


class _Bags:
    """Counts of row digests in a temporary file, so that memory stays bounded."""

    def __enter__(self) -> Self:
        self._connection = sqlite3.connect("")
        columns = (
            "before INTEGER NOT NULL DEFAULT 0, there INTEGER NOT NULL DEFAULT 0, after INTEGER NOT NULL DEFAULT 0"
        )
        self._connection.execute(f"CREATE TABLE counts (digest BLOB PRIMARY KEY, {columns}) WITHOUT ROWID")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def count(self, column: str, digests: Iterator[bytes]) -> None:
        """Add one to the column for each digest."""
        self._connection.executemany(
            f"INSERT INTO counts (digest, {column}) VALUES (?, 1) "  # noqa: S608  a constant of this module
            f"ON CONFLICT (digest) DO UPDATE SET {column} = {column} + 1",
            ((digest,) for digest in digests),
        )

    def differences(self) -> tuple[int, int]:
        """Return how many rows are missing and how many are too many at the target."""
        query = "SELECT total(max(before - there, 0)), total(max(there - after, 0)) FROM counts"
        missing, extra = self._connection.execute(query).fetchone()
        return int(missing), int(extra)


def _sorted(table: Table, rows: Iterator[Row]) -> Iterator[tuple[str, Row]]:
    """Sort rows by the text of their key in a temporary file."""
    with tempfile.TemporaryDirectory(prefix="cdcsync-verify-") as folder:
        connection = sqlite3.connect(f"{folder}/rows.db")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, row BLOB) WITHOUT ROWID")
        try:
            connection.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?)",
                ((encode_key(table, row), pickle.dumps(row)) for row in rows),
            )
            for key, row in connection.execute("SELECT key, row FROM rows ORDER BY key"):
                yield key, pickle.loads(row)  # noqa: S301  written above
        finally:
            connection.close()


def _key_types(table: Table) -> list[Type]:
    return [table.columns[index].type for index in table.key_at]


def _digest(table: Table, row: Row) -> bytes:
    kinds = [column.type for column in table.columns]
    plain = tuple(_comparable(kind, value) for kind, value in zip(kinds, row, strict=True))
    return hashlib.blake2b(encode_row(table, plain), digest_size=16).digest()


def differing(table: Table, row: Row, other: Row) -> list[str]:
    """Return the names of the columns whose values differ in a form that both ends can hold."""
    return [
        column.name
        for column, value, held in zip(table.columns, row, other, strict=True)
        if not (value is held or value == held or _same(column.type, value, held))
    ]


def _same(kind: Type, value: Value, held: Value) -> bool:
    """Return whether two values that are not equal mean the same."""
    if value is None or held is None:
        return False
    if kind.kind is Kind.FLOAT:
        return bool(value != value and held != held)  # noqa: PLR0124  NaN alone is not itself
    if kind.kind is Kind.DECIMAL:
        return kind.scale is not None and Decimal(value) == Decimal(held)
    if kind.kind is Kind.JSON:
        return bool(_json(value) == _json(held))
    if kind.kind is Kind.TEXT and kind.fixed:
        return bool(value.rstrip(" ") == held.rstrip(" "))
    if kind.kind is Kind.ARRAY and kind.element is not None:
        return _same_array(kind.element, value, held)
    return False


def _same_array(element: Type, values: Sequence[Value], held: Sequence[Value]) -> bool:
    if len(values) != len(held):
        return False
    for value, other in zip(values, held, strict=True):
        if isinstance(value, tuple) and isinstance(other, tuple):
            if not _same_array(element, value, other):
                return False
        elif value != other and not _same(element, value, other):
            return False
    return True


def _comparable(kind: Type, value: Value) -> Value:
    """Return one form of values that mean the same, for digests."""
    if value is None:
        return None
    if kind.kind is Kind.TEXT and kind.fixed:
        return value.rstrip(" ")
    if kind.kind is Kind.FLOAT:
        return value + 0.0
    return value


def _json(text: str) -> object:
    import json  # noqa: PLC0415  its numbers can be exact, orjson's cannot

    return json.loads(text, parse_float=Decimal)
