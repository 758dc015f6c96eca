"""The checker of the line on the wall finds every step that is out of order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cdcsync.testing.memory import MemoryPosition
from cdcsync.testing.trace import FileTrace, Step, check_steps, deliveries_around, read_steps

if TYPE_CHECKING:
    from pathlib import Path


def steps(*events: tuple[str, str]) -> list[Step]:
    """Return steps of one process."""
    return [Step(event, position, 1, 1, at) for at, (event, position) in enumerate(events)]


def test_a_run_in_order_passes() -> None:
    check_steps(
        steps(("start", ""), ("durable", "1:1:0"), ("save", "1:1:0"), ("acknowledge", "1:1:0"), ("start", "1:1:0")),
        MemoryPosition.decode,
    )


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ((("start", ""), ("save", "1:1:0")), "saved, not durable"),
        ((("start", ""), ("durable", "1:1:0"), ("acknowledge", "1:1:0")), "acknowledged, not saved"),
        ((("start", ""), ("durable", "1:1:0"), ("save", "1:2:0")), "saved, not durable"),
        ((("start", ""), ("durable", "1:1:0"), ("save", "1:1:0"), ("start", "")), "before what was saved"),
    ],
)
def test_a_step_ahead_of_its_time_fails(wrong: tuple[tuple[str, str], ...], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_steps(steps(*wrong), MemoryPosition.decode)


def test_a_trace_is_read_back_and_a_torn_line_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    trace = FileTrace(path)
    trace("start", "", 0)
    trace("durable", "1:1:0", 5)
    with path.open("ab") as file:
        file.write(b'{"event":"sa')

    got = read_steps(path)

    assert [(step.event, step.position, step.changes) for step in got] == [("start", "", 0), ("durable", "1:1:0", 5)]


def test_a_kill_counts_only_between_two_deliveries() -> None:
    delivered = [Step("durable", "1:1:0", 1, 1, at) for at in (10, 20, 50)]

    assert deliveries_around(delivered, [15, 30]) == [(1, 1), (1, 1)]
    assert deliveries_around(delivered, [5, 60]) == [(0, 3), (3, 0)]
