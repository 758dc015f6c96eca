"""`cdcsync replay`: a stretch of the log again, by the pipeline itself or to another sink."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cdcsync.replay import Copying, Mending, Plan


@click.command(short_help="Deliver a stretch of the log again, or to another sink.")
@click.argument("pipeline")
@click.option(
    "--from", "start", metavar="PLACE", required=True, help="Where it begins: a position, a time, `earliest`."
)
@click.option("--to", "end", metavar="PLACE", help="The first place not wanted; absent: the end of the log now.")
@click.option("--rewind", is_flag=True, help="The pipeline itself goes back, and on from there.")
@click.option(
    "--sink", metavar="URL|PIPELINE", help="Give the changes as logged to this sink: a URL, or another file's."
)
@click.option("--as-now", is_flag=True, help="Write the present rows of the keys in the range (the default).")
@click.option("--table", "--tables", "tables", metavar="T", multiple=True, help="Only this table; not with --rewind.")
@click.option("--dry-run", is_flag=True, help="Say what it would do, and end.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Say it as one JSON object.")
def command(  # noqa: PLR0913  one parameter per option
    pipeline: str,
    start: str,
    end: str | None,
    sink: str | None,
    tables: tuple[str, ...],
    *,
    rewind: bool,
    as_now: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Say what lies between two places of the log, then deliver it again.

    A PLACE is a position as `cdcsync positions show` prints it, a time as 2026-11-24T10:00:00Z, `earliest`, or a word of
    the source. PostgreSQL: an LSN, or a transaction's id as `cdcsync tail` shows it. MySQL and MariaDB: file:offset, or
    a GTID set.

    \b
    cdcsync replay orders --from 2026-11-24T10:00:00Z --to 2026-11-24T11:00:00Z
    cdcsync replay orders --from 2026-11-24T10:00:00Z --rewind --dry-run
    cdcsync replay orders --from 16/B374D848 --to 16/B3760000 --sink jsonl:again.jsonl --table shop.orders

    Without --rewind and --sink the pipeline has to run: the changes only name the keys, whose present rows are read at
    the source and written, so that nothing goes back. --rewind: the pipeline must not run. --sink: it may; if this is
    interrupted, the same command goes on.
    """  # noqa: D301  \b is click's
    from cdcsync import config, replay  # noqa: PLC0415  help needs none of it
    from cdcsync.assembly import Assembly  # noqa: PLC0415
    from cdcsync.cli.asking import refuse_running  # noqa: PLC0415

    _refuse(sum((rewind, sink is not None, as_now)), rewind and bool(end or tables))
    loaded = config.load(pipeline)
    assembly = Assembly(loaded)
    if not rewind and sink is None:
        mending = replay.plan_mending(assembly, (start, end), tables)
        if _agreed(mending.plan, as_json=as_json, dry_run=dry_run, yes=yes):
            _mend(mending)
        return
    if sink is None:
        if not dry_run:
            refuse_running(loaded, "its position is its own")
        plan = replay.plan_rewind(assembly, start)
        if _agreed(plan, as_json=as_json, dry_run=dry_run, yes=yes):
            for line in replay.rewind(assembly, plan):
                click.echo(line, err=as_json)
        return
    copying = replay.plan_copying(assembly, (start, end), config.sink_of(sink), tables)
    if copying.resumed is not None:
        click.echo(f"an interrupted replay goes on at {copying.resumed.position}", err=True)
    if _agreed(copying.plan, as_json=as_json, dry_run=dry_run, yes=yes):
        _copy(copying)


def _refuse(kinds: int, narrowed: bool) -> None:  # noqa: FBT001  two findings
    if kinds > 1:
        raise click.UsageError("give one of --rewind, --sink and --as-now")
    if narrowed:
        raise click.UsageError("--rewind takes the whole pipeline back and on from there: no --to and no --table")


def _agreed(plan: Plan, *, as_json: bool, dry_run: bool, yes: bool) -> bool:
    """Say what will be done; return whether to do it. Asks a person, and refuses to guess for a script."""
    from cdcsync.cli.asking import echo_json  # noqa: PLC0415  help needs none of it

    if as_json:
        echo_json(plan.figures())
    else:
        for line in plan.lines():
            click.echo(line, err=True)
    if dry_run:
        return False
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask: give --yes, or --dry-run to look only")
    return yes or click.confirm("Go on?", abort=True, err=True)


def _mend(mending: Mending) -> None:
    keys, tables = mending.run()
    click.echo(f"read again: {keys} keys of {tables} table(s)", err=True)


def _copy(copying: Copying) -> None:
    from cdcsync.daemon import INTERRUPTED, Signals  # noqa: PLC0415  help needs none of it
    from cdcsync.pipeline import Surroundings  # noqa: PLC0415

    outcome = copying.run(Surroundings(), Signals)
    said = "delivered" if outcome.over else "stopped; the same command goes on here"
    click.echo(f"{said}: {outcome.transactions} transactions, {outcome.changes} changes", err=True)
    if not outcome.over:
        raise SystemExit(INTERRUPTED)
