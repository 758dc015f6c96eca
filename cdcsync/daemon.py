"""Builds one pipeline from its file, runs it, and turns what ends it into an exit status."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from cdcsync.errors import CdcsyncError, Fatal, Transient
from cdcsync.metrics import Progress, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from cdcsync.assembly import Assembly
    from cdcsync.config import PipelineConfig
    from cdcsync.lanes import Lanes
    from cdcsync.pipeline import Pipeline, Surroundings

BUG: Final = 70
"""EX_SOFTWARE."""
UNAVAILABLE: Final = 75
"""EX_TEMPFAIL: a command that does not wait met a server that is away."""
INTERRUPTED: Final = 130
BACK_OFF_MAX_S: Final = 30.0
TURN_S: Final = 0.5
"""Longest step of a wait; the watchdog is fed at each."""


def guarded(act: Callable[[], object]) -> int:
    """Run a command; say in one message what ended it, and return the exit status.

    The one place that takes any exception: what is no verdict is a bug, said with its traceback.
    """
    try:
        act()
    except Fatal as fatal:
        return _complain(str(fatal), fatal.status)
    except Transient as fault:
        return _complain(f"{fault}\n  -> the {fault.end} is away: try again when it answers", UNAVAILABLE)
    except CdcsyncError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:  # noqa: BLE001  loud, non-zero: the operator sees that it is ours
        return _complain(f"this is a bug in cdcsync; nothing was skipped\n{traceback.format_exc()}", BUG)
    return 0


def _complain(message: str, status: int) -> int:
    from cdcsync.logs import redact  # noqa: PLC0415  structlog is slow to import, help does not need it

    sys.stderr.write(f"error: {redact(message)}\n")
    sys.stderr.flush()
    return int(status)


class Daemon:
    """One pipeline in one process: signals, control socket, systemd, and the pipeline on the main thread."""

    def __init__(self, config: PipelineConfig) -> None:
        import structlog  # noqa: PLC0415  slow to import

        from cdcsync.systemd import Notifier  # noqa: PLC0415  only a daemon has one

        self._config = config
        self._log = structlog.get_logger().bind(pipeline=config.name)
        self._notifier = Notifier()
        self._stopping = threading.Event()
        self._pipeline: Pipeline | Lanes | None = None
        self._assembly: Assembly | None = None
        self._before = Progress(started_us=time.time_ns() // 1000)
        """What is shown until the pipeline has figures of its own."""
        self._paused = False

    def run(self) -> None:
        """Run until a signal or `stop`. Raises Fatal; everything delivered is stored and acknowledged."""
        from cdcsync import ordering  # noqa: PLC0415  a daemon alone needs it
        from cdcsync.assembly import Assembly  # noqa: PLC0415  as above
        from cdcsync.control import Control  # noqa: PLC0415

        self._assembly = Assembly(self._config)
        self._assembly.make_state()
        for warning in self._config.warnings:
            self._log.warning("configuration", said=warning)
        commands = {"status": self._status, "pause": self._pause, "resume": self._resume}
        orders = ordering.orders(self._config.name, lambda: (self._assembly, self._pipeline))
        with Signals(self), Control(self._config.socket, commands, orders):
            self._log.info("starting", **self._assembly.words())
            pipeline = self._built(self._assembly)
            if pipeline is not None:
                _spare_collections()
                pipeline.run()
            self._log.info("stopped", position=self._progress.position)

    def stop(self) -> None:
        """Ask `run` to return after the write that is under way. Any thread, any signal handler."""
        self._stopping.set()
        self._notifier.stopping()
        if self._pipeline is not None:
            self._pipeline.stop()

    @property
    def _progress(self) -> Progress:
        return self._pipeline.progress if self._pipeline is not None else self._before

    def _built(self, assembly: Assembly) -> Pipeline | Lanes | None:
        """Return the pipeline once both ends could be asked what they are; None when stopped before."""
        dice, failures = random.Random(), 0  # noqa: S311  jitter
        while not self._stopping.is_set():
            try:
                pipeline = assembly.runner(self._surroundings())
            except Transient as fault:
                failures += 1
                self._back_off(fault, dice.uniform(0.5, 1) * min(BACK_OFF_MAX_S, 0.1 * 2 ** min(failures, 16)))
                continue
            if self._paused:
                pipeline.pause()
            self._pipeline = pipeline
            if self._stopping.is_set():
                pipeline.stop()
            return pipeline
        return None

    def _back_off(self, fault: Transient, delay_s: float) -> None:
        self._before.state = State.UNREADY
        self._before.faults += 1
        self._before.fault = f"{fault.end}: {fault}"
        self._log.warning("unready", end=fault.end.value, fault=str(fault), retry_in_s=round(delay_s, 2))
        until = time.monotonic() + delay_s
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            self._turned(State.UNREADY)
            self._stopping.wait(min(left, TURN_S))

    def _surroundings(self) -> Surroundings:
        from cdcsync.pipeline import Surroundings, no_trace  # noqa: PLC0415

        path = os.environ.get("CDCSYNC_TRACE")
        if not path:
            return Surroundings(trace=no_trace, turned=self._turned)
        from cdcsync.testing.trace import FileTrace  # noqa: PLC0415  only tests ask for a trace

        return Surroundings(trace=FileTrace(Path(path)), turned=self._turned)

    def _turned(self, state: State) -> None:
        progress = self._progress
        status = progress.fault or f"{state.value}, {progress.changes} changes"
        self._notifier.turned(ready=state in {State.RUNNING, State.PAUSED}, status=status)

    def _status(self) -> dict[str, Any]:
        words = self._assembly.words() if self._assembly is not None else {}
        figures = self._pipeline.figures() if self._pipeline is not None else self._before.figures()
        return {"pipeline": self._config.name, "process": os.getpid(), **words, **figures}

    def _pause(self) -> dict[str, Any]:
        self._paused = True
        if self._pipeline is not None:
            self._pipeline.pause()
        return {"pipeline": self._config.name, "paused": True}

    def _resume(self) -> dict[str, Any]:
        self._paused = False
        if self._pipeline is not None:
            self._pipeline.resume()
        return {"pipeline": self._config.name, "paused": False}


def _spare_collections() -> None:
    """Collect cycles seldom: rows make none, and a batch holds thousands of tuples that would be looked at in vain."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


class Stoppable(Protocol):
    """What ends in good order when it is asked to."""

    def stop(self) -> None:
        """Ask it; called by a signal handler."""
        ...


class Signals:
    """SIGTERM and SIGINT stop in good order; a second SIGINT ends the process where it stands."""

    def __init__(self, stoppable: Stoppable) -> None:
        self._stoppable = stoppable
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on) for number in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on(self, number: int, _frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            os.write(2, b"\ninterrupted twice: ended at once; the saved position stands\n")
            os._exit(INTERRUPTED)
        self._asked = True
        if number == signal.SIGINT:
            os.write(2, b"\nstopping after the write under way; again to end at once\n")
        self._stoppable.stop()
