"""`cdcsync preview`: real changes before and after the mapping, with no sink touched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.change import Batch, Transaction
    from cdcsync.mapping import Mapping


@click.command(short_help="Show real changes before and after the mapping; no sink is touched.")
@click.argument("pipeline")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many changes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line per change: given, made, rejected.")
def command(pipeline: str, limit: int | None, *, as_json: bool) -> None:
    """Show changes that are committed from now on, each with what the mapping makes of it, until Ctrl-C.

    Reads as `cdcsync tail` does: no position is saved, nothing stays at the source, and the sink is not connected to.

    \b
    cdcsync preview orders
    cdcsync preview orders.yaml --limit 10 --json | jq .made
    """  # noqa: D301  \b is click's
    from cdcsync import config  # noqa: PLC0415  help needs none of it
    from cdcsync.following import of_pipeline  # noqa: PLC0415
    from cdcsync.mapping import Mapping  # noqa: PLC0415

    loaded = config.load(pipeline)
    mapping, left = Mapping(loaded.rules, loaded.secrets), limit
    for batch in of_pipeline(pipeline):
        for each in both(mapping, batch):
            _show(each, as_json=as_json)
            left = None if left is None else left - 1
            if left == 0:
                return


def both(mapping: Mapping, batch: Batch) -> Iterator[dict[str, Any]]:
    """Yield every change as it came, what is made of it, and why it is rejected where it is."""
    from cdcsync.errors import Rejected  # noqa: PLC0415  help needs none of it

    for transaction in batch.transactions:
        for at, item in enumerate(transaction.items):
            one = replace(transaction, items=[item], ordinals=transaction.ordinals[at : at + 1])
            made: list[dict[str, Any]] = []
            reason = None
            try:
                mapped = mapping.apply(replace(batch, transactions=[one], changes=1))
                made = _lines(mapped.transactions[0])
            except Rejected as rejected:
                reason = str(rejected)
            yield {"given": _lines(one)[0], "made": made, "rejected": reason}


def _lines(transaction: Transaction) -> list[dict[str, Any]]:
    from cdcsync.lines import Lines  # noqa: PLC0415  help needs none of it

    return [orjson.loads(line) for line in Lines().encode(transaction).splitlines()]


def _show(each: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(each))
        return
    click.echo(f"{click.style('<', dim=True)} {_text(each['given'])}")
    if each["rejected"]:
        click.echo(f"{click.style('!', fg='red')} {each['rejected']}")
    elif not each["made"]:
        click.secho("> nothing", dim=True)
    for line in each["made"]:
        click.echo(f"{click.style('>', fg='green')} {_text(line)}")


def _text(line: dict[str, Any]) -> str:
    rows = [line.get("before"), line.get("after")]
    words = " -> ".join(" ".join(f"{name}={orjson.dumps(row[name]).decode()}" for name in row) for row in rows if row)
    return f"{line['operation']:<8} {line['table'] or ''} {words}"
