"""Compares one target table with the source tables that flow into it: ranges by hash, rows by key or as a bag."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import key_of
from cdcsync.errors import Fatal
from cdcsync.lines import encode_key
from cdcsync.types import Kind
from cdcsync.verify.bags import Bags, sorted_rows
from cdcsync.verify.pair import mapped_rows
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
        self._settling = Settling(self, ends.source.end, ends.patience_s)

    def run(self) -> TableResult:
        """Compare, and settle what differs on the way."""
        self._by_value = self._kept_by_value()
        if not self._target.key:
            self._compare_bags()
        else:
            self._settle_all(self._suspects())
        self._result.passed = self._settling.passed
        self._progress(self._result)
        return self._result

    def agree(self, source: Row | None, held: Row | None) -> bool:
        """Return whether a row of the source, mapped, and one of the target are the same."""
        if source is None:
            pair = self._pairs[0]
            gone = held is None or (pair.soft_at is not None and held[pair.soft_at] is not None)
            return gone or pair.keeps_deleted
        return held is not None and (source == held or not differing(self._target, source, held, self._by_value))

    def now(self, keys: Iterable[Row]) -> dict[Row, Row]:
        """Read the rows of these keys at the source, mapped."""
        wanted = list(keys)
        return {
            key_of(self._target, row): row
            for pair in self._pairs
            for row in mapped_rows(self._ends.transform, pair, self._ends.source.read(pair.source, wanted))
        }

    def held(self, keys: Iterable[Row]) -> dict[Row, Row]:
        """Read the rows of these keys at the target."""
        return {key_of(self._target, row): row for row in self._ends.sink.read(self._target, list(keys))}

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
            both = self._merged(self._source_rows(), self._ends.sink.scan(self._target))
        for source, held in both:
            if not self.agree(source, held):
                row = source if source is not None else held
                assert row is not None  # noqa: S101  one of both is there
                yield key_of(self._target, row)

    def _settle_all(self, suspects: Iterator[Row]) -> None:
        while some := list(dict.fromkeys(islice(suspects, SUSPECTS_MAX))):
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
                yield from self._merged(
                    iter(mapped_rows(self._ends.transform, pair, rows)),
                    iter(sink.rows(self._target, after, cut.last)),
                )
            self._progress(self._result)
            if cut.last is None:
                return
            after = cut.last

    def _merged(self, source_rows: Iterator[Row], sink_rows: Iterator[Row]) -> Iterator[tuple[Row | None, Row | None]]:
        """Join both by key, one row of each in memory."""
        sources, sinks = self._in_order(source_rows), self._in_order(sink_rows)
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
                yield from mapped_rows(self._ends.transform, pair, some)
                self._progress(self._result)

    def _in_order(self, rows: Iterator[Row]) -> Iterator[tuple[Any, Row]]:
        """Give (order, row), by key: as they come where both ends have one order, else sorted on disk."""
        kinds = [self._target.columns[index].type for index in self._target.key_at]
        if len(self._pairs) > 1 or any(kind.kind not in _ORDERED or kind.fixed for kind in kinds):
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
        source, held = settled.source, settled.held
        columns: list[str] = []
        if source is not None and held is not None:
            columns = differing(self._target, source, held, self._by_value)
        row = source if source is not None else held
        named: dict[str, object] = {}
        if row is not None:
            named = orjson.loads(encode_key(self._target, row) or "{}")
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
        return (digest(self._target, row, self._by_value) for row in rows)
