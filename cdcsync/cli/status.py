"""`cdcsync status`: the figures of a running pipeline."""

from __future__ import annotations

from datetime import UTC, datetime

import click


@click.command(short_help="Show what a running pipeline does.")
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(pipeline: str, *, as_json: bool) -> None:
    """Ask the running pipeline over its control socket. Exit status 1 when it does not run.

    \b
    cdcsync status orders
    cdcsync status orders --json | jq .lag_ms
    """  # noqa: D301  \b is click's
    from cdcsync.cli.asking import ask, echo_json  # noqa: PLC0415  help needs none of it

    answer = ask(pipeline, "status")
    if as_json:
        echo_json(answer)
        return
    for name in ("started_us", "commit_time_us"):
        time_us = answer.pop(name, 0)
        answer[name.removesuffix("_us")] = datetime.fromtimestamp(time_us / 1e6, UTC).isoformat() if time_us else ""
    snapshot = answer.pop("snapshot", {})
    failed = snapshot.pop("failed", {})
    lanes = answer.pop("lanes", {})
    for name, value in snapshot.items():
        answer[f"snapshot_{name}"] = _text(value)
    width = max(map(len, answer))
    for name, value in answer.items():
        click.echo(f"{name:<{width}}  {round(value, 1) if isinstance(value, float) else value}")
    for lane, figures in lanes.items():
        said = figures["fault"] or f"{figures['changes']} changes, {round(figures['lag_ms'], 1)} ms behind"
        click.echo(f"lane {lane}  {figures['state']}  {said}")
    for table, error in failed.items():
        click.echo(f"\ntable {table} failed and is left alone: {error}")
        click.echo(f"  -> when that is mended: cdcsync rebuild {answer['pipeline']} {table}")


def _text(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value
