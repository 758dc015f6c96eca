"""Shows how far a running pipeline is with what it reads beside its log: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import click

from cdcsync.cli.asking import ask

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S: Final = 0.2
"""Between two looks."""
LINE_S: Final = 5.0
"""Between two lines where there is no terminal."""


def follow(pipeline: str, doing: str, over: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Show it until `over` says so of the snapshot's figures; return these."""
    show = _bar if sys.stderr.isatty() else _lines
    return show(pipeline, doing, over)


def figures_of(pipeline: str) -> dict[str, Any]:
    """Return what the pipeline shows of its snapshot."""
    figures: dict[str, Any] = ask(pipeline, "status")["snapshot"]
    return figures


def line_of(figures: dict[str, Any]) -> str:
    """Return the figures as a line."""
    parts = [f"{figures.get('rows', 0)} rows", f"about {figures.get('rows_left', 0)} left"]
    parts += [f"{figures['rows_per_s']} rows/s"] if figures.get("rows_per_s") else []
    parts += [f"{figures.get('chunks', 0)} chunks"]
    parts += [f"{length_of(figures['seconds_left'])} to go"] if figures.get("seconds_left") is not None else []
    parts += [f"waiting for {figures['held_by']}"] if figures.get("held_by") else []
    return ", ".join(parts)


def length_of(seconds: float) -> str:
    """Return a length of time as hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _lines(pipeline: str, doing: str, over: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    pause, waited = threading.Event(), LINE_S
    while not over(figures := figures_of(pipeline)):
        if waited >= LINE_S and figures.get("tables_left"):
            click.echo(f"{doing}: {line_of(figures)}", err=True)
            waited = 0.0
        pause.wait(LOOK_S)
        waited += LOOK_S
    return figures


def _bar(pipeline: str, doing: str, over: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    from rich.console import Console  # noqa: PLC0415  a terminal alone needs it
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    pause, before = threading.Event(), figures_of(pipeline).get("rows", 0)
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.completed:,.0f} of about {task.total:,.0f} rows"),
        TextColumn("{task.fields[more]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=1, more="")
        while not over(figures := figures_of(pipeline)):
            read = max(0, figures.get("rows", 0) - before)
            total = max(1, read + figures.get("rows_left", 0))
            progress.update(task, completed=read, total=total, description=_said(doing, figures), more=_more(figures))
            pause.wait(LOOK_S)
    return figures


def _said(doing: str, figures: dict[str, Any]) -> str:
    tables = figures.get("tables_left", ())
    return f"{doing} {tables[0]}{f' and {len(tables) - 1} more' if len(tables) > 1 else ''}" if tables else doing


def _more(figures: dict[str, Any]) -> str:
    if figures.get("held_by"):
        return f"[yellow]waiting for {figures['held_by']}"
    if figures.get("paused"):
        return "[yellow]paused"
    parts = [f"{figures['rows_per_s']:,} rows/s"] if figures.get("rows_per_s") else []
    parts += [f"{figures.get('chunks', 0)} chunks"]
    left = figures.get("seconds_left")
    return "  ".join([*parts, *([] if left is None else [f"{length_of(left)} to go"])])
