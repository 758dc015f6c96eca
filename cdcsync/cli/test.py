"""`cdcsync test`: the examples of mapping files, run without any server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.mapping.examples import Outcome
    from cdcsync.mapping.model import Rule

FOLDER: Final = Path("mappings")


@click.command(short_help="Run the examples of mapping files; no server is needed.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--update", is_flag=True, help="Write what came out into the files, for review.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array, an object per example.")
def command(files: tuple[Path, ...], *, update: bool, as_json: bool) -> None:
    """Run the examples of mapping files, or of pipelines' files; absent: of every file in ./mappings.

    Columns have the types under `types`, or those of the examples' values. A secret has its own name as value.
    Exit status: 0 all came to what is expected, 1 some did not, 78 a file is wrong.

    \b
    cdcsync test mappings/shop.yaml
    cdcsync test orders.yaml --update && git diff orders.yaml
    """  # noqa: D301  \b is click's
    from cdcsync.cli.asking import echo_json  # noqa: PLC0415  help needs none of it
    from cdcsync.mapping.examples import rewrite, run  # noqa: PLC0415

    outcomes = list(run(rule for file in files or sorted(FOLDER.glob("*.yaml")) for rule in _rules(file)))
    failed = [outcome for outcome in outcomes if outcome.differences]
    if as_json:
        echo_json([_figures(outcome) for outcome in outcomes])
    else:
        for outcome in failed:
            show(outcome)
        click.echo(f"{len(outcomes)} examples, {len(failed)} of them came to something else")
    if update:
        for name in rewrite(failed):
            click.echo(f"written: {name}")
    elif failed:
        raise SystemExit(1)


def _rules(path: Path) -> Iterator[Rule]:
    """Yield the entries of a mapping file, or of a pipeline's."""
    from cdcsync import config, document  # noqa: PLC0415  help needs none of it
    from cdcsync.mapping.loading import rules_of  # noqa: PLC0415

    given = document.read(config.find(path))
    if isinstance(given.value, dict) and ("source" in given.value or "mappings" in given.value):
        yield from config.load(path).rules
        return
    problems: list[document.Problem] = []
    rules = list(rules_of(Path(given.file), problems))
    if problems:
        raise document.fatal(problems)
    yield from rules


def show(outcome: Outcome) -> None:
    """Print one example that came to something else."""
    name = outcome.rule.mapping.from_
    click.echo(f"{outcome.place}: {name}, example {outcome.number + 1}")
    for difference in outcome.differences:
        click.echo(f"    {difference}")


def _figures(outcome: Outcome) -> dict[str, Any]:
    return {
        "place": outcome.place,
        "from": outcome.rule.mapping.from_,
        "example": outcome.number + 1,
        "differences": list(outcome.differences),
        "got": outcome.got,
    }
