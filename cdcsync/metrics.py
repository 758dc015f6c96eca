"""Every figure that a running pipeline shows, named once."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any


class State(enum.StrEnum):
    """What a pipeline is doing."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    UNREADY = "unready"
    """Blocked by a known, passing fault of one end; `fault` says which."""
    STOPPED = "stopped"


@dataclass(slots=True)
class Progress:
    """The figures of one pipeline since its process started. Written by its main thread alone."""

    state: State = State.STARTING
    fault: str = ""
    """The passing fault that blocks the pipeline, empty when none does."""
    position: str = ""
    """The saved position, encoded."""
    transactions: int = 0
    """Transactions delivered."""
    changes: int = 0
    """Items delivered, after the mapping."""
    read_changes: int = 0
    """Items taken from the source, before the mapping."""
    size_bytes: int = 0
    """Bytes taken from the source, as in its log."""
    rejected: int = 0
    """Changes put aside as dead letters or skipped."""
    reread: int = 0
    """Changes completed by rows read at the source."""
    commit_time_us: int = 0
    """Commit time at the source of the newest delivered transaction, microseconds since 1970 UTC."""
    lag_ms: float = 0.0
    """From that commit to its being durable in the sink."""
    faults: int = 0
    """Passing faults so far."""
    started_us: int = 0
    """When the process started to run the pipeline."""

    def figures(self) -> dict[str, Any]:
        """Return all figures by name, as JSON can carry them."""
        return asdict(self)
