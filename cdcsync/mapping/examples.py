"""An entry's own examples: run against the table as it is, or as the examples show it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import UNCHANGED, Batch, Change, Column, Operation, Table, Transaction
from cdcsync.document import nearest
from cdcsync.errors import Fatal, Rejected
from cdcsync.lines import Lines
from cdcsync.mapping.names import Pattern
from cdcsync.mapping.shape import MESSAGE_KEY
from cdcsync.mapping.transform import Mapping
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cdcsync.change import Row, Value
    from cdcsync.mapping.model import Example, Rule

NOTHING: Final = "nothing"
DEFAULTS: Final = {"commit_time": "2026-01-01T00:00:00Z", "position": "0/0", "transaction": "1"}
"""What a change has that does not say."""
GIVEN: Final = ("operation", "before", "after", "unchanged", "table", *DEFAULTS)
EXPECTED: Final = ("operation", "table", "before", "after", "unchanged", "message_key", "rejected")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one example."""

    rule: Rule
    number: int
    """Counted from 0."""
    differences: tuple[str, ...]
    got: list[dict[str, Any]] = field(default_factory=list)
    """All that came out, as it would be expected."""

    @property
    def place(self) -> str:
        """Where the example stands."""
        document = self.rule.document
        if document is None:
            return f"{self.rule}, example {self.number + 1}"
        return str(document.value_mark((*self.rule.path, "examples", self.number)))


@dataclass(frozen=True, slots=True)
class _Place:
    """The position that an example's change has."""

    text: str
    epoch: int = 0

    def encode(self) -> str:
        return self.text

    def covers(self, other: _Place) -> bool:
        return self == other


def run(rules: Iterable[Rule], tables: Sequence[Table] = ()) -> Iterator[Outcome]:
    """Run every example; `tables` are the source's own where it was asked. A secret is its own name."""
    for rule in rules:
        mapping = Mapping([rule])
        for number, example in enumerate(rule.mapping.examples):
            try:
                yield _one(rule, mapping, number, example, tables)
            except Fatal as fatal:
                yield Outcome(rule, number, tuple(str(fatal.args[0]).split("\n")))
            except ValueError as error:
                yield Outcome(rule, number, (str(error),))


def _one(rule: Rule, mapping: Mapping, number: int, example: Example, tables: Sequence[Table]) -> Outcome:
    _known(example.given, GIVEN, "given")
    table = _table(rule, example, tables)
    change = _change(table, example.given)
    said = DEFAULTS | {key: str(value) for key, value in example.given.items() if key in DEFAULTS}
    at = _Place(said["position"])
    commit_us = round(datetime.fromisoformat(said["commit_time"]).timestamp() * 1_000_000)
    transaction = Transaction(said["transaction"], commit_us, at, 0, [change], [0])
    mapping.tables([table])
    try:
        made = mapping.apply(Batch([transaction], at, 1, 0)).transactions[0]
    except Rejected as rejected:
        (reason,) = rejected.reasons.values()
        return Outcome(rule, number, tuple(_refused(example.expect, reason)), [{"rejected": reason}])
    changes = [item for item in made.items if isinstance(item, Change)]
    differences = [] if example.expect is None else list(_compared(example.expect, changes))
    if example.expect is None:
        differences = ["nothing is expected yet: write `expect`, or let --update write it"]
    return Outcome(rule, number, tuple(differences), _shown(made))


def _known(given: dict[str, Any], names: Sequence[str], what: str) -> None:
    for name in given:
        if name not in names:
            msg = f"{what}: unknown key {name}{nearest(name, names)}"
            raise ValueError(msg)


def _shown(made: Transaction) -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in Lines().encode(made).splitlines()]
    keys = ("operation", "table", "before", "after", "unchanged", "message_key")
    for line, item in zip(lines, made.items, strict=True):
        _apart(line, item[0].message_key if isinstance(item, Change) else ())
    return [{key: line[key] for key in keys if line.get(key)} for line in lines]


def _apart(line: dict[str, Any], names: Sequence[str]) -> None:
    """Take the message's key out of a line's rows."""
    for side in ("before", "after"):
        row = line[side]
        found = {name: row.pop(name) for name in names if name in row} if row else {}
        if found:
            line["message_key"] = _key_told(found)


def _key_told(found: dict[str, Any]) -> Any:
    """Return a message's key as an example has it: one value, or its fields."""
    if MESSAGE_KEY in found:
        return found[MESSAGE_KEY]
    return {name.removeprefix(f"{MESSAGE_KEY}."): value for name, value in found.items()}


def _table(rule: Rule, example: Example, tables: Sequence[Table]) -> Table:
    """Return the source's own table that the example is about, else one made of what all examples show."""
    pattern = Pattern.parse(rule.mapping.from_)
    named = str(example.given.get("table", ""))
    schema, _, name = named.rpartition(".")
    for table in tables:
        if (table.qualified == named or not named) and pattern.match(table.schema, table.name) is not None:
            return table
    if pattern.exact is not None and not named:
        schema, name = pattern.exact
    elif not named:
        msg = "given: name the `table`, as `from` takes more than one"
        raise ValueError(msg)
    return Table(schema, name, tuple(_columns(rule)), _key(rule))


