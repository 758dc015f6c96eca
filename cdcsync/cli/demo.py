"""`cdcsync demo`: a shop in PostgreSQL, kept in step in SQLite, to look at."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="See it work, with nothing but this package.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path("cdcsync-demo"))
@click.option("--seconds", type=click.FloatRange(min=1), help="End by itself; absent: Ctrl-C ends it.")
def command(directory: Path, seconds: float | None) -> None:
    """Start a PostgreSQL with a busy little shop in it, and carry its changes into SQLite.

    DIRECTORY keeps the pipeline's file, to read and edit, and both databases; started again, the demo
    goes on where it was. It ends by comparing every row: exit status 0 only when both are equal.

    \b
    cdcsync demo
    cdcsync demo /tmp/shop --seconds 20
    """  # noqa: D301  \b is click's
    from cdcsync import demo  # noqa: PLC0415  brings a server's binaries along

    raise SystemExit(demo.main(directory, seconds))
