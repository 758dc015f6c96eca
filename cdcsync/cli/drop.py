"""`cdcsync drop`: remove what a pipeline keeps at its ends."""

from __future__ import annotations

import click


@click.command(short_help="Remove slot, publication, position and lock of a pipeline.")
@click.argument("pipeline")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(pipeline: str, *, yes: bool) -> None:
    """Remove what the pipeline keeps at the source, its stored position and its lock. It must not run.

    The target tables and their rows stay, and so do dead letters and the pipeline's file.

    \b
    cdcsync drop orders
    """  # noqa: D301  \b is click's
    from cdcsync import config  # noqa: PLC0415  help needs none of it
    from cdcsync.assembly import Assembly  # noqa: PLC0415
    from cdcsync.cli.asking import refuse_running  # noqa: PLC0415
    from cdcsync.positions import LockFile  # noqa: PLC0415

    loaded = config.load(pipeline)
    refuse_running(loaded, "what it reads from would be removed")
    if not yes:
        click.confirm(f"Remove slot, publication and position of {loaded.name}? It cannot be resumed then", abort=True)
    assembly = Assembly(loaded)
    cleared = assembly.clear()
    for line in assembly.source.drop(loaded.source.config, assembly.source_context):
        click.echo(line)
    if cleared:
        click.echo("removed: the stored position")
    lock = LockFile.at(loaded.state, loaded.name, "").path
    if lock.exists():
        lock.unlink()
        click.echo(f"removed: {lock}")
    letters = assembly.letters().count()
    click.echo(f"left: the target tables in {loaded.sink.system}, with their rows")
    if letters:
        click.echo(f"left: {letters} dead letters; `cdcsync rejected drop {pipeline} --all` removes them")
    if loaded.path is not None:
        click.echo(f"left: {loaded.path}")
