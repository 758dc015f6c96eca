"""The snapshot's protocol against a model of a server whose commits are in the log before they are visible."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from cdcsync.change import UNCHANGED, Change, Column, Operation, Table
from cdcsync.pending import Pending
from cdcsync.snapshot import Chunk, Cut, Held, Limits, Opened, Report, Snapshot, Taken, TooLarge
from cdcsync.types import Kind, Type
from cdcsync.window import Window, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import pytest

    from cdcsync.window import View

KEYS = 8
TABLE = Table("s", "t", (Column("id", Type(Kind.INTEGER)), Column("v", Type(Kind.INTEGER))), ("id",))
FIRST = Pending(1, "s.t", ("id",))

Step = tuple[str, int, int]
"""What happens next, and two numbers that say where."""


@dataclass(frozen=True)
class Seen:
    """A view of the model's server."""

    transactions: frozenset[int]
    end: int

    def sees(self, transaction: Hashable) -> bool:
        return transaction in self.transactions

    def is_behind(self, place: int) -> bool:
        return place >= self.end


@dataclass
class Server:
    """Commits go into the log at once; any time later, in any order, they become visible."""

    log: list[list[Change]] = field(default_factory=list)
    visible: set[int] = field(default_factory=set)
    values: int = 0

    def state(self, transactions: set[int] | frozenset[int] | None = None) -> dict[int, tuple[Any, ...]]:
        """Return the rows by key, as those see them who see these transactions."""
        rows: dict[int, tuple[Any, ...]] = {key: (key, 0) for key in range(0, KEYS, 2)}
        for number, changes in enumerate(self.log):
            if transactions is None or number in transactions:
                for change in changes:
                    apply(rows, change)
        return rows

    def commit(self, kind: int, key: int) -> None:
        """Commit an upsert, a delete, a move of a key or a truncate. One row is changed by one at a time."""
        self.values += 1
        rows, row = self.state(), (key, self.values)
        if kind == 0 and key in rows:
            change = Change(TABLE, Operation.DELETE, (key, UNCHANGED), None)
        elif kind == 1 and key in rows and (key + 3) % KEYS not in rows:
            change = Change(TABLE, Operation.UPDATE, (key, UNCHANGED), ((key + 3) % KEYS, self.values))
        elif kind == 2:
            change = Change(TABLE, Operation.TRUNCATE, None, None)
        elif key in rows:
            change = Change(TABLE, Operation.UPDATE, (key, UNCHANGED), row)
        else:
            change = Change(TABLE, Operation.INSERT, None, row)
        touched = {row[0] for row in (change.before, change.after) if row is not None}
        for number in set(range(len(self.log))) - self.visible:
            if kind == 2 or not touched.isdisjoint(_touched(self.log[number])):
                self.visible.add(number)
        self.log.append([change])

    def show(self, at: int) -> None:
        """Let one more transaction become visible."""
        hidden = sorted(set(range(len(self.log))) - self.visible)
        if hidden:
            self.visible.add(hidden[at % len(hidden)])

    def look(self) -> Seen:
        return Seen(frozenset(self.visible), max(self.visible, default=-1) + 1)


def _touched(changes: list[Change]) -> set[Any]:
    """Return the keys; a truncate touches all."""
    if changes[0].operation is Operation.TRUNCATE:
        return set(range(KEYS))
    return {row[0] for change in changes for row in (change.before, change.after) if row is not None}


def apply(rows: dict[Any, tuple[Any, ...]], change: Change) -> None:
    """Write one change."""
    if change.operation is Operation.TRUNCATE:
        rows.clear()
        return
    if change.before is not None:
        rows.pop(change.before[0], None)
    if change.after is not None:
        rows[change.after[0]] = change.after


@dataclass
class Reading:
    """A chunk on its way: begun, then its view opened, then reported."""

    chunk: Chunk
    view: Seen | None = None


