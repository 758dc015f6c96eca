"""The pipeline against ends in memory: the position never runs ahead of what is durable."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cdcsync.change import UNCHANGED, Change, Column, Operation, Table
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.mapping.model import TableMapping
from cdcsync.mapping.transform import Mapping
from cdcsync.metrics import State
from cdcsync.pipeline import OnRejected, Pipeline, Policy, Surroundings
from cdcsync.reader import Limits
from cdcsync.rejected import DeadLetters
from cdcsync.testing.memory import MemoryDatabase, MemoryPosition, MemorySink, MemorySource, MemoryStore, Unmapped
from cdcsync.testing.trace import Step, check_steps
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from cdcsync.change import Batch, Item, Position, Row, Transaction

TABLE = Table("shop", "orders", (Column("id", Type(Kind.INTEGER, bits=64)), Column("note", Type(Kind.TEXT))), ("id",))


def inserted(identity: int, note: object = "new") -> Change:
    """Return an insert of one row."""
    return Change(TABLE, Operation.INSERT, None, (identity, note))


def updated(identity: int, note: object) -> Change:
    """Return an update without an old row."""
    return Change(TABLE, Operation.UPDATE, (identity, UNCHANGED), (identity, note))


class Recorder:
    """A trace in memory."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, event: str, position: str, changes: int) -> None:
        self.steps.append(Step(event, position, changes, 0, time.monotonic_ns()))


def run_until(pipeline: Pipeline, reached: Callable[[], bool]) -> None:
    """Run the pipeline here, and stop it from a thread once `reached`, or after ten seconds."""

    def watch() -> None:
        end = time.monotonic() + 10
        while not reached() and time.monotonic() < end:
            time.sleep(0.005)
        pipeline.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        pipeline.run()
    finally:
        watcher.join()
    assert reached()


def quick(recorder: Recorder, seed: int = 1) -> Surroundings:
    """Return surroundings with fixed dice."""
    return Surroundings(trace=recorder, dice=random.Random(seed))


POLICY = Policy(back_off_max_s=0.02, heartbeat_s=0.1, limits=Limits(poll_s=0.01))


def test_all_of_the_log_arrives_and_the_order_durable_saved_acknowledged_holds() -> None:
    log: Sequence[Sequence[Item]] = [[inserted(n)] for n in range(200)]
    source, database, recorder = MemorySource(log), MemoryDatabase(), Recorder()
    pipeline = Pipeline(source, Unmapped(), MemorySink(database), policy=POLICY, surroundings=quick(recorder))

    run_until(pipeline, lambda: pipeline.progress.changes == 200)

    assert len(database.rows["shop.orders"]) == 200
    assert database.stored[""].position == "1:200:0"
    assert source.acknowledged[-1] == "1:200:0"
    check_steps(recorder.steps, MemoryPosition.decode)


