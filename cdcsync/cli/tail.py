"""`cdcsync tail`: changes as they are committed, or as the log still has them, with nothing left behind."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
import orjson

from cdcsync.lines import Lines
from cdcsync.redo import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from cdcsync.change import Batch, Transaction
    from cdcsync.following import Origin

FORMATS = ("text", "json", "sql", "undo-sql")


@click.command(short_help="Show changes live, or as the log has them; no sink, nothing stored.")
@click.argument("where", metavar="PIPELINE|URL")
@click.option(
    "--table", "tables", metavar="T", multiple=True, help="A table: schema.name, glob or /regex/; absent: all."
)
@click.option("--from", "start", metavar="PLACE", help="Begin there: a position, a time, `earliest`; absent: now.")
@click.option("--to", "end", metavar="PLACE", help="End before that place; with --from.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How they are written."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many changes (sql: with their transaction).")
def command(  # noqa: PLR0913  one parameter per option
    where: str,
    tables: tuple[str, ...],
    start: str | None,
    end: str | None,
    form: str,
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    """Show what is committed, from now on until Ctrl-C, or from a place that the log still has.

    json: one line per change, as the jsonl sink writes it. sql: statements of the source that do it again. undo-sql:
    statements that undo all from --from to --to (absent: the end of the log now), the last first; a change of which
    the log lacks the row before is a comment that begins with LACKING, and the exit status is 65 then.

    No position is saved, nothing stays at the source. PostgreSQL has the log as far as a slot of the pipeline
    holds it (`retain`).

    \b
    cdcsync tail postgres://me@db/shop --table 'public.*'
    cdcsync tail orders --json | jq .after
    cdcsync tail orders --from 2026-11-24T10:00:00Z --to 2026-11-24T10:05:00Z --format undo-sql > undo.sql
    """  # noqa: D301  \b is click's
    from cdcsync.following import Origin  # noqa: PLC0415  help needs none of it

    form = "json" if as_json else form
    if start is None and (end is not None or form == "undo-sql"):
        raise click.UsageError("--to and undo-sql need --from")
    if form == "undo-sql" and limit is not None:
        raise click.UsageError("undo-sql undoes all from --from to --to: it takes no --limit")
    origin = Origin.of_url(where, tables) if ":" in where else Origin.of_pipeline(where, tables)
    if form in {"sql", "undo-sql"}:
        origin = origin.exact()
    try:
        with closing(_batches(origin, start, end, ends=form == "undo-sql")) as batches:
            _written(origin, form, batches, limit)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _batches(origin: Origin, start: str | None, end: str | None, *, ends: bool) -> Generator[Batch, None, None]:
    """Return what is to be shown; `ends`: up to the end of the log now where no end is given."""
    if start is None:
        return origin.live()
    return origin.between(origin.bounds(origin.place(start).position, end, ends=ends))


def _written(origin: Origin, form: str, batches: Iterable[Batch], limit: int | None) -> None:
    if form == "undo-sql":
        _undone(Script(origin.dialect), batches)
    elif form == "sql":
        _redone(Script(origin.dialect), batches, limit)
    else:
        _shown(batches, limit, _json if form == "json" else _texts)


def _shown(
    batches: Iterable[Batch], limit: int | None, form: Callable[[list[bytes], Transaction], list[bytes]]
) -> None:
    lines, left = Lines(), limit
    for batch in batches:
        for transaction in batch.transactions:
            shown = lines.encode(transaction).splitlines(keepends=True)[:left]
            _put(form(shown, transaction))
            left = None if left is None else left - len(shown)
        if left == 0:
            return


def _redone(script: Script, batches: Iterable[Batch], limit: int | None) -> None:
    """Write the statements that do it again. Raises Fatal at the end when some are lacking."""
    _put([script.head().encode()])
    count = 0
    for batch in batches:
        for part in batch.transactions:
            _put([text.encode() for text in script.redone(part)])
            count += len(part.items)
            if limit is not None and count >= limit and part.last:
                script.refuse_lacking()
                return
    script.refuse_lacking()


def _undone(script: Script, batches: Iterable[Batch]) -> None:
    """Put the statements that undo it aside, then write them from the last to the first."""
    from cdcsync.spool import Spool  # noqa: PLC0415  one format alone needs it

    with Spool() as spool:
        for batch in batches:
            for part in batch.transactions:
                for text in script.undone(part):
                    spool.put(text.encode())
        _put([script.head().encode()])
        for line in spool.backwards():
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    script.refuse_lacking()


def _put(lines: list[bytes]) -> None:
    sys.stdout.buffer.writelines(lines)
    sys.stdout.buffer.flush()


def _json(lines: list[bytes], _transaction: Transaction) -> list[bytes]:
    return lines


def _texts(lines: list[bytes], transaction: Transaction) -> list[bytes]:
    click.secho(f"-- transaction {transaction.id}", dim=True)
    sys.stdout.flush()
    return [_text(orjson.loads(line)) for line in lines]


def _text(line: dict[str, Any]) -> bytes:
    """Return one change in one readable line: the key and what changed, or all that is known."""
    before, after = line.get("before"), line.get("after")
    shown = after if after is not None else before
    if before and after:
        key = line["key"] or {}
        shown = key | {name: value for name, value in after.items() if name not in before or before[name] != value}
    words = " ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in (shown or {}).items())
    return f"{line['commit_time'][11:23]} {line['operation']:<8} {line['table'] or ''} {words}\n".encode()
