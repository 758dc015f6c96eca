"""Compares one target table with the source tables that flow into it: ranges by hash, rows by key or as a bag."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import key_of
from cdcsync.errors import Fatal
from cdcsync.lines import encode_key
from cdcsync.types import Kind
from cdcsync.verify.bags import Bags, Origins, sorted_rows
from cdcsync.verify.latest import Latest, by_key, sorted_latest
from cdcsync.verify.pair import mapped
from cdcsync.verify.result import TableResult
from cdcsync.verify.settle import Settled, Settling, described
from cdcsync.verify.values import differing, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cdcsync.change import Row
    from cdcsync.connectors import Ranges, Scanner
    from cdcsync.mapping import Mapping
    from cdcsync.verify.pair import Pair

CHUNK_ROWS: Final = 1000
RANGE_ROWS: Final = 2000
"""Rows hashed together at the servers."""
SUSPECTS_MAX: Final = 500
"""Differing keys gathered before they are read again."""
SOUGHT_MAX: Final = 20_000
"""The same where the source may have to be scanned to find them."""
REPORTED_MAX: Final = 1000
"""Differing keys named per table; past it they are counted."""
_ORDERED: Final = {Kind.INTEGER, Kind.TEXT, Kind.UUID, Kind.ENUM}
"""Kinds of key columns that every scanner gives in one order; other keys are sorted here."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What is compared, and through what."""

    source: Scanner
    sink: Scanner
    transform: Mapping
    stored: Callable[[], str | None] | None = None
    """The stored position; None: the sink keeps it, and its scanner's `end` is it."""
    patience_s: float = 60.0
    """How long a differing row may take to settle."""


