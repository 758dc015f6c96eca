"""`cdcsync snapshot`: tables are read again beside the log of a running pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command(short_help="Read tables again while their pipeline runs.")
@click.argument("pipeline")
@click.argument("tables", nargs=-1)
@click.option("--where", default="", help="Only these rows, in the source's SQL.")
@click.option("--keys", multiple=True, help="Only these rows: 17,18 or as JSON. One that is gone is deleted.")
@click.option("--prune", is_flag=True, help="Then delete what the target has and the source has not.")
@click.option("--follow", "action", flag_value="follow", help="Show how far it is, the first copy too.")
@click.option("--pause", "action", flag_value="pause", help="Begin no further chunk, of the first copy either.")
@click.option("--resume", "action", flag_value="resume", help="Go on after --pause.")
@click.option(
    "--cancel", "action", flag_value="cancel", help="Forget what is left of these tables; of all without one."
)
@click.option("--no-wait", is_flag=True, help="Return at once.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
def command(  # noqa: PLR0913  one parameter per option
    pipeline: str,
    tables: tuple[str, ...],
    *,
    where: str,
    keys: tuple[str, ...],
    prune: bool,
    action: str | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Read the rows of tables again and write them over those of the target, while the pipeline runs.

    In chunks, as the first copy: no lock, no pause of the log, and a restart goes on at the chunk. Rows that are no
    longer at the source stay in the target, but for `--keys` and `--prune`; `cdcsync verify` finds them.

    \b
    cdcsync snapshot orders shop.items shop.customers --prune
    cdcsync snapshot orders shop.items --where "placed > '2026-01-01'"
    cdcsync snapshot orders shop.items --keys 17,18
    cdcsync snapshot orders --follow
    """  # noqa: D301  \b is click's
    from cdcsync.cli.asking import ask, echo_json  # noqa: PLC0415  help needs none of it
    from cdcsync.cli.progress import follow  # noqa: PLC0415

    _refuse(tables, where, keys, action=action, prune=prune, no_wait=no_wait)
    if action == "follow":
        follow(pipeline, "reading", lambda figures: not figures.get("tables_left"))
        return
    words: dict[str, Any] = {"keys": _parsed(keys)} if keys else {}
    answer = ask(pipeline, "snapshot", action=action or "read", tables=list(tables), where=where, **words)
    if "error" in answer:
        raise click.ClickException(str(answer["error"]))
    if action is None and not no_wait:
        answer |= _followed(pipeline, answer)
    if prune:
        answer["pruned"] = _pruned(pipeline, answer["tables"])
    if as_json:
        echo_json(answer)
    else:
        click.echo(f"{answer['pipeline']}: {answer['action']} {', '.join(answer['tables'])}".rstrip())
        if prune:
            click.echo(f"keys looked at: {answer['pruned']['keys']}")


def _refuse(
    tables: Sequence[str], where: str, keys: Sequence[str], *, action: str | None, prune: bool, no_wait: bool
) -> None:
    if not tables and action is None:
        raise click.UsageError("name the tables to read")
    if keys and (where or len(tables) != 1):
        raise click.UsageError("--keys are of one table, and go without --where")
    if prune and (where or keys or action or no_wait):
        raise click.UsageError("--prune reads whole tables, and waits for them")


def _parsed(given: Sequence[str]) -> list[list[Any]]:
    """Return keys of words: with commas between keys of one column, or as JSON."""
    import orjson  # noqa: PLC0415  help needs none of it

    keys: list[Any] = []
    for text in given:
        if not text.lstrip().startswith("["):
            keys += text.split(",")
            continue
        try:
            keys += orjson.loads(text)
        except orjson.JSONDecodeError as error:
            msg = f"--keys: not JSON: {error}"
            raise click.UsageError(msg) from error
    return [each if isinstance(each, list) else [each] for each in keys]


def _followed(pipeline: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Show how far it is until nothing is left of these tables; return the figures."""
    from cdcsync.cli.progress import follow  # noqa: PLC0415  help needs none of it

    wanted = set(answer["tables"])
    figures = follow(
        pipeline,
        "reading",
        lambda now: now.get("orders", 0) >= answer["number"] and not wanted & set(now.get("tables_left", ())),
    )
    return {"rows": figures.get("rows", 0)}


def _pruned(pipeline: str, tables: Sequence[str]) -> dict[str, Any]:
    """Have the source asked for every key of the targets: what it has not is deleted, in the pipeline's stream."""
    from cdcsync import config, mending  # noqa: PLC0415  help needs none of it
    from cdcsync.assembly import Assembly  # noqa: PLC0415

    assembly = Assembly(config.load(pipeline))
    count = 0
    for table, keys in mending.keys_of_targets(assembly, tables):
        mending.order(assembly, table, keys, gone=True)
        count += len(keys)
    return {"keys": count}