class Workers:
    """Reads chunks of the model's server, step by step."""

    def __init__(self, server: Server, rows_max: int) -> None:
        self.server = server
        self.rows_max = rows_max
        self.readings: list[Reading] = []
        self.said: list[Report] = []
        self.read: list[tuple[Any, Any]] = []
        """Ranges that were read whole."""

    def begin(self, chunk: Chunk, bytes_max: int) -> None:
        del bytes_max
        self.readings.append(Reading(chunk))

    def reports(self) -> list[Report]:
        said, self.said = self.said, []
        return said

    def abandon(self, number: int) -> None:
        self.readings = [each for each in self.readings if each.chunk.number != number]

    def running(self) -> frozenset[Hashable]:
        return frozenset(set(range(len(self.server.log))) - self.server.visible)

    def turn(self, at: int, unseen_by: Callable[[Chunk, View], list[Hashable]]) -> None:
        """Open one chunk's view, or read in it."""
        if not self.readings:
            return
        reading = self.readings[at % len(self.readings)]
        chunk = reading.chunk
        if reading.view is None:
            view = self.server.look()
            if unseen_by(chunk, view):
                self.said.append(Held(chunk.number, "somebody"))
            else:
                reading.view = view
                self.said.append(Opened(chunk.number, view))
            return
        self.readings.remove(reading)
        rows = self.server.state(reading.view.transactions)
        after = -1 if chunk.after is None else int(chunk.after[0])
        keys = [key for key in sorted(rows) if key > after]
        last = None if len(keys) < self.rows_max else (str(keys[self.rows_max - 1]),)
        changes = [Change(TABLE, Operation.READ, None, rows[key]) for key in keys[: self.rows_max]]
        self.said += [Cut(chunk.number, last), Taken(chunk.number, reading.view, changes, 1, 0.1)]
        self.read.append((chunk.after, last))


class World:
    """A pipeline from the model's server, that may be killed at any step."""

    def __init__(self, rows_max: int, unseen_by: Callable[[Chunk, View], list[Hashable]] = Chunk.unseen_by) -> None:
        self.server = Server()
        self.rows_max = rows_max
        self.unseen_by = unseen_by
        self.target: dict[Any, tuple[Any, ...]] = {}
        self.place = 0
        self.stored: tuple[Pending, ...] = (FIRST,)
        self.count = 0
        self.start()

    def start(self) -> None:
        """Begin at what is stored: the target, the place and the pending tables are one."""
        self.workers = Workers(self.server, self.rows_max)
        self.snapshot = Snapshot(
            self.stored, self.workers, limits=Limits(), clock=lambda: 0.0, unproven=self.workers.running()
        )

    def step(self, step: Step) -> None:
        word, first, second = step
        if word == "commit":
            self.server.commit(first, second % KEYS)
        elif word == "show":
            self.server.show(first)
        elif word == "deliver":
            self.deliver()
        elif word == "work":
            self.workers.turn(first, self.unseen_by)
        elif word == "turn":
            self.turn()
        else:
            self.start()

    def deliver(self) -> None:
        if self.place == len(self.server.log):
            return
        self.snapshot.began(self.place)
        for change in self.server.log[self.place]:
            self.snapshot.note(self.place, change)
            apply(self.target, change)
        self.place += 1

    def turn(self) -> None:
        for merged in self.snapshot.turn(self.place):
            for change in merged.changes:
                apply(self.target, change)
            self.stored = merged.pending
            self.count += 1
            self.snapshot.delivered(self.count)
            self.check_merged(merged.changes)
        self.snapshot.stored(self.count)

    def check_merged(self, changes: Any) -> None:
        """A row that was just merged is what the source has at this place of the log, neither older nor newer."""
        rows = self.server.state(set(range(self.place)))
        for change in changes:
            assert rows.get(change.after[0]) == change.after

    def finish(self) -> None:
        """Let everything become visible and be read."""
        for _ in range(400):
            self.server.show(0)
            self.deliver()
            self.turn()
            self.workers.turn(0, self.unseen_by)
            if self.snapshot.done and self.place == len(self.server.log):
                return
        raise AssertionError("the snapshot does not end")


