"""`cdcsync run`: the daemon."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Carry the changes until stopped.")
@click.argument("pipeline", required=False)
@click.option("--source", metavar="URL", help="Where changes come from, in place of a file.")
@click.option("--sink", metavar="URL", help="Where they go.")
@click.option("--table", "tables", metavar="T", multiple=True, help="A source table: schema.name, glob or /regex/.")
@click.option(
    "--name", default="cdcsync", show_default=True, help="The pipeline's name: its position and slot go by it."
)
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it as a file, to edit."
)
def command(
    pipeline: str | None, source: str | None, sink: str | None, tables: tuple[str, ...], name: str, save: Path | None
) -> None:
    """Copy what is there, then carry every change, until SIGTERM or Ctrl-C.

    Started again, it goes on exactly where it was.

    \b
    cdcsync run orders
    cdcsync run ./orders.yaml
    cdcsync run --source postgres://me@db/shop --sink sqlite:shop.db --table 'public.*' --save shop.yaml

    Exit status: 0 stopped on request, 65 data, 70 a bug, 76 another process owns the pipeline,
    77 permission, 78 configuration. A server that is away is waited for.
    """  # noqa: D301  \b is click's
    from cdcsync import config  # noqa: PLC0415  help needs none of it
    from cdcsync.daemon import Daemon  # noqa: PLC0415

    if pipeline is not None:
        if source or sink or tables or save:
            raise click.UsageError("give either PIPELINE or --source, --sink and --table")
        Daemon(config.load(pipeline)).run()
        return
    if not (source and sink and tables):
        raise click.UsageError("give PIPELINE, or all of --source, --sink and --table")
    made = config.from_urls(source, sink, tables, name=name)
    if save is not None:
        try:
            config.save(made, save)
        except OSError as error:
            msg = f"--save {save}: {error.strerror}"
            raise click.UsageError(msg) from error
    Daemon(made).run()
