"""`cdcsync check`: look at a pipeline's file and at both ends before it runs."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

import click

from cdcsync.connectors import ALTERED, Finding, Severity
from cdcsync.errors import CdcsyncError, Fatal, Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cdcsync.assembly import Assembly, Facts
    from cdcsync.change import Table
    from cdcsync.ports import SinkContext

_COLUMN: Final = re.compile(r"column (\S+?):? ")
"""What a sink's finding about a column begins with."""
_MARKS: Final = {
    Severity.OK: click.style("ok     ", fg="green"),
    Severity.WARNING: click.style("warning", fg="yellow"),
    Severity.ERROR: click.style("error  ", fg="red"),
}


@click.command(short_help="Check the file and both ends; print what mends each finding.")
@click.argument("pipeline")
@click.option("--offline", is_flag=True, help="Only the file and its mapping; connect to nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of findings.")
def command(pipeline: str, *, offline: bool, as_json: bool) -> None:
    """Check a pipeline's file, then source and target, and print the exact SQL that mends each finding.

    Changes nothing at either end. Exit status: 0 nothing is wrong, 1 errors were found, 78 the file itself is wrong.

    \b
    cdcsync check orders
    cdcsync check ./orders.yaml --offline
    """  # noqa: D301  \b is click's
    from cdcsync import config  # noqa: PLC0415  help needs none of it
    from cdcsync.assembly import Assembly  # noqa: PLC0415
    from cdcsync.cli.asking import echo_json  # noqa: PLC0415

    loaded = config.load(pipeline)
    assembly = Assembly(loaded)
    found = [Finding(Severity.OK, "file", f"{loaded.path}: {len(loaded.rules)} table entries")]
    found += [Finding(Severity.WARNING, "file", warning) for warning in loaded.warnings]
    found += _examples(assembly, ()) if offline else _at_both_ends(assembly)
    if as_json:
        echo_json([asdict(finding) for finding in found])
    else:
        for finding in found:
            _show(finding)
    if any(finding.severity is Severity.ERROR for finding in found):
        raise SystemExit(1)


def _at_both_ends(assembly: Assembly) -> list[Finding]:
    config = assembly.config
    its_identity = ""
    with suppress(CdcsyncError):
        its_identity = assembly.sink.identity(config.sink.config)
    source = _asked(
        "source", lambda: assembly.source.check(config.source.config, assembly.source_context_of(its_identity))
    )
    source += _asked("lanes", lambda: _shared(assembly))
    source += _asked("position", lambda: _position(assembly))
    facts: list[Facts] = []

    def learn() -> list[Finding]:
        facts.append(assembly.facts())
        assembly.refuse_itself(facts[0])
        missing = [] if assembly.source.late else assembly.mapping.missing(facts[0].tables)
        if not missing and not facts[0].tables and not assembly.source.late:
            missing = ["no table at the source matches any entry"]
        found = [Finding(Severity.ERROR, "mapping", line, "look at `from:` under `tables`") for line in missing]
        found += [Finding(Severity.ERROR, "mapping", line, "give another name") for line in assembly.misnamed(facts[0])]
        found += _remarks(assembly, facts[0])
        return [*found, *_examples(assembly, facts[0].tables)]

    mapping = _asked("mapping", learn)
    if not facts and any(finding.severity is Severity.ERROR for finding in source):
        mapping = []
    context = assembly.sink_context(facts[0] if facts else None)
    sink = _asked("sink", lambda: _followed(assembly, context, assembly.sink.check(config.sink.config, context)))
    return [*source, *mapping, *(_placed(assembly, facts[0], sink) if facts else sink)]


def _remarks(assembly: Assembly, facts: Facts) -> list[Finding]:
    """Return what the mapping asks of the log, and what its casts lose."""
    from cdcsync.mapping.remarks import remarks  # noqa: PLC0415  help needs none of it

    asked = assembly.source.whole
    whole = asked(assembly.config.source.config, assembly.source_context) if asked is not None else None
    return [
        Finding(Severity.ERROR if remark.wrong else Severity.WARNING, "mapping", remark.text)
        for remark in remarks(assembly.mapping, facts.tables, whole)
    ]


