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

    A row that differs is read again until the pipeline has passed it; only settled differences count,
    and a row that still moves then is called unsettled.
    TABLE is a source or a target table. Exit status: 0 equal, 1 not equal or not settled.

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
    counts = [
        f"{number} {word}"
        for word in ("missing", "extra", "different", "rejected", "unsettled")
        if (number := getattr(found, word))
    ]
    differs = found.missing or found.extra or found.different or found.rejected
    verdict = click.style("not equal", fg="red") if differs else click.style("unsettled", fg="yellow")
    click.echo(f"{verdict}  {found.table}: {found.rows} rows; {', '.join(counts)}")
    for difference in found.differences:
        click.echo(f"           {difference.kind:<9} {_key(difference.key)} {', '.join(difference.columns)}".rstrip())
    if found.unsettled:
        click.echo(
            f"           {found.unsettled} row(s) still moved, or the pipeline was on its way to them, when patience"
            " ended: whether they differ is open; give more with --patience, or ask in a quieter hour"
        )
    if not found.passed:
        click.echo(
            "           the stored position did not pass the end of the source's log: is the pipeline running?"
            " What it has not read yet is among the differences"
        )


def _key(key: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in key.items())
