"""`cdcsync positions`: look at, set or forget where a pipeline goes on."""

from __future__ import annotations

import click

from cdcsync import config, control
from cdcsync.assembly import Assembly
from cdcsync.cli.asking import echo_json, refuse_running


@click.group(short_help="Show, set or clear the stored position.")
def command() -> None:
    """Look at, set or forget where a pipeline goes on.

    \b
    cdcsync positions show orders
    cdcsync positions set orders 16/B374D848
    cdcsync positions clear orders
    """  # noqa: D301  \b is click's


@command.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(pipeline: str, *, as_json: bool) -> None:
    """Print the stored position; works while the pipeline runs, too.

    Where several processes share the source, it is that of all its lanes, as the store has them.
    """
    assembly = Assembly(config.load(pipeline))
    try:
        answer = control.ask(assembly.config.socket, "status")
    except control.NotRunning:
        answer = {}
    found = {"position": answer.get("position", ""), "running": bool(answer)}
    if not found["running"] or "lanes" in answer:
        stored = assembly.stored()
        found["position"] = stored.position if stored else ""
    if as_json:
        echo_json(found)
    else:
        click.echo(found["position"] or "no position is stored")


@command.command("set", short_help="Store a position to go on from.")
@click.argument("pipeline")
@click.argument("position")
def put(pipeline: str, position: str) -> None:
    """Store a POSITION to go on from, in a new epoch. The pipeline must not run.

    As `show` prints it (in quotes), a time as 2026-11-24T10:00:00Z, `earliest`, or a word of the source (PostgreSQL: an
    LSN, or a transaction's id as `cdcsync tail` shows it; MySQL and MariaDB: file:offset, or a GTID set). It is checked
    against the server.

    \b
    cdcsync positions set orders 16/B374D848
    cdcsync positions set orders 2026-11-24T10:00:00Z
    cdcsync positions set orders "$(cat position.json)"

    What lies between the old and the new position is skipped, or delivered again. To go back with a look at what
    that means use `cdcsync replay --rewind`.
    """  # noqa: D301  \b is click's
    from cdcsync.replay import origin_of  # noqa: PLC0415  the others do without

    loaded = config.load(pipeline)
    refuse_running(loaded, "its position is its own")
    assembly = Assembly(loaded)
    located = origin_of(assembly).locate(position)
    assembly.make_state()
    for line in assembly.put(located.position):
        click.echo(line, err=True)
    stored = assembly.stored()
    click.echo(stored.position if stored else "")


@command.command(short_help="Forget the stored position.")
@click.argument("pipeline")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(pipeline: str, *, yes: bool) -> None:
    """Forget the stored position, and nothing else. The pipeline must not run.

    To copy everything anew use `cdcsync drop`, which removes the slot at the source too.
    """
    loaded = config.load(pipeline)
    refuse_running(loaded, "its position is its own")
    if not yes:
        click.confirm(f"Forget the position of {loaded.name}? It cannot be resumed then", abort=True)
    click.echo("cleared" if Assembly(loaded).clear() else "no position was stored")
