"""`cdcsync verify`: compares source and target through the mapping, under traffic."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cdcsync import config
from cdcsync.assembly import Assembly
from cdcsync.cli.asking import echo_json
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.verify import Ends, Result, TableResult, verify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdcsync.change import Table


@click.command(short_help="Compare source and target, under traffic.")
@click.argument("pipeline")
@click.argument("table", required=False)
@click.option("--patience", default=60.0, show_default=True, help="Seconds that a differing row may take to settle.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON document.")
def command(pipeline: str, table: str | None, patience: float, *, as_json: bool) -> None:
    """Compare every row of source and target (or of one source TABLE) through the mapping.

    Rows that differ are read again once the pipeline has passed them; only settled differences are reported, by
    key, without values. Exit status 0: all equal; 1: differences.
    """
    result = _verified(Assembly(config.load(pipeline)), table, patience, quiet=as_json)
    if as_json:
        echo_json(result.figures())
    else:
        _print(result)
    sys.exit(result.status)


def _verified(assembly: Assembly, table: str | None, patience_s: float, *, quiet: bool) -> Result:
    facts = assembly.facts()
    tables = _chosen(facts.tables, table)
    if assembly.source.scanner is None or assembly.sink.scanner is None:
        system = assembly.config.sink.system if assembly.source.scanner else assembly.config.source.system
        msg = f"rows of {system} cannot be read back"
        raise Fatal(msg, hint="verify works between databases", status=ExitStatus.CONFIG)
    source = assembly.source.scanner(assembly.config.source.config, assembly.source_context)
    sink = assembly.sink.scanner(assembly.config.sink.config, assembly.sink_context(facts))
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
            task = bar.add_task("connecting", total=None)

            def show(result: TableResult) -> None:
                bar.update(task, description=f"{result.table}: {result.rows} rows, {result.reread} read again")

            return verify(Ends(source, sink, assembly.mapping, patience_s=patience_s), tables, progress=show)
    finally:
        source.close()
        sink.close()


def _chosen(tables: Iterable[Table], name: str | None) -> list[Table]:
    chosen = [table for table in tables if name in (None, table.name, table.qualified)]
    if not chosen:
        msg = f"the mapping takes no source table {name}" if name else "the mapping takes no table of the source"
        raise Fatal(msg, hint="name a source table as the mapping does", status=ExitStatus.CONFIG)
    return chosen


def _print(result: Result) -> None:
    for table in result.tables:
        if table.equal:
            click.echo(f"{table.table}: equal, {table.rows} rows")
            continue
        counts = f"{table.missing} missing, {table.extra} extra, {table.different} different"
        click.echo(f"{table.table}: {counts} of {table.rows} rows")
        for each in table.differences:
            columns = f" ({', '.join(each.columns)})" if each.columns else ""
            click.echo(f"  {each.kind} {each.key}{columns}")
        if not table.passed:
            click.echo("  the stored position did not pass these rows in time: is the pipeline running?")
