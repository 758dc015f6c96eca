"""`cdcsync plan`: show the DDL that the next run would cause at the target."""

from __future__ import annotations

from itertools import groupby

import click


@click.command(short_help="Show the DDL that the next run would cause at the target.")
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="One JSON array: target, reason and statement of each.")
def command(pipeline: str, *, as_json: bool) -> None:
    """Show what the next run does to the target's tables: those it creates, and those it alters.

    Compares the source's tables as they are now with the target's. Changes nothing, and needs no pause of a pipeline that
    runs. A column renamed at the source shows as one dropped and one added until the log tells of it.

    \b
    cdcsync plan orders
    cdcsync plan orders --json
    """  # noqa: D301  \b is click's
    from cdcsync import config  # noqa: PLC0415  help needs none of it
    from cdcsync.assembly import Assembly  # noqa: PLC0415
    from cdcsync.cli.asking import echo_json  # noqa: PLC0415
    from cdcsync.errors import ExitStatus, Fatal  # noqa: PLC0415

    assembly = Assembly(config.load(pipeline))
    plan, section = assembly.sink.plan, assembly.config.sink
    if plan is None:
        msg = f"{section.system} has no tables that a pipeline creates or alters"
        raise Fatal(msg, hint="`cdcsync check` says what else the target needs", status=ExitStatus.CONFIG)
    facts = assembly.facts()
    assembly.refuse_missing(facts)
    found = plan(section.config, assembly.sink_context(facts))
    if as_json:
        echo_json([each._asdict() for each in found])
        return
    if not found:
        click.echo(f"nothing: all {len(facts.targets)} targets are as they have to be")
    for (target, reason), several in groupby(found, lambda each: each[:2]):
        click.echo(f"-- {target} {reason}")
        for each in several:
            click.echo(f"{each.statement};" if each.statement else "-- by hand")