class LateSink(MemorySink):
    """Says of no batch that it is durable before it is asked."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self._under_way: list[Batch] = []

    def write(self, batch: Batch) -> Position | None:
        self._under_way.append(batch)
        return None

    def arrived(self) -> Position | None:
        durable = None
        while self._under_way:
            durable = super().write(self._under_way.pop(0))
        return durable

    def flush(self) -> Position | None:
        return self.arrived()


def test_what_a_sink_has_under_way_is_stored_when_nothing_more_comes() -> None:
    log: Sequence[Sequence[Item]] = [[inserted(n)] for n in range(20)]
    source, database, recorder = MemorySource(log), MemoryDatabase(), Recorder()
    pipeline = Pipeline(source, Unmapped(), LateSink(database), policy=POLICY, surroundings=quick(recorder))

    run_until(pipeline, lambda: pipeline.progress.position == "1:20:0")

    assert len(database.rows["shop.orders"]) == 20
    assert pipeline.progress.changes == 20
    assert pipeline.progress.transactions == 20
    assert source.acknowledged[-1] == "1:20:0"
    check_steps(recorder.steps, MemoryPosition.decode)


class FailingSink(MemorySink):
    """Fails every third write before it, and every fifth after it: its answer is lost."""

    writes = 0

    def write(self, batch: Batch) -> Position | None:
        self.writes += 1
        if self.writes % 3 == 0:
            raise Transient(End.SINK, "no answer")
        durable = super().write(batch)
        if self.writes % 5 == 0:
            raise Transient(End.SINK, "the answer was lost")
        return durable


def test_a_sink_that_fails_before_and_after_its_commit_loses_and_doubles_nothing() -> None:
    table = Table("shop", "history", TABLE.columns)
    log: Sequence[Sequence[Item]] = [[Change(table, Operation.INSERT, None, (n, "x"))] for n in range(50)]
    database, recorder = MemoryDatabase(), Recorder()
    pipeline = Pipeline(
        MemorySource(log),
        Unmapped(),
        FailingSink(database),
        policy=Policy(back_off_max_s=0.01, limits=Limits(poll_s=0.01, changes_max=3)),
        surroundings=quick(recorder),
    )

    run_until(pipeline, lambda: len(database.appended.get("shop.history", ())) >= 50)

    assert [row[0] for row in database.appended["shop.history"]] == list(range(50))
    assert pipeline.progress.faults > 3
    check_steps(recorder.steps, MemoryPosition.decode)


class FailingSource(MemorySource):
    """Loses its connection at every seventh poll."""

    polls = 0

    def poll(self, timeout_s: float) -> Batch | None:
        self.polls += 1
        if self.polls % 7 == 0:
            raise Transient(End.SOURCE, "connection lost")
        return super().poll(timeout_s)


def test_a_source_that_loses_its_connection_goes_on_from_the_saved_position() -> None:
    log: Sequence[Sequence[Item]] = [[inserted(n)] for n in range(50)]
    database, recorder = MemoryDatabase(), Recorder()
    pipeline = Pipeline(
        FailingSource(log), Unmapped(), MemorySink(database), policy=POLICY, surroundings=quick(recorder)
    )

    run_until(pipeline, lambda: len(database.rows.get("shop.orders", ())) == 50)

    check_steps(recorder.steps, MemoryPosition.decode)


def test_a_transaction_in_parts_is_seen_only_when_it_is_complete() -> None:
    source = MemorySource([[inserted(n) for n in range(95)]], part_max=10)
    database, recorder = MemoryDatabase(), Recorder()
    pipeline = Pipeline(source, Unmapped(), MemorySink(database), policy=POLICY, surroundings=quick(recorder))

    run_until(pipeline, lambda: "" in database.stored)

    assert len(database.rows["shop.orders"]) == 95
    assert [step.event for step in recorder.steps if step.event != "start"] == ["durable", "save", "acknowledge"]


class Nothing(Unmapped):
    """Filters everything."""

    def apply(self, batch: Batch) -> Batch:
        import dataclasses  # noqa: PLC0415  only here

        emptied = [dataclasses.replace(each, items=(), ordinals=()) for each in batch.transactions]
        return dataclasses.replace(batch, transactions=tuple(emptied), changes=0)


def test_a_fully_filtered_stream_moves_the_position() -> None:
    source, database = MemorySource([[inserted(n)] for n in range(20)]), MemoryDatabase()
    pipeline = Pipeline(source, Nothing(), MemorySink(database), policy=POLICY, surroundings=quick(Recorder()))

    run_until(pipeline, lambda: pipeline.progress.position == "1:20:0")

    assert source.acknowledged[-1] == "1:20:0"


def test_a_position_filtered_away_is_stored_at_stop() -> None:
    database = MemoryDatabase()
    source = MemorySource([[inserted(0)]])
    policy = Policy(heartbeat_s=3600, limits=Limits(poll_s=0.01))
    pipeline = Pipeline(source, Nothing(), MemorySink(database), policy=policy, surroundings=quick(Recorder()))
    run_until(pipeline, lambda: pipeline.progress.position == "1:1:0")
    source.append([inserted(1)])
    again = Pipeline(source, Nothing(), MemorySink(database), policy=policy, surroundings=quick(Recorder()))

    run_until(again, lambda: again.progress.read_changes == 1)

    assert database.stored[""].position == "1:2:0"


def test_a_rejected_change_stops_by_default_and_the_position_stays_before_it() -> None:
    database = MemoryDatabase()
    source = MemorySource([[inserted(0)], [updated(7, UNCHANGED)], [inserted(1)]])
    policy = Policy(limits=Limits(poll_s=0.01, changes_max=1))
    pipeline = Pipeline(source, Unmapped(), MemorySink(database), policy=policy, surroundings=quick(Recorder()))

    with pytest.raises(Fatal, match=r"rejected.*shop\.orders"):
        pipeline.run()

    assert database.stored[""].position == "1:1:0"


def test_a_dead_letter_is_durable_before_its_position_and_the_rest_goes_on(tmp_path: Path) -> None:
    database, letters = MemoryDatabase(), DeadLetters(tmp_path, "pipeline")
    source = MemorySource([[inserted(0), updated(7, UNCHANGED)], [inserted(1)], [updated(7, UNCHANGED)]])
    policy = Policy(on_rejected=OnRejected.DEAD_LETTER, limits=Limits(poll_s=0.01))
    letters.open()
    pipeline = Pipeline(
        source, Unmapped(), MemorySink(database), letters=letters, policy=policy, surroundings=quick(Recorder())
    )

    run_until(pipeline, lambda: "" in database.stored and database.stored[""].position == "1:3:0")

    assert sorted(database.rows["shop.orders"]) == [(0,), (1,)]
    assert [(letter.version & 7, letter.ordinal) for letter in letters.list()] == [(1, 1), (3, 0)]
    letters.close()


def test_a_complete_row_heals_its_dead_letter(tmp_path: Path) -> None:
    database, letters = MemoryDatabase(), DeadLetters(tmp_path, "pipeline")
    source = MemorySource([[updated(7, UNCHANGED)], [updated(7, "whole")], [updated(7, UNCHANGED)]])
    policy = Policy(on_rejected=OnRejected.DEAD_LETTER, limits=Limits(poll_s=0.01, changes_max=1))
    letters.open()
    pipeline = Pipeline(
        source, Unmapped(), MemorySink(database), letters=letters, policy=policy, surroundings=quick(Recorder())
    )

    run_until(pipeline, lambda: "" in database.stored and database.stored[""].position == "1:3:0")

    assert database.rows["shop.orders"] == {(7,): (7, "whole")}
    assert letters.is_empty
    letters.close()


def test_a_change_that_the_mapping_rejects_is_parked_under_its_targets_name_and_key(tmp_path: Path) -> None:
    entry = {"from": "shop.orders", "to": "sold", "key": ["mail"], "rename": {"note": "mail"}}
    table = Table("shop", "orders", (TABLE.columns[0], Column("note", Type(Kind.TEXT), nullable=False)), ("id",))
    unproved = Change(table, Operation.UPDATE, (7, UNCHANGED), (7, "a@b"))
    whole = Change(table, Operation.INSERT, None, (7, "a@b"))
    letters = DeadLetters(tmp_path, "pipeline")
    letters.open()

    def run(*transactions: Sequence[Item]) -> None:
        database = MemoryDatabase()
        policy = Policy(on_rejected=OnRejected.DEAD_LETTER, limits=Limits(poll_s=0.01, changes_max=1))
        transform = Mapping.of([TableMapping.model_validate(entry)])
        pipeline = Pipeline(
            MemorySource(transactions),
            transform,
            MemorySink(database),
            letters=letters,
            policy=policy,
            surroundings=quick(Recorder()),
        )
        last = f"1:{len(transactions)}:0"
        run_until(pipeline, lambda: "" in database.stored and database.stored[""].position == last)

    run([unproved])
    (got,) = letters.list()
    run([inserted(0)], [whole])

    assert (got.target, got.key) == ("sold", '{"mail":"a@b"}')
    assert letters.is_empty
    letters.close()


class Rereading(MemorySource):
    """A source that gives the note of a row again."""

    def reread(self, table: Table, keys: Iterable[Row], transactions: Sequence[Transaction]) -> list[Row]:
        assert table == TABLE
        assert len(transactions) == 1
        return [(*key, "again") for key in keys]


@pytest.mark.parametrize(("source", "want"), [(Rereading, {(1,): (1, "again")}), (MemorySource, {})])
def test_a_filter_over_a_value_that_was_not_logged_has_the_row_read_again(
    source: type[MemorySource], want: dict[Row, Row], tmp_path: Path
) -> None:
    letters = DeadLetters(tmp_path, "pipeline")
    letters.open()
    database = MemoryDatabase()
    entry = TableMapping.model_validate({"from": TABLE.qualified, "where": "note <> 'old'"})
    pipeline = Pipeline(
        source([[Change(TABLE, Operation.UPDATE, (1, UNCHANGED), (1, UNCHANGED))]]),
        Mapping.of([entry]),
        MemorySink(database),
        letters=letters,
        policy=Policy(on_rejected=OnRejected.DEAD_LETTER, limits=Limits(poll_s=0.01)),
        surroundings=quick(Recorder()),
    )

    run_until(pipeline, lambda: "" in database.stored and database.stored[""].position == "1:1:0")

    assert next(iter(database.rows.values()), {}) == want
    assert letters.is_empty is bool(want)
    letters.close()


def test_a_stored_position_over_a_target_without_our_mark_is_refused() -> None:
    kept, emptied = MemoryDatabase(), MemoryDatabase()
    store = MemoryStore(kept)
    store.open("")
    store.save(MemoryPosition(1, 5))
    pipeline = Pipeline(MemorySource([]), Unmapped(), MemorySink(emptied), positions=store)

    with pytest.raises(Fatal, match="no mark"):
        pipeline.run()


def test_a_second_pipeline_on_the_same_lane_is_refused() -> None:
    database = MemoryDatabase()
    MemoryStore(database).open("")
    pipeline = Pipeline(MemorySource([]), Unmapped(), MemorySink(database))

    with pytest.raises(Fatal, match="held"):
        pipeline.run()


def test_a_pipeline_that_was_taken_over_writes_nothing() -> None:
    database = MemoryDatabase()
    source = MemorySource([[inserted(0)]])
    pipeline = Pipeline(source, Unmapped(), MemorySink(database), policy=POLICY, surroundings=quick(Recorder()))

    def take_over() -> None:
        while not pipeline.progress.changes:
            time.sleep(0.005)
        database.fences[""] += 1
        source.append([inserted(1)])

    thief = threading.Thread(target=take_over)
    thief.start()
    with pytest.raises(Fatal, match="taken over"):
        pipeline.run()

    thief.join()
    assert sorted(database.rows["shop.orders"]) == [(0,)]


class Replaced(MemorySource):
    """Another pipeline has taken the lane, and has moved the log on: the log refuses us."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__([])
        self._database = database

    def poll(self, timeout_s: float) -> Batch | None:  # noqa: ARG002  the port's signature
        self._database.fences[""] += 1
        raise Fatal("what lies between is lost", hint="copy everything again")


