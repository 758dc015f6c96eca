"""`cdcsync resume`: over the control socket."""

from __future__ import annotations

import click


@click.command(short_help="Deliver again after a pause.")
@click.argument("pipeline")
def command(pipeline: str) -> None:
    """Deliver again after a pause.

    It goes on exactly where it paused.

    \b
    cdcsync resume orders
    """  # noqa: D301  \b is click's
    from cdcsync.cli.asking import ask  # noqa: PLC0415  help needs none of it

    answer = ask(pipeline, "resume")
    click.echo(f"{answer['pipeline']} runs again")
