"""What the demo shows: live in a terminal, one line a second elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cdcsync.demo import shop

if TYPE_CHECKING:
    from collections.abc import Mapping

BARS: Final = "▁▂▃▄▅▆▇█"
HISTORY: Final = 48
"""Looks that the little curve reaches back."""


@dataclass(frozen=True, slots=True)
class Look:
    """Everything the screen shows, taken at one moment."""

    at: float
    """Monotonic, seconds."""
    source_rows: Mapping[str, int]
    target_rows: Mapping[str, int]
    written: Mapping[str, int]
    """Rows written by the shop since the start, by table."""
    transactions: int
    said: str
    status: Mapping[str, Any] | None
    """The pipeline's figures; None while it does not answer."""


@dataclass(slots=True)
class View:
    """Turns looks into a screen or a line; remembers enough for rates."""

    source: str
    target: str
    file: str
    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=HISTORY))
    began: float = field(default_factory=time.monotonic)

    def add(self, look: Look) -> None:
        """Take one more look."""
        self.looks.append(look)

    def screen(self) -> Panel:
        """Return the whole screen."""
        parts = (self._ends(), self._tables(), self._figures(), Text(), self._foot())
        return Panel(
            Group(*parts),
            title="[bold]cdcsync demo[/]",
            subtitle="Ctrl-C: stop the shop, drain, verify",
            box=box.ROUNDED,
            width=92,
            padding=(1, 2),
        )

    def line(self) -> str:
        """Return one plain line."""
        look = self.looks[-1]
        status = look.status or {}
        rows = sum(look.target_rows.values())
        return (
            f"{look.at - self.began:5.1f} s  {status.get('state', 'starting'):<9} "
            f"{self._delivered_per_s():7,.0f} changes/s  lag {status.get('lag_ms', 0.0):7.1f} ms  "
            f"rows {sum(look.source_rows.values()):,} -> {rows:,}  {look.said}"
        )

    def _ends(self) -> Text:
        return Text.assemble(
            (self.source, "bold cyan"), (" ── WAL ──▶ ", "dim"), ("cdcsync", "bold"), (" ── rows, position ──▶ ", "dim"),
            (self.target, "bold green"),
        )  # fmt: skip

    def _tables(self) -> Table:
        look = self.looks[-1]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
        table.add_column("table")
        for name in ("rows in PostgreSQL", "rows in SQLite", "written/s", "written"):
            table.add_column(name, justify="right")
        for name in shop.TABLES:
            here, there = look.source_rows.get(name, 0), look.target_rows.get(name, 0)
            table.add_row(
                Text(f"shop.{name}"),
                f"{here:,}",
                Text(f"{there:,}", "green" if here == there else "yellow"),
                f"{self._written_per_s(name):,.0f}",
                f"{look.written.get(name, 0):,}",
            )
        return table

    def _figures(self) -> Table:
        status = self.looks[-1].status or {}
        grid = Table.grid(padding=(0, 3))
        grid.add_column(style="dim")
        grid.add_column()
        state = str(status.get("state", "starting"))
        shown = Text(state, "bold green" if state == "running" else "bold yellow")
        if status.get("fault"):
            shown.append(f"  {status['fault']}", "yellow")
        grid.add_row("state", shown)
        grid.add_row("delivered", f"{self._delivered_per_s():,.0f} changes/s   {self._curve()}")
        grid.add_row("in all", f"{status.get('changes', 0):,} changes, {status.get('transactions', 0):,} transactions")
        grid.add_row("lag", f"{status.get('lag_ms', 0.0):,.1f} ms from commit there to commit here")
        grid.add_row("position", Text(_shown(str(status.get("position", ""))), overflow="ellipsis", no_wrap=True))
        grid.add_row("the shop", Text(self.looks[-1].said, overflow="ellipsis", no_wrap=True))
        return grid

    def _foot(self) -> Text:
        return Text.assemble(("pipeline file  ", "dim"), self.file, ("   (kill -9 and start again: it resumes)", "dim"))

    def _written_per_s(self, name: str) -> float:
        return self._per_s(lambda look: look.written.get(name, 0), 5)

    def _delivered_per_s(self) -> float:
        return self._per_s(_delivered, 5)

    def _per_s(self, figure: Any, looks: int) -> float:
        known = list(self.looks)[-looks:]
        seconds = known[-1].at - known[0].at
        return max(0.0, (figure(known[-1]) - figure(known[0])) / seconds) if seconds > 0 else 0.0

    def _curve(self) -> Text:
        known = list(self.looks)
        steps = [max(0, _delivered(after) - _delivered(before)) for before, after in zip(known, known[1:], strict=False)]
        highest = max(steps, default=0) or 1
        return Text("".join(BARS[step * (len(BARS) - 1) // highest] for step in steps), "green")


def _shown(position: str) -> str:
    """Return a position's parts as words."""
    parts = orjson.loads(position) if position else {}
    return "   ".join(f"{name} {value}" for name, value in parts.items() if name not in {"system", "slot"})


def _delivered(look: Look) -> int:
    return int((look.status or {}).get("changes", 0))


def copied(written: Counter[str]) -> dict[str, int]:
    """Return the counts as they are now."""
    return dict(written)
