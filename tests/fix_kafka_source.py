"""Pipelines out of topics, in this process: into a target in memory or in PostgreSQL."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cdcsync.assembly import Assembly
from cdcsync.config import load
from cdcsync.pipeline import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cdcsync.pipeline import Pipeline

PATIENCE_S = 60.0


def until(reached: Callable[[], bool], what: str | Callable[[], str], within_s: float = PATIENCE_S) -> None:
    """Wait; fails naming what did not come."""
    end = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(0.05)


def flat(number: int, **row: Any) -> tuple[bytes, bytes]:
    """Return the record of a row whose key is `id`."""
    return json.dumps({"id": number}).encode(), json.dumps({"id": number, **row}).encode()


@dataclass
class Running:
    """A pipeline by its file, on a thread of its own."""

    path: Path
    state: Path
    fault: list[BaseException] = field(default_factory=list)
    pipeline: Pipeline | None = None

    def __enter__(self) -> Self:
        config = load(self.path, environ={"STATE_DIRECTORY": str(self.state)})
        assembly = Assembly(config)
        assembly.make_state()
        self.pipeline = assembly.pipeline(Surroundings())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        assert self.pipeline is not None
        try:
            self.pipeline.run()
        except BaseException as error:  # noqa: BLE001  the test looks at it
            self.fault.append(error)

    def ended(self) -> BaseException:
        """Return what ended it."""
        self._thread.join(PATIENCE_S)
        assert self.fault, "the pipeline goes on"
        return self.fault[0]

    def __exit__(self, *_: object) -> None:
        assert self.pipeline is not None
        self.pipeline.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
