"""Entries of a file: checked against the model, their expressions parsed, their Python functions found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdcsync import document
from cdcsync.document import Problem
from cdcsync.mapping.model import MappingFile, Rule, TableMapping, spelled_out
from cdcsync.validation import Checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cdcsync.mapping.expressions.registry import Function
    from cdcsync.sections import Section


def rules_of(path: Path, problems: list[Problem]) -> Iterator[Rule]:
    """Yield the entries of a mapping file; what is wrong is added to `problems`. Raises Fatal for what is no YAML."""
    other = document.read(path)
    problems += other.problems
    checked = Checked(other, set(), problems)
    tables = other.value.get("tables") if isinstance(other.value, dict) else None
    if isinstance(tables, list) and tables:
        others = {key: item for key, item in other.value.items() if key != "tables"}
        if others:
            checked.model(MappingFile, {**others, "tables": ["any"]}, ())
        yield from entries(checked, tables, others.get("functions"))
    else:
        checked.model(MappingFile, other.value if isinstance(other.value, dict) else {}, ())


def entries(checked: Checked, tables: list[Any], functions: Any) -> Iterator[Rule]:
    """Yield the entries that fit the model, with what is wrong in the others noted."""
    own = _functions(checked, functions) if isinstance(functions, list) else {}
    for at, entry in enumerate(tables):
        mapping = checked.model(TableMapping, spelled_out(entry), ("tables", at))
        if mapping is None:
            continue
        where = checked.document.values.get(("tables", at))
        rule = Rule(mapping, str(where) if where else "", checked.document, ("tables", at), own)
        checked.problems += _faults(rule, checked.document)
        yield rule


def misplaced(rules: Iterable[Rule], sink: Section | None) -> Iterator[Problem]:
    """Yield what these entries ask for and this sink does not have."""
    spec = sink.connector.sink if sink is not None else None
    if sink is None or spec is None:
        return
    for rule in rules:
        if rule.document is None:
            continue
        if rule.mapping.message_key is not None and not spec.messages:
            text = f"message_key: a {sink.system} sink sends no messages; name columns of the target as `key`"
            yield Problem(rule.document.value_mark((*rule.path, "message_key")), text)
        if rule.mapping.free and not spec.places:
            text = f"to: a {sink.system} sink has to know its tables before a row comes; list them under `tables`"
            yield Problem(rule.document.value_mark((*rule.path, "to")), text)


def _functions(checked: Checked, names: Iterable[Any]) -> dict[str, Function]:
    from cdcsync.mapping.expressions import python_functions  # noqa: PLC0415  sqlglot is not waited for without

    found: dict[str, Function] = {}
    for at, name in enumerate(names):
        try:
            function = python_functions.load(str(name))
        except ValueError as error:
            checked.problems.append(Problem(checked.document.value_mark(("functions", at)), f"{name}: {error}"))
        else:
            found[function.name] = function
    return found


def _faults(rule: Rule, given: document.Document) -> Iterator[Problem]:
    """Yield what can be told of the expressions without a table."""
    for keys, text in rule.mapping.expressions.items():
        from cdcsync.mapping.expressions import Fault, parsed, unknown  # noqa: PLC0415  as above

        try:
            faults = unknown(parsed(text), None, rule.functions)
        except Fault as only:
            faults = [only]
        for fault in faults:
            mark = given.inner_mark((*rule.path, *keys), text, fault.start)
            yield Problem(mark, f"{'.'.join(keys)}: {fault}\n{fault.caret(text)}")
