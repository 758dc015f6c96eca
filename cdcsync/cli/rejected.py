"""`cdcsync rejected`: the dead letters of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cdcsync import config
from cdcsync.assembly import Assembly
from cdcsync.cli.asking import echo_json

if TYPE_CHECKING:
    from cdcsync.rejected import DeadLetters


@click.group(short_help="List, show or drop changes that were put aside.")
def command() -> None:
    """Look after the changes that mapping or sink would not take (`on_rejected: dead_letter`).

    \b
    cdcsync rejected list orders
    cdcsync rejected show orders 17
    cdcsync rejected drop orders 17 18
    """  # noqa: D301  \b is click's


@command.command("list")
@click.argument("pipeline")
@click.option("--healed", is_flag=True, help="Those too that a later row of their key made needless.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def show_all(pipeline: str, limit: int, *, healed: bool, as_json: bool) -> None:
    """List the dead letters, oldest first; no row is shown."""
    letters = [letter.summary() for letter in _letters(pipeline).list(healed=healed, limit=limit)]
    if as_json:
        echo_json(letters)
        return
    for letter in letters:
        mark = " (healed)" if letter["healed"] else ""
        click.echo(
            f"{letter['id']:>6}  {letter['commit_time']}  {letter['operation']} {letter['target']} "
            f"{letter['key'] or ''}: {letter['reason']}{mark}"
        )
    if not letters:
        click.echo("no dead letters")


@command.command()
@click.argument("pipeline")
@click.argument("number", type=int)
def show(pipeline: str, number: int) -> None:
    """Print one dead letter with its row, as JSON."""
    echo_json(_letters(pipeline).show(number).content())


@command.command()
@click.argument("pipeline")
@click.argument("numbers", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of the pipeline's.")
def drop(pipeline: str, numbers: tuple[int, ...], *, everything: bool) -> None:
    """Delete dead letters for good."""
    if everything == bool(numbers):
        raise click.UsageError("name dead letters by number, or give --all")
    dropped = _letters(pipeline).drop(None if everything else numbers)
    click.echo(f"{dropped} dropped")


def _letters(pipeline: str) -> DeadLetters:
    return Assembly(config.load(pipeline)).letters()