def run(steps: list[Step], rows_max: int, unseen_by: Callable[[Chunk, View], list[Hashable]]) -> bool:
    """Return whether the target is the source in the end."""
    world = World(rows_max, unseen_by)
    try:
        for step in steps:
            world.step(step)
        world.finish()
    except AssertionError:
        return False
    return world.target == world.server.state()


WORDS = ["commit"] * 4 + ["show", "deliver", "deliver", "work", "work", "work", "turn", "turn", "kill"]
STEPS = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 3), st.integers(0, KEYS - 1)), max_size=60)


@given(STEPS, st.integers(1, 4))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_target_is_the_source_whenever_commits_become_visible(steps: list[Step], rows_max: int) -> None:
    world = World(rows_max)
    for step in steps:
        world.step(step)
    world.finish()

    assert world.target == world.server.state()


def blind(_chunk: Chunk, _view: View) -> list[Hashable]:
    """Take any view, as if what is in the log could be seen."""
    return []


def all_seen(self: Window, _view: View) -> frozenset[Any] | None:
    """Take every row, as if what the log gave since the chunk was begun were in it."""
    return None if self.overflown else frozenset()


def found(broken: Callable[[list[Step]], bool]) -> bool:
    """Return whether some steps make it go wrong."""
    try:
        find(STEPS, broken, settings=settings(max_examples=5000, deadline=None, phases=[Phase.generate], database=None))
    except NoSuchExample:
        return False
    return True


def test_the_model_catches_a_snapshot_without_the_rule_of_visibility() -> None:
    assert found(lambda steps: not run(steps, 3, blind))


def test_the_model_catches_a_window_that_believes_in_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "stale", all_seen)

    assert found(lambda steps: not run(steps, 3, Chunk.unseen_by))


def test_the_model_catches_a_chunk_that_is_merged_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seen, "is_behind", lambda _self, _place: True)

    assert found(lambda steps: not run(steps, 3, Chunk.unseen_by))


def test_a_kill_has_no_more_than_one_chunk_per_worker_read_again() -> None:
    world = World(1)
    kills = 0
    for turn in range(200):
        world.turn()
        world.workers.turn(0, Chunk.unseen_by)
        world.workers.turn(1, Chunk.unseen_by)
        if turn % 7 == 3 and not world.snapshot.done:
            read, kills = world.workers.read, kills + 1
            world.start()
            world.workers.read = read
    world.finish()

    assert world.target == world.server.state()
    assert kills > 0
    assert len(world.workers.read) - len(set(world.workers.read)) <= kills * Limits().workers


def started(reports: list[Report], **limits: Any) -> tuple[Snapshot, Workers, list[float]]:
    workers, now = Workers(Server(), 2), [0.0]
    snapshot = Snapshot([FIRST], workers, limits=Limits(**limits), clock=lambda: now[0])
    snapshot.turn(0)
    workers.said = reports
    return snapshot, workers, now


def row(key: int) -> Change:
    return Change(TABLE, Operation.READ, None, (key, 0))


def everything(_transaction: Hashable = 0) -> Seen:
    return Seen(frozenset(range(100)), 0)


def test_a_chunk_that_is_too_large_is_read_again_in_halves() -> None:
    snapshot, workers, _ = started([TooLarge(1)])

    snapshot.turn(0)

    assert [each.chunk.rows_max for each in workers.readings] == [1000]
    assert snapshot.figures.again == 1


def test_more_noted_keys_than_the_bound_have_the_chunk_read_again() -> None:
    snapshot, workers, _ = started([Cut(1, ("5",))], window_bytes_max=1000)
    for number in range(10):
        snapshot.began(number)
        snapshot.note(number, Change(TABLE, Operation.INSERT, None, (number, 0)))
    workers.said.append(Taken(1, everything(), [row(1)], 1, 0.1))

    merged = snapshot.turn(10)

    assert merged == []
    assert [(each.chunk.number, each.chunk.after) for each in workers.readings] == [(2, None)]
    assert workers.readings[0].chunk.must_see == frozenset(range(10))


