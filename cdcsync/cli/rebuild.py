"""`cdcsync rebuild`: tables of the target are built anew beside those that are there, while their pipeline runs."""

from __future__ import annotations

from typing import Any, Final

import click


@click.command(short_help="Build tables of the target anew, and change them over at once.")
@click.argument("pipeline")
@click.argument("tables", nargs=-1)
@click.option("--rollback", "action", flag_value="back", help="Bring the former tables back, drop the new ones.")
@click.option("--finish", "action", flag_value="end", help="Drop the former tables.")
@click.option("--cancel", "action", flag_value="end", help="Drop the new tables before they have taken their place.")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
def command(pipeline: str, tables: tuple[str, ...], *, action: str | None, no_wait: bool, as_json: bool) -> None:
    """Fill new tables beside those of the target, keep them current, and change them over when they have all rows.

    Readers see the table that was there until they see the new one, never half of either. The one that was there is
    kept current under the name NAME__cdcsync_old, until `--finish` drops it, so that `--rollback` loses nothing.

    \b
    cdcsync rebuild orders shop.items
    cdcsync rebuild orders --rollback
    cdcsync rebuild orders --finish
    """  # noqa: D301  \b is click's
    from cdcsync.cli.asking import ask, echo_json  # noqa: PLC0415  help needs none of it

    if bool(tables) == (action is not None):
        msg = "name the tables to build anew, or one of --rollback, --finish and --cancel"
        raise click.UsageError(msg)
    answer = ask(pipeline, "rebuild", action=action or "begin", tables=list(tables))
    if "error" in answer:
        raise click.ClickException(str(answer["error"]))
    if not no_wait:
        answer |= _followed(pipeline, answer)
    if as_json:
        echo_json(answer)
    else:
        click.echo(f"{answer['pipeline']}: {', '.join(answer['tables'])} {_SAID[answer['action']]}")
        if answer.get("stage") == "kept":
            click.echo("the former is kept current: --finish drops it, --rollback brings it back")


_SAID: Final = {"begin": "built anew", "back": "as before", "end": "alone again"}


def _followed(pipeline: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Show how far it is until the new tables have taken their place, or the order is carried out."""
    from cdcsync.cli.progress import follow  # noqa: PLC0415  help needs none of it

    def over(figures: dict[str, Any]) -> bool:
        stage = figures.get("rebuild", {}).get("stage", "")
        done = stage in {"", "kept"} if answer["action"] == "begin" else not stage
        return done and figures.get("orders", 0) >= answer["number"]

    state = follow(pipeline, "building anew", over).get("rebuild", {})
    return {"stage": state.get("stage", ""), "rows": state.get("rows", 0)}