def _seen(rule: Rule) -> dict[str, list[Any]]:
    """Return the values that the examples show of each column, those that `types` names first."""
    seen: dict[str, list[Any]] = {name: [] for name in rule.mapping.types}
    for example in rule.mapping.examples:
        for side in ("before", "after"):
            for name, value in (example.given.get(side) or {}).items():
                seen.setdefault(name, []).append(value)
    return seen


def _columns(rule: Rule) -> Iterator[Column]:
    from cdcsync.mapping.expressions.checker import named_type  # noqa: PLC0415  sqlglot is not waited for without

    key = _key(rule)
    for name, values in _seen(rule).items():
        said = rule.mapping.types.get(name)
        kind = named_type(said) if said is not None else _guessed(values)
        yield Column(name, kind, nullable=name not in key)


def _key(rule: Rule) -> tuple[str, ...]:
    """Return the key that the table has in the examples: what the entry says of source columns, `id`, or the first."""
    seen = list(_seen(rule))
    if isinstance(rule.mapping.key, tuple):
        return tuple(name for name in rule.mapping.key if name in seen)
    return ("id",) if "id" in seen else tuple(seen[:1])


def _guessed(values: Iterable[Any]) -> Type:
    known = [value for value in values if value is not None]
    kinds: list[tuple[type | tuple[type, ...], Type]] = [
        (bool, Type(Kind.BOOLEAN)),
        (int, Type(Kind.INTEGER, bits=64)),
        ((int, float), Type(Kind.DECIMAL)),
        (list, Type(Kind.ARRAY, element=Type(Kind.TEXT))),
        (dict, Type(Kind.JSON)),
    ]
    for python, kind in kinds:
        if known and all(
            isinstance(value, python) and (python is bool or not isinstance(value, bool)) for value in known
        ):
            return kind
    return Type(Kind.TEXT)


def _change(table: Table, given: dict[str, Any]) -> Change:
    """Return the change; in `after` what is left out is null, in `before` it was not logged."""
    before, after = given.get("before"), given.get("after")
    default = "update" if before and after else "delete" if before else "insert"
    try:
        operation = Operation(given.get("operation", default))
    except ValueError as error:
        msg = f"given: no operation is named {given['operation']}{nearest(given['operation'], Operation)}"
        raise ValueError(msg) from error
    for side in (before, after):
        for name in side or {}:
            if name not in table.at:
                msg = f"given: {table.qualified} has no column {name}{nearest(name, table.at)}"
                raise ValueError(msg)
    if operation is Operation.TRUNCATE:
        return Change(table, operation, None, None)
    if operation is Operation.UPDATE and before is None:
        before = {name: (after or {}).get(name) for name in table.key}
    unchanged = given.get("unchanged", ())
    new = None if operation is Operation.DELETE else _row(table, after or {}, None, unchanged)
    old = None if operation in (Operation.INSERT, Operation.READ) else _row(table, before or {}, UNCHANGED, ())
    return Change(table, operation, old, new)


def _row(table: Table, given: dict[str, Any], missing: Value, unchanged: Iterable[str]) -> Row:
    return tuple(
        UNCHANGED
        if column.name in unchanged
        else value_of(given[column.name], column)
        if column.name in given
        else missing
        for column in table.columns
    )


def value_of(value: Any, column: Column) -> Value:
    """Return a YAML value as one of the column's type. Raises ValueError."""
    from cdcsync.mapping.expressions import moments  # noqa: PLC0415  sqlglot is not waited for without

    kind = column.type.kind
    if value is None:
        return None
    ways: dict[Kind, Any] = {
        Kind.BOOLEAN: bool, Kind.INTEGER: int, Kind.FLOAT: float, Kind.DECIMAL: str,
        Kind.DATE: lambda text: moments.date_of_text(str(text)), Kind.TIME: lambda text: moments.time_of_text(str(text)),
        Kind.TIMESTAMP: lambda text: moments.timestamp_of_text(str(text)),
        Kind.TIMESTAMPTZ: lambda text: moments.timestamptz_of_text(str(text)),
        Kind.JSON: lambda given: given if isinstance(given, str) else orjson.dumps(given).decode(),
        Kind.BYTES: _bytes, Kind.ARRAY: tuple, Kind.SET: tuple,
    }  # fmt: skip
    try:
        return ways.get(kind, str)(value)
    except (ValueError, TypeError) as error:
        msg = f"column {column.name} is {kind}, and the example's value is none"
        raise ValueError(msg) from error


def _bytes(value: Any) -> bytes:
    from base64 import b64decode  # noqa: PLC0415  few examples hold bytes

    return b64decode(str(value), validate=True)


def _refused(expect: Any, reason: str) -> Iterator[str]:
    wanted = expect.get("rejected") if isinstance(expect, dict) else None
    if wanted is None or str(wanted) not in reason:
        yield f"expected {_told(expect)}, but the row is rejected: {reason}"


