"""`python -m benchmarks list` and `python -m benchmarks run NAME [--rows N] [--rounds N] [--json]`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click
import orjson
from rich.console import Console
from rich.table import Table

from benchmarks import (
    elastic_cases,
    kafka_cases,
    kafka_source_cases,
    mapping_speed,
    mysql_cases,
    pgsync,
    postgres_cases,
    snapshot_cases,
)
from benchmarks.figures import machine

if TYPE_CHECKING:
    from benchmarks.figures import Result

ALL = {
    bench.name: bench
    for bench in (
        *postgres_cases.BENCHES,
        *mysql_cases.BENCHES,
        *snapshot_cases.BENCHES,
        *elastic_cases.BENCHES,
        *pgsync.BENCHES,
        *kafka_cases.BENCHES,
        *kafka_source_cases.BENCHES,
        *mapping_speed.BENCHES,
    )
}


@click.group()
def main() -> None:
    """Measure cdcsync beside its peers, by turns, in one run."""


@main.command("list")
def list_benchmarks() -> None:
    """Name the benchmarks."""
    for bench in ALL.values():
        click.echo(f"{bench.name:28} {bench.summary}")


@main.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice([*ALL, "all"]))
@click.option("--rows", type=int, help="Rows a round, instead of the benchmark's own number.")
@click.option("--rounds", type=int, default=3, show_default=True, help="How often each contender has its turn.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, for docs/reference/benchmarks.md.")
def run(names: tuple[str, ...], rows: int | None, rounds: int, *, as_json: bool) -> None:
    """Run benchmarks: start servers, write the input, take turns, check the last rows, compare."""
    chosen = list(ALL) if "all" in names else list(names)
    results = [ALL[name].run(rows or ALL[name].rows, rounds) for name in chosen]
    if as_json:
        command = f"python -m benchmarks run {' '.join(names)} --rounds {rounds} --json"
        document = {"command": command, "machine": machine(), "rounds": rounds, "results": list(map(asdict, results))}
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    for result in results:
        show(result)


def show(result: Result) -> None:
    """Print one result as a table."""
    console = Console()
    table = Table(title=f"{result.name}, {result.rows:,} rows a round", title_justify="left")
    table.add_column("contender")
    for column in (result.unit, "ratio", "seconds", "CPU s", "peak MB"):
        table.add_column(column, justify="right")
    for figure in result.figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        cells = (f"{figure.rate:,.0f}", ratio, f"{figure.wall_s:.2f}", f"{figure.cpu_s:.2f}", f"{figure.peak_mb:.0f}")
        table.add_row(figure.contender, *cells)
    if result.figures:
        console.print(table)
    for name, value in result.values.items():
        console.print(f"{result.name} {name} = {value}")
    if result.proved:
        console.print(f"checked by value: {result.proved}")


if __name__ == "__main__":
    main()