def test_a_pipeline_whose_log_was_moved_on_by_its_successor_says_so() -> None:
    database = MemoryDatabase()
    pipeline = Pipeline(
        Replaced(database), Unmapped(), MemorySink(database), policy=POLICY, surroundings=quick(Recorder())
    )

    with pytest.raises(Fatal, match="taken over") as caught:
        pipeline.run()

    assert caught.value.status is ExitStatus.OWNERSHIP


def test_a_paused_pipeline_delivers_nothing_and_goes_on_when_resumed() -> None:
    database = MemoryDatabase()
    source = MemorySource([[inserted(0)]])
    pipeline = Pipeline(source, Unmapped(), MemorySink(database), policy=POLICY, surroundings=quick(Recorder()))
    seen: list[tuple[State, int]] = []

    def steer() -> None:
        while not pipeline.progress.changes:
            time.sleep(0.005)
        pipeline.pause()
        while pipeline.progress.state is not State.PAUSED:
            time.sleep(0.005)
        source.append([inserted(1)])
        time.sleep(0.1)
        seen.append((pipeline.progress.state, pipeline.progress.changes))
        pipeline.resume()

    steering = threading.Thread(target=steer)
    steering.start()
    run_until(pipeline, lambda: pipeline.progress.changes == 2)

    steering.join()
    assert seen == [(State.PAUSED, 1)]
