"""Runs a pipeline for each lane that a group gives to this process; they are shared with the group's other members."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.metrics import Progress, State
from cdcsync.pipeline import no_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.pending import Pending
    from cdcsync.pipeline import Pipeline, Surroundings
    from cdcsync.ports import Group

POLL_S: Final = 0.2
AGAIN_S: Final = 1.0
"""After which a lane is taken again that another process took over though the group has it as ours."""
BACK_OFF_MAX_S: Final = 30.0
SILENCE_MAX_S: Final = 120.0
"""A lane whose loop does not turn for that long hangs: the watchdog is not fed any more."""


@dataclass(slots=True)
class _Lane:
    """One lane's pipeline on a thread of its own."""

    pipeline: Pipeline
    thread: ThreadPoolExecutor
    outcome: Future[None]


@dataclass(slots=True)
class _Turns:
    """When each lane's loop turned last."""

    clock: Callable[[], float]
    at: dict[str, float] = field(default_factory=dict)

    def of(self, lane: str) -> Callable[[State], None]:
        """Return what a lane calls at each turn."""
        self.at[lane] = self.clock()

        def turned(_state: State) -> None:
            self.at[lane] = self.clock()

        return turned


class Lanes:
    """Has a pipeline's face: the daemon runs either. `make` returns a new pipeline of a lane, by name."""

    def __init__(
        self, name: str, group: Group, make: Callable[[str, Surroundings], Pipeline], surroundings: Surroundings
    ) -> None:
        self._name = name
        self._group = group
        self._make = make
        self._around = surroundings
        self._lanes: dict[str, _Lane] = {}
        self._ours: set[str] = set()
        """What the group has given us."""
        self._again: dict[str, float] = {}
        """When a lane is to be taken again."""
        self._turns = _Turns(surroundings.clock)
        self._stopping = threading.Event()
        self._paused = False
        self._joined = False
        self._failures = 0
        self._fault = ""
        self._ended = Progress()
        """What lanes did that are no longer ours."""
        self._started_us = int(surroundings.wall_clock() * 1e6)
        self._log = structlog.get_logger().bind(pipeline=name)

    def run(self) -> None:
        """Run until `stop`; returns with everything delivered stored. Raises Fatal when only a person can go on."""
        try:
            while not self._stopping.is_set():
                try:
                    self._turn()
                except Transient as fault:
                    self._back_off(fault)
        finally:
            self._lose([*self._lanes])
            self._group.leave()

    def stop(self) -> None:
        """Ask `run` to return. Any thread, any signal handler."""
        self._stopping.set()
        for lane in [*self._lanes.values()]:
            lane.pipeline.stop()

    def pause(self) -> None:
        """Hold deliveries; this process stays a member."""
        self._paused = True
        for lane in [*self._lanes.values()]:
            lane.pipeline.pause()

    def resume(self) -> None:
        """Deliver again."""
        self._paused = False
        for lane in [*self._lanes.values()]:
            lane.pipeline.resume()

    def order(self, action: str, _tables: Sequence[str], _where: str, _pending: Sequence[Pending] = ()) -> int:
        """Refuse: rows are read beside a log by a source that is one process's own."""
        msg = f"{action}: a source that several processes share reads no rows beside its log"
        raise Fatal(msg, hint="copy everything again under another pipeline's name", status=ExitStatus.CONFIG)

    @property
    def progress(self) -> Progress:
        """The figures of all lanes together."""
        each = [lane.pipeline.progress for lane in [*self._lanes.values()]]
        total = Progress(started_us=self._started_us)
        for name in _SUMMED:
            setattr(total, name, sum(getattr(one, name) for one in (*each, self._ended)))
        total.commit_time_us = max((one.commit_time_us for one in each), default=0)
        total.lag_ms = max((one.lag_ms for one in each), default=0.0)
        total.fault = self._fault or next((one.fault for one in each if one.fault), "")
        total.state = self._state([one.state for one in each])
        return total

    def figures(self) -> dict[str, Any]:
        """Return all that is shown, as JSON can carry it. Any thread may ask."""
        lanes = {name: lane.pipeline.progress.figures() for name, lane in sorted(self._lanes.copy().items())}
        return {**self.progress.figures(), "snapshot": {}, "lanes": lanes}

    def _state(self, states: Sequence[State]) -> State:
        if self._stopping.is_set():
            return State.STOPPED
        if self._fault or State.UNREADY in states:
            return State.UNREADY
        if self._paused:
            return State.PAUSED
        return State.RUNNING if self._joined and State.STARTING not in states else State.STARTING

    def _turn(self) -> None:
        now = self._around.clock()
        silent = [lane for lane in self._lanes if now - self._turns.at.get(lane, now) > SILENCE_MAX_S]
        if not silent:
            self._around.turned(self.progress.state)
        if not self._joined:
            self._group.join(self._gain, self._lose)
            self._joined = True
        self._group.poll(POLL_S)
        self._fault, self._failures = "", 0
        self._watch()

    def _gain(self, lanes: Sequence[str]) -> None:
        """Start what is ours now."""
        self._log.info("lanes given", lanes=list(lanes))
        self._ours.update(lanes)
        for lane in lanes:
            self._start(lane)

    def _lose(self, lanes: Sequence[str]) -> None:
        """End what is no longer ours: what was delivered is stored, what was only read is dropped."""
        if lanes:
            self._log.info("lanes taken", lanes=list(lanes))
        self._ours.difference_update(lanes)
        going = [lane for lane in lanes if lane in self._lanes]
        for name in going:
            self._lanes[name].pipeline.stop()
        for name in lanes:
            self._again.pop(name, None)
        for name in going:
            fault = self._end(name)
            if fault is not None and not _is_lost(fault):
                self._log.warning("a lane ended with a fault", lane=name, fault=str(fault))

    def _start(self, name: str) -> None:
        around = replace(self._around, trace=no_trace, turned=self._turns.of(name))
        pipeline = self._make(name, around)
        if self._paused:
            pipeline.pause()
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"cdcsync-{name}")
        self._lanes[name] = _Lane(pipeline, thread, thread.submit(pipeline.run))

    def _end(self, name: str) -> BaseException | None:
        """Wait for a lane that was asked to stop, or has ended by itself; return what it ended with."""
        lane = self._lanes[name]
        fault = lane.outcome.exception()
        lane.thread.shutdown(wait=True)
        del self._lanes[name]
        self._turns.at.pop(name, None)
        for figure in _SUMMED:
            setattr(self._ended, figure, getattr(self._ended, figure) + getattr(lane.pipeline.progress, figure))
        return fault

    def _watch(self) -> None:
        """Look at lanes that have ended by themselves. Raises what ended one, unless another process has taken it."""
        for name in [name for name, lane in self._lanes.items() if lane.outcome.done()]:
            fault = self._end(name)
            if fault is not None and not _is_lost(fault):
                raise fault
            self._log.warning("another process has taken a lane", lane=name, said=str(fault or ""))
            self._again[name] = self._around.clock() + AGAIN_S
        for name in [name for name, at in self._again.items() if at <= self._around.clock()]:
            del self._again[name]
            if name in self._ours and name not in self._lanes:
                self._start(name)

    def _back_off(self, fault: Transient) -> None:
        """The group does not answer; the lanes look after themselves."""
        self._failures += 1
        self._fault = f"{fault.end}: {fault}"
        delay_s = min(BACK_OFF_MAX_S, 0.1 * 2 ** min(self._failures, 16)) * self._around.dice.uniform(0.5, 1)
        self._log.warning("unready", fault=str(fault), retry_in_s=round(delay_s, 2))
        until = self._around.clock() + delay_s
        while not self._stopping.is_set() and (left := until - self._around.clock()) > 0:
            self._around.turned(State.UNREADY)
            self._stopping.wait(min(left, POLL_S))


_SUMMED: Final = ("transactions", "changes", "read_changes", "size_bytes", "rejected", "reread", "faults")


def _is_lost(fault: BaseException) -> bool:
    return isinstance(fault, Fatal) and fault.status is ExitStatus.OWNERSHIP