def _told(expect: Any) -> str:
    return expect if isinstance(expect, str) else orjson.dumps(expect, default=str).decode()


def _compared(expect: Any, changes: Sequence[Change]) -> Iterator[str]:
    """Yield a line for each difference."""
    if expect == NOTHING:
        expect = []
    wanted = expect if isinstance(expect, list) else [expect]
    if len(wanted) != len(changes):
        there = ", ".join(f"{change.operation} {change.table.qualified}" for change in changes) or NOTHING
        yield f"expected {len(wanted) or NOTHING} change(s), got {there}"
        return
    for number, (one, change) in enumerate(zip(wanted, changes, strict=True)):
        at = f"change {number + 1}: " if len(wanted) > 1 else ""
        if not isinstance(one, dict):
            yield f"{at}expect: write `nothing`, or keys and values"
            continue
        _known(one, EXPECTED, "expect")
        for difference in _unlike(one, change):
            yield at + difference


def _unlike(wanted: dict[str, Any], change: Change) -> Iterator[str]:
    if "rejected" in wanted:
        yield f"expected a rejected row, got {change.operation} {change.table.qualified}"
        return
    for name, got in (("operation", change.operation.value), ("table", change.table.qualified)):
        if name in wanted and wanted[name] != got:
            yield f"{name}: expected {wanted[name]}, got {got}"
    sides = {"before": change.before, "after": change.after}
    for name, row in sides.items():
        if name in wanted:
            yield from _rows_unlike(name, wanted[name], row, change.table)
    if "message_key" in wanted:
        yield from _message_key_unlike(wanted["message_key"], change)
    for column in wanted.get("unchanged", ()):
        at = change.table.at.get(column)
        if at is None or change.after is None or change.after[at] is not UNCHANGED:
            yield f"unchanged: {column} has a value"


def _message_key_unlike(wanted: Any, change: Change) -> Iterator[str]:
    """Yield a difference for each field of the key of the message that the change becomes."""
    row = change.after if change.after is not None else change.before
    if not change.table.message_key or row is None:
        yield "message_key: the entry has none"
        return
    fields = {f".{name}": value for name, value in wanted.items()} if isinstance(wanted, dict) else {"": wanted}
    named = {MESSAGE_KEY + name: value for name, value in fields.items()}
    for line in _rows_unlike("", named, row, change.table):
        yield line.removeprefix("._")


def _rows_unlike(name: str, wanted: dict[str, Any] | None, row: Row | None, table: Table) -> Iterator[str]:
    if wanted is None or row is None:
        if (wanted is None) is not (row is None):
            yield f"{name}: expected {'no row' if wanted is None else 'a row'}, got {'none' if row is None else 'one'}"
        return
    for column, value in wanted.items():
        at = table.at.get(column)
        if at is None:
            yield f"{name}.{column}: {table.qualified} has no such column{nearest(column, table.at)}"
            continue
        want = value_of(value, table.columns[at])
        if not same(want, row[at], table.columns[at].type.kind):
            yield f"{name}.{column}: expected {_told(value)}, got {_told(_plain(row[at]))}"


def _plain(value: Value) -> Any:
    if value is UNCHANGED:
        return "(unchanged)"
    return value.hex() if isinstance(value, bytes) else value


def same(want: Value, got: Value, kind: Kind) -> bool:
    """Return whether two values are one: decimals by their number, JSON by its value."""
    if want is None or got is None or got is UNCHANGED:
        return want is got
    try:
        if kind is Kind.DECIMAL:
            return Decimal(want) == Decimal(got)
        if kind is Kind.JSON:
            return bool(orjson.loads(want) == orjson.loads(got))
    except (InvalidOperation, orjson.JSONDecodeError):
        return bool(want == got)
    if kind is Kind.FLOAT:
        return math.isclose(want, got, rel_tol=1e-9) or (math.isnan(want) and math.isnan(got))
    return bool(want == got)


def rewrite(outcomes: Sequence[Outcome]) -> list[str]:
    """Write what came out into the files of examples that differ; return the files. Comments stay."""
    from pathlib import Path  # noqa: PLC0415  `--update` alone writes

    from ruamel.yaml import YAML  # noqa: PLC0415

    yaml = YAML()
    yaml.width = 120
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    changed: dict[str, Any] = {}
    for outcome in outcomes:
        document = outcome.rule.document
        if document is None or not outcome.differences:
            continue
        if document.file not in changed:
            changed[document.file] = yaml.load(Path(document.file).read_text(encoding="utf-8"))
        node = changed[document.file]
        for key in outcome.rule.path:
            node = node[key]
        got = outcome.got
        node["examples"][outcome.number]["expect"] = NOTHING if not got else got[0] if len(got) == 1 else got
    for name, value in changed.items():
        with Path(name).open("w", encoding="utf-8") as file:
            yaml.dump(value, file)
    return list(changed)
