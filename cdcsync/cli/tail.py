"""`cdcsync tail`: changes as they are committed, with nothing left behind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import orjson

from cdcsync.lines import Lines

if TYPE_CHECKING:
    from cdcsync.change import Transaction


@click.command(short_help="Show changes live; no sink, nothing stored.")
@click.argument("where", metavar="PIPELINE|URL")
@click.option(
    "--table", "tables", metavar="T", multiple=True, help="A table: schema.name, glob or /regex/; absent: all."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line per change, as the jsonl sink writes it.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many changes.")
def command(where: str, tables: tuple[str, ...], limit: int | None, *, as_json: bool) -> None:
    """Show the changes that are committed from now on, until Ctrl-C.

    Reads through a temporary slot that ends with the command: no position is saved, nothing stays at the source.

    \b
    cdcsync tail postgres://me@db/shop --table 'public.*'
    cdcsync tail orders --json | jq .after
    """  # noqa: D301  \b is click's
    from cdcsync.following import of_pipeline, stream  # noqa: PLC0415  help needs none of it

    batches = stream(where, tables=tables) if ":" in where else of_pipeline(where, tables=tables)
    lines, left = Lines(), limit
    for batch in batches:
        for transaction in batch.transactions:
            shown = lines.encode(transaction).splitlines(keepends=True)[:left]
            _show(shown, transaction, as_json=as_json)
            left = None if left is None else left - len(shown)
        if left == 0:
            return


def _show(lines: list[bytes], transaction: Transaction, *, as_json: bool) -> None:
    if not as_json:
        click.secho(f"-- transaction {transaction.id}", dim=True)
        lines = [_text(orjson.loads(line)) for line in lines]
    sys.stdout.buffer.writelines(lines)
    sys.stdout.buffer.flush()


def _text(line: dict[str, Any]) -> bytes:
    """Return one change in one readable line: the key and what changed, or all that is known."""
    before, after = line.get("before"), line.get("after")
    shown = after if after is not None else before
    if before and after:
        key = line["key"] or {}
        shown = key | {name: value for name, value in after.items() if name not in before or before[name] != value}
    words = " ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in (shown or {}).items())
    return f"{line['commit_time'][11:23]} {line['operation']:<8} {line['table'] or ''} {words}\n".encode()