def test_what_a_view_sees_takes_no_room_of_the_window() -> None:
    snapshot, workers, _ = started([Opened(1, everything()), Cut(1, ("5",))], window_bytes_max=1000)
    snapshot.turn(0)
    for number in range(90):
        snapshot.began(number)
        snapshot.note(number, Change(TABLE, Operation.INSERT, None, (number, 0)))
    workers.said.append(Taken(1, everything(), [row(1)], 1, 0.1))

    (merged,) = snapshot.turn(90)

    assert [change.after for change in merged.changes] == [(1, 0)]


def test_a_chunk_waits_for_those_before_it_in_its_table() -> None:
    snapshot, workers, _ = started([Cut(1, ("5",))])
    snapshot.turn(0)
    assert [each.chunk.after for each in workers.readings] == [None, ("5",)]

    workers.said = [Cut(2, None), Taken(2, everything(), [row(6)], 1, 0.1)]
    assert snapshot.turn(0) == []
    workers.said = [Taken(1, everything(), [row(1)], 1, 0.1)]
    got = snapshot.turn(0)

    assert [[change.after for change in merged.changes] for merged in got] == [[(1, 0)], [(6, 0)]]
    assert [merged.pending for merged in got] == [(Pending(1, "s.t", ("id",), ("5",), 1),), ()]


def test_rows_per_second_hold_the_next_chunk_back() -> None:
    snapshot, workers, now = started([Cut(1, ("5",))], rows_per_s_max=1000)
    workers.said.append(Taken(1, everything(), [row(n) for n in range(2000)], 1, 0.1))
    snapshot.turn(0)
    snapshot.delivered(1)
    snapshot.stored(1)

    begun = []
    for now[0] in (0.5, 1.5, 2.5):
        snapshot.turn(0)
        begun.append(len(workers.readings))

    assert begun == [1, 1, 2]
    assert workers.readings[-1].chunk.rows_max == 500


def test_a_paused_snapshot_begins_nothing_and_goes_on_where_it_was() -> None:
    snapshot, workers, _ = started([Cut(1, ("5",))])
    snapshot.paused = True
    snapshot.turn(0)
    assert len(workers.readings) == 1

    snapshot.paused = False
    snapshot.turn(0)

    assert [each.chunk.after for each in workers.readings] == [None, ("5",)]


def test_a_cancelled_table_is_not_read_on_and_another_is() -> None:
    snapshot, workers, _ = started([])
    snapshot.add([Pending(0, "s.u", ("id",))])

    assert snapshot.cancel(["s.t"]) == ["s.t"]
    snapshot.turn(0)

    assert [each.chunk.pending.table for each in workers.readings] == ["s.u"]


def test_a_key_that_the_log_did_not_carry_has_the_chunk_read_again() -> None:
    window = Window(1000)

    window.note(1, Change(TABLE, Operation.UPDATE, (UNCHANGED, 1), (UNCHANGED, 2)))

    assert window.overflown


def test_without_a_key_a_row_is_known_by_all_its_values() -> None:
    keyless = Table("s", "t", TABLE.columns)

    assert identity(keyless, (1, 2)) == (1, 2)
    assert identity(TABLE, (1, UNCHANGED)) == (1,)


def test_what_is_pending_comes_back_from_its_encoding() -> None:
    given = [FIRST, Pending(7, "s.u", ("a", "b"), ("1", "x"), 12, "a > 3", first=False)]

    assert [Pending.decode(each.encode()) for each in given] == given


def test_transactions_that_have_ended_are_forgotten_where_no_chunk_asks_for_them() -> None:
    snapshot, workers, _ = started([])
    snapshot.paused = True
    for number in range(30_000):
        snapshot.began(number)
    snapshot.paused = False
    workers.server.log = [[] for _ in range(30_000)]
    workers.server.visible = set(range(29_990))
    workers.said = [Cut(1, ("5",))]

    snapshot.turn(0)

    assert workers.readings[-1].chunk.must_see == frozenset(range(29_990, 30_000))
