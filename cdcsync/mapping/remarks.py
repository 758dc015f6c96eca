"""What an operator should know of a mapping before a row is read: what it asks of the log, and what casts lose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from cdcsync.mapping.plan import FULL_BEFORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cdcsync.change import Table
    from cdcsync.mapping.expressions import Program
    from cdcsync.mapping.plan import Plan
    from cdcsync.mapping.transform import Mapping

    Keys = tuple[str, ...]

WHERE: Final = (
    "a row that an update takes out is deleted, and one that it may have brought in is written whole, where the row "
    "before is not logged in full"
)
DEMANDS: Final = {
    "to": f"a row that moves or is deleted has to be logged in full: {FULL_BEFORE}",
    "key": f"the key of a row that is changed or deleted has to be known: {FULL_BEFORE}",
    "message_key": f"the key of a changed or deleted row's last message has to be known: {FULL_BEFORE}",
}


class Remark(NamedTuple):
    """One line."""

    text: str
    wrong: bool = False
    """The log is known not to have what is asked of it."""


def remarks(mapping: Mapping, tables: Iterable[Table], whole: Callable[[Table], bool] | None) -> list[Remark]:
    """Return what there is to say; `whole` tells whether a table's rows before are logged in full. Raises Fatal."""
    found: list[Remark] = []
    for table in tables:
        is_whole = whole(table) if whole is not None else None
        for plan in mapping.plans(table):
            found += _asked(plan, is_whole)
            found += [Remark(line) for line in _losses(plan)]
    return list(dict.fromkeys(found))


def _asked(plan: Plan, is_whole: bool | None) -> Iterator[Remark]:  # noqa: FBT001  None is a third answer
    """Yield what the plan asks of the log beside the key, unless it is known to have that."""
    for keys, inputs in _questions(plan) if not is_whole else ():
        beside = sorted(inputs - set(plan.source.key))
        if not beside:
            continue
        demanded = DEMANDS.get(keys[0])
        of = f"{plan.rule.mark(keys)}table {plan.source.qualified}"
        text = f"{of}: `{'.'.join(keys)}` reads {', '.join(beside)}: {demanded or WHERE}"
        yield Remark(text, wrong=demanded is not None and is_whole is False)


def _questions(plan: Plan) -> Iterator[tuple[Keys, set[str]]]:
    """Yield the keys of what has to be known of a row before, and the source columns that it reads."""
    names = [column.name for column in plan.source.columns]
    made = {column.name: inputs for column, inputs in zip(plan.target.columns, _inputs(plan, names), strict=False)}
    message = {keys: made.get(name, set()) for keys, name in _message(plan).items()}
    if not plan.history and plan.target.key:
        for keys, question in ((("where",), plan.where), (("to", "by"), plan.by)):
            if question is not None and (keys == ("where",) or plan.delete != "ignore"):
                yield keys, _read(question.program, names)
        if plan.key_at:
            yield ("key",), set().union(*(made.get(name, set()) for name in plan.target.key))
    if plan.history or (plan.delete != "ignore" and plan.target.key):
        yield from message.items()


def _message(plan: Plan) -> dict[Keys, str]:
    keys = plan.rule.mapping.message_fields
    return dict(zip(keys, plan.target.message_key, strict=True))


def _inputs(plan: Plan, names: list[str]) -> list[set[str]]:
    """Return for each target column the source columns that it is made of."""
    if plan.computed is None:
        return [{name} if name is not None else set() for name in plan.lineage]
    return [{names[each]} if isinstance(each, int) else _read(each, names) for each in plan.computed.outputs]


def _read(program: Program, names: list[str]) -> set[str]:
    return {names[at] for side, at in program.inputs if side in ("r", "b")}


def _losses(plan: Plan) -> Iterator[str]:
    """Yield what casts lose, each with its place."""
    texts = plan.rule.mapping.expressions
    for keys, program in _programs(plan):
        for note in program.notes if keys in texts else ():
            place = plan.rule.place(keys, program.text, note.start)
            said = f"{place}table {plan.source.qualified}: {'.'.join(keys)}: {note}"
            yield f"{said}\n{note.caret(program.text)}"


def _programs(plan: Plan) -> Iterator[tuple[Keys, Program]]:
    """Yield every expression with the keys that lead to it."""
    outputs = plan.computed.outputs if plan.computed is not None else ()
    message = {name: keys for keys, name in _message(plan).items()}
    for column, output in zip(plan.target.columns, outputs, strict=False):
        if not isinstance(output, int):
            yield message.get(column.name, ("columns", column.name)), output
    for keys, question in ((("where",), plan.where), (("to", "by"), plan.by)):
        if question is not None:
            yield keys, question.program