def _followed(assembly: Assembly, context: SinkContext, found: list[Finding]) -> list[Finding]:
    """Return what the sink found, without what it will mend by itself: targets that follow when the log comes to it."""
    plan = assembly.sink.plan
    if plan is None or all(finding.severity is not Severity.ERROR for finding in found):
        return found
    altered: dict[str, list[str]] = {}
    for each in plan(assembly.config.sink.config, context):
        if each.reason == ALTERED:
            altered.setdefault(_bare(each.target), []).append(each.statement)
    left = [each for each in found if each.severity is not Severity.ERROR or _target_of(each, altered) is None]
    told = {name: each.subject for each in found if (name := _target_of(each, altered)) is not None}
    said = "will be altered when the log comes to what the source is now"
    return left + [Finding(Severity.OK, subject, said, "; ".join(altered[name])) for name, subject in told.items()]


def _target_of(finding: Finding, altered: Collection[str]) -> str | None:
    named = _bare(finding.subject.split()[-1])
    return next((name for name in (named, named.rpartition(".")[2]) if name in altered), None)


def _bare(name: str) -> str:
    return re.sub('["`]', "", name)


def _position(assembly: Assembly) -> list[Finding]:
    """Let the source judge the stored position, where that can be looked at without a lock."""
    judge, stored = assembly.source.judge, None
    if judge is None or assembly.store[0].look is None:
        return []
    with suppress(CdcsyncError):  # the target may not be there yet; what is wrong with it is found below
        stored = assembly.stored()
    return judge(assembly.config.source.config, assembly.source_context, stored.position) if stored is not None else []


def _shared(assembly: Assembly) -> list[Finding]:
    """Say how many lanes a group shares, and whether all its processes would see their positions."""
    if assembly.lanes == [""]:
        return []
    assembly.refuse_local()
    stored = len(assembly.stored_by_lane())
    said = f"{len(assembly.lanes)} lane(s) are shared by the group's processes; {stored} of them have a position"
    return [Finding(Severity.OK, "lanes", said)]


def _placed(assembly: Assembly, facts: Facts, found: list[Finding]) -> list[Finding]:
    """Return what the sink found, with the place in the file of what makes the column that it is about."""
    from cdcsync.mapping.target_names import places  # noqa: PLC0415  help needs none of it

    made: list[Finding] = []
    known = places(assembly.mapping, facts.tables)
    for finding in found:
        column = _COLUMN.match(finding.message)
        named = re.sub('["`]', "", finding.subject).split()[-1]
        place = next(
            (
                place
                for (table, name), place in known.items()
                if column and name == column[1] and f".{named}".endswith(f".{table}")
            ),
            "",
        )
        made.append(replace(finding, message=f"{place}{finding.message}"))
    return made


def _examples(assembly: Assembly, tables: Sequence[Table]) -> list[Finding]:
    """Run the mapping's own examples, against the source's tables where they are known."""
    if not any(rule.mapping.examples for rule in assembly.config.rules):
        return []
    from cdcsync.mapping.examples import run  # noqa: PLC0415  help needs none of it

    outcomes = list(run(assembly.config.rules, tables))
    wrong = [
        Finding(Severity.ERROR, "example", f"{outcome.place}: {difference}", "mend the entry or its `expect`")
        for outcome in outcomes
        for difference in outcome.differences
    ]
    return wrong or [Finding(Severity.OK, "examples", f"{len(outcomes)} came to what they expect")]


def _asked(subject: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return the findings; what stops the check is one too."""
    try:
        return check()
    except Fatal as fatal:
        return [Finding(Severity.ERROR, subject, str(fatal.args[0]), fatal.hint)]
    except Transient as fault:
        return [Finding(Severity.ERROR, subject, str(fault), "start that server, or mend its address in the file")]


def _show(finding: Finding) -> None:
    from cdcsync.logs import redact  # noqa: PLC0415  help needs no log

    click.echo(redact(f"{_MARKS[finding.severity]} {finding.subject}: {finding.message}"))
    if finding.remedy:
        for line in finding.remedy.splitlines():
            click.echo(f"          {line}")