class Comparison:
    """One target table and the source tables that flow into it."""

    def __init__(self, ends: Ends, pairs: Sequence[Pair], progress: Callable[[TableResult], None]) -> None:
        self._ends = ends
        self._pairs = pairs
        self._progress = progress
        self._target = pairs[0].target
        self._result = TableResult(self._target.qualified)
        self._by_value: frozenset[str] = frozenset()
        self._unknown = frozenset(name for pair in pairs for name in pair.unknown)
        self._history = pairs[0].time_at is not None
        self._by_key = all(pair.by_key for pair in pairs)
        self._origins = Origins()
        self._settling = Settling(self, ends.source.end, ends.patience_s)

    def run(self) -> TableResult:
        """Compare, and settle what differs on the way."""
        self._by_value = self._kept_by_value()
        if not self._target.key:
            self._compare_bags()
        else:
            self._settle_all(self._suspects())
        self._origins.close()
        self._result.passed = self._settling.passed
        self._progress(self._result)
        return self._result

    def agree(self, source: Row | None, held: Row | None) -> bool:
        """Return whether a row of the source, mapped, and one of the target are the same."""
        if source is None:
            pair = self._pairs[0]
            gone = held is None or (pair.soft_at is not None and held[pair.soft_at] is not None)
            return gone or pair.keeps_deleted or (isinstance(held, Latest) and held.is_deleted)
        if held is None:
            return False
        return any(
            source == each or not self._differing(source, each)
            for each in (held.present if isinstance(held, Latest) else (held,))
        )

    def _differing(self, source: Row, held: Row) -> list[str]:
        found = differing(self._target, source, held, self._by_value)
        return [name for name in found if name not in self._unknown]

    def now(self, keys: Iterable[Row]) -> dict[Row, Row]:
        """Read the rows of these keys at the source, mapped."""
        wanted = list(keys)
        found: dict[Row, Row] = {}
        for pair in self._pairs:
            read = self._ends.source.read(pair.source, wanted) if pair.by_key else self._sought(pair, wanted)
            found |= {key_of(self._target, made): made for _, made in mapped(pair, read, [])}
        return found

    def _sought(self, pair: Pair, wanted: Sequence[Row]) -> Iterator[Row]:
        """Yield the source's rows of computed keys: by where they came from, the others by looking at all rows."""
        left = set(wanted)
        if pair.given.key:
            names = [encode_key(self._target, self._row_of(key)) or "" for key in wanted]
            for row, made in mapped(pair, self._ends.source.read(pair.given, self._origins.of(names)), []):
                if key_of(self._target, made) in left:
                    left.discard(key_of(self._target, made))
                    yield row
        if left:
            for row, made in mapped(pair, self._ends.source.scan(pair.given), []):
                if key_of(self._target, made) in left:
                    yield row

    def _row_of(self, key: Row) -> Row:
        """Return a row of the target of which nothing but the key is set."""
        values = dict(zip(self._target.key_at, key, strict=True))
        return tuple(values.get(at) for at in range(len(self._target.columns)))

    def held(self, keys: Iterable[Row]) -> dict[Row, Row]:
        """Read the rows of these keys at the target."""
        rows = self._ends.sink.read(self._target, list(keys))
        if self._history:
            rows = list(by_key(self._target, rows).values())
        return {key_of(self._target, row): row for row in rows}

    def stored(self) -> str:
        """Return the stored position; empty when there is none."""
        found: str | None = self._ends.stored() if self._ends.stored is not None else self._ends.sink.end()
        return found or ""

    def _kept_by_value(self) -> frozenset[str]:
        asked = self._ends.sink.by_value
        if asked is None or all(column.type.kind is not Kind.JSON for column in self._target.columns):
            return frozenset()
        return frozenset(asked(self._target))

    def _suspects(self) -> Iterator[Row]:
        """Give the keys whose rows differ at first sight."""
        hashing = self._both_hash()
        if hashing is not None:
            both = self._unlike_in_ranges(*hashing)
        else:
            both = self._merged(self._in_order(self._source_rows()), self._held_in_order())
        for source, held in both:
            if not self.agree(source, held):
                row = source if source is not None else held
                assert row is not None  # noqa: S101  one of both is there
                yield key_of(self._target, row)

    def _settle_all(self, suspects: Iterator[Row]) -> None:
        most = SUSPECTS_MAX if self._by_key else SOUGHT_MAX
        while some := list(dict.fromkeys(islice(suspects, most))):
            self._result.reread += len(some)
            for settled in self._settling.settle(some):
                self._report(settled)

    def _both_hash(self) -> tuple[Pair, Ranges, Ranges] | None:
        """Return both servers' hashes where equal ones mean equal rows, None where rows have to be read."""
        source, sink, (pair, *others) = self._ends.source.ranges, self._ends.sink.ranges, self._pairs
        if source is None or sink is None or others or pair.hashed is None:
            return None
        if source.form != sink.form or not (source.takes(pair.hashed) and sink.takes(self._target)):
            return None
        return pair, source, sink

    def _unlike_in_ranges(self, pair: Pair, source: Ranges, sink: Ranges) -> Iterator[tuple[Row | None, Row | None]]:
        """Hash range after range at both servers; give the rows of those whose hashes differ."""
        hashed = pair.hashed
        assert hashed is not None  # noqa: S101  asked before
        after: Row | None = None
        while True:
            cut = source.cut(hashed, after, RANGE_ROWS)
            self._result.rows += cut.rows
            if sink.digest(self._target, after, cut.last) == cut.digest:
                self._result.hashed += cut.rows
            else:
                rows = source.rows(pair.source, after, cut.last)
                made = (row for _, row in self._mapped(pair, rows))
                held = iter(sink.rows(self._target, after, cut.last))
                yield from self._merged(self._in_order(made), self._in_order(held))
            self._progress(self._result)
            if cut.last is None:
                return
            after = cut.last

    def _merged(
        self, sources: Iterator[tuple[Any, Row]], sinks: Iterator[tuple[Any, Row]]
    ) -> Iterator[tuple[Row | None, Row | None]]:
        """Join both by key, one row of each in memory."""
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
                for row, made in self._mapped(pair, some):
                    if not pair.by_key and pair.given.key:
                        self._origins.put(encode_key(self._target, made) or "", key_of(pair.given, row))
                    yield made
                self._progress(self._result)

    def _mapped(self, pair: Pair, rows: Iterable[Row]) -> Iterator[tuple[Row, Row]]:
        """Map rows; those that the mapping rejects are counted."""
        refused: list[Row] = []
        yield from mapped(pair, rows, refused)
        self._result.rejected += len(refused)

    def _held_in_order(self) -> Iterator[tuple[Any, Row]]:
        if not self._history:
            return self._in_order(self._ends.sink.scan(self._target))
        return sorted_latest(self._target, self._ends.sink.scan(replace(self._target, key=())))

    def _in_order(self, rows: Iterator[Row]) -> Iterator[tuple[Any, Row]]:
        """Give (order, row), by key: as they come where both ends have one order, else sorted on disk."""
        kinds = [self._target.columns[index].type for index in self._target.key_at]
        if (
            self._history
            or not self._by_key
            or len(self._pairs) > 1
            or any(kind.kind not in _ORDERED or kind.fixed for kind in kinds)
        ):
            yield from sorted_rows(self._target, rows)
            return
        last: Row | None = None
        for row in rows:
            order = key_of(self._target, row)
            if last is not None and order <= last:
                msg = f"rows of {self._target.qualified} do not come in the order of their key, or a key comes twice"
                raise Fatal(msg, hint="the key has to be unique at both ends; see `cdcsync check`")
            last = order
            yield order, row

    def _report(self, settled: Settled) -> None:
        if isinstance(settled.held, Latest) and not settled.held.present:
            settled = settled._replace(held=None)
        source, held = settled.source, settled.held
        columns: list[str] = []
        if source is not None and held is not None:
            columns = self._differing(source, held)
        row = source if source is not None else held
        named: dict[str, object] = {}
        if row is not None:
            named = orjson.loads(encode_key(self._target, tuple(row)) or "{}")
        found = described(settled, named, columns)
        setattr(self._result, found.kind, getattr(self._result, found.kind) + 1)
        if len(self._result.differences) < REPORTED_MAX:
            self._result.differences.append(found)

    def _compare_bags(self) -> None:
        """Compare rows without a key as a bag: equal at once, or each target count between two of the source's."""
        with Bags() as bags:
            bags.count("before", self._digests(self._source_rows()))
            bags.count("there", self._digests(self._ends.sink.scan(self._target)))
            if bags.are_equal():
                return
            self._settling.wait()
            bags.count("there", self._digests(self._ends.sink.scan(self._target)))
            self._result.rows = 0
            bags.count("after", self._digests(self._source_rows()))
            self._result.missing, self._result.extra = bags.differences()

    def _digests(self, rows: Iterator[Row]) -> Iterator[bytes]:
        if self._unknown:
            known = [column.name not in self._unknown for column in self._target.columns]
            rows = (tuple(value if each else None for value, each in zip(row, known, strict=True)) for row in rows)
        return (digest(self._target, row, self._by_value) for row in rows)
