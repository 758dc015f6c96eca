"""`cdcsync pause`: over the control socket."""

from __future__ import annotations

import click


@click.command(short_help="Hold a running pipeline's deliveries; its source stays connected.")
@click.argument("pipeline")
def command(pipeline: str) -> None:
    """Hold a running pipeline's deliveries; its source stays connected.

    The position stays where it is; the source keeps its log until you resume.

    \b
    cdcsync pause orders
    """  # noqa: D301  \b is click's
    from cdcsync.cli.asking import ask  # noqa: PLC0415  help needs none of it

    answer = ask(pipeline, "pause")
    click.echo(f"{answer['pipeline']} paused")
