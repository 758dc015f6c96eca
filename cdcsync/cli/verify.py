"""`cdcsync verify`: compare both ends through the mapping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cdcsync.verify import TableResult


@click.command(short_help="Compare source and target, row by row, under traffic.")
@click.argument("pipeline")
@click.argument("table", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--patience", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds for a row to settle."
)
def command(pipeline: str, table: str | None, patience: float, *, as_json: bool) -> None:
    """Compare every row of source and target through the mapping, while the pipeline runs.

    A row that differs is read again until the pipeline has passed it; only settled differences count.
    TABLE is a source or a target table. Exit status: 0 equal, 1 not equal.

    \b
    cdcsync verify orders
    cdcsync verify orders shop.orders --json
    """  # noqa: D301  \b is click's
    from cdcsync import config  # noqa: PLC0415  help needs none of it
    from cdcsync.assembly import Assembly  # noqa: PLC0415
    from cdcsync.cli.asking import echo_json  # noqa: PLC0415
    from cdcsync.verify import verify  # noqa: PLC0415

    assembly = Assembly(config.load(pipeline))
    facts = assembly.facts()
    tables = assembly.chosen(facts, table)
    with assembly.ends(facts, patience) as ends:
        result = verify(ends, tables)
    if as_json:
        echo_json(result.figures())
    else:
        for found in result.tables:
            _show(found)
    raise SystemExit(result.status)


def _show(found: TableResult) -> None:
    if found.equal:
        click.echo(f"{click.style('equal', fg='green')}      {found.table}: {found.rows} rows")
        return
    counts = f"{found.missing} missing, {found.extra} extra, {found.different} different"
    click.echo(f"{click.style('not equal', fg='red')}  {found.table}: {found.rows} rows; {counts}")
    for difference in found.differences:
        click.echo(f"           {difference.kind:<9} {_key(difference.key)} {', '.join(difference.columns)}".rstrip())


def _key(key: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in key.items())
