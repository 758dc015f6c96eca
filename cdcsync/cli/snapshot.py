"""`cdcsync snapshot`: tables are read again beside the log of a running pipeline."""

from __future__ import annotations

from typing import Any, Final

import click

LOOK_S: Final = 0.5
"""Between two looks how far it is."""


@click.command(short_help="Read tables again while their pipeline runs.")
@click.argument("pipeline")
@click.argument("tables", nargs=-1)
@click.option("--where", default="", help="Only these rows, in the source's SQL.")
@click.option("--pause", "action", flag_value="pause", help="Begin no further chunk, of the first copy either.")
@click.option("--resume", "action", flag_value="resume", help="Go on after --pause.")
@click.option(
    "--cancel", "action", flag_value="cancel", help="Forget what is left of these tables; of all without one."
)
@click.option("--no-wait", is_flag=True, help="Return at once.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
def command(
    pipeline: str, tables: tuple[str, ...], *, where: str, action: str | None, no_wait: bool, as_json: bool
) -> None:
    """Read the rows of tables again and write them over those of the target, while the pipeline runs.

    In chunks, as the first copy: no lock, no pause of the log, and a restart goes on at the chunk. Rows that are no
    longer at the source stay in the target; `cdcsync verify` finds them.

    \b
    cdcsync snapshot orders shop.items shop.customers
    cdcsync snapshot orders shop.items --where "placed > '2026-01-01'"
    cdcsync snapshot orders --pause
    """  # noqa: D301  \b is click's
    from cdcsync.cli.asking import ask, echo_json  # noqa: PLC0415  help needs none of it

    if not tables and action is None:
        msg = "name the tables to read"
        raise click.UsageError(msg)
    answer = ask(pipeline, "snapshot", action=action or "read", tables=list(tables), where=where)
    if "error" in answer:
        raise click.ClickException(str(answer["error"]))
    if action is None and not no_wait:
        answer |= _followed(pipeline, answer)
    if as_json:
        echo_json(answer)
    else:
        click.echo(f"{answer['pipeline']}: {answer['action']} {', '.join(answer['tables'])}".rstrip())


def _followed(pipeline: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Show how far it is until nothing is left of these tables; return the figures."""
    import threading  # noqa: PLC0415  only a command that waits needs it

    from cdcsync.cli.asking import ask  # noqa: PLC0415

    pause, wanted, shown = threading.Event(), set(answer["tables"]), ""
    while True:
        figures: dict[str, Any] = ask(pipeline, "status")["snapshot"]
        left = wanted & set(figures.get("tables_left", ()))
        if figures.get("orders", 0) >= answer["number"] and not left:
            return {"rows": figures.get("rows", 0)}
        line = f"{figures.get('rows', 0)} rows, about {figures.get('rows_left', 0)} left"
        line += f", waiting for {figures['held_by']}" if figures.get("held_by") else ""
        if line != shown:
            click.echo(line, err=True)
            shown = line
        pause.wait(LOOK_S)
