"""What a source table becomes under an entry: the target's columns and key, and all that does not fit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from cdcsync.change import Column, Table
from cdcsync.document import nearest
from cdcsync.mapping.model import Routed
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cdcsync.document import KeyPath
    from cdcsync.mapping.expressions import Fault, Program, Scope
    from cdcsync.mapping.model import Rule, TableMapping

SOFT: Final = Type(Kind.TIMESTAMPTZ, precision=6)
WORD: Final = Type(Kind.TEXT)
MESSAGE_KEY: Final = "_message_key"
Keys = tuple[str, ...]


@dataclass(slots=True)
class Shape:
    """A source table's target; not to be used when there are problems."""

    source: Table
    taken: list[int | Program] = field(default_factory=list)
    """For each target column that a row fills, in order: the source column's index, or an expression."""
    columns: list[Column] = field(default_factory=list)
    key: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Each may begin with the place where it stands, in front of a tab."""
    where: Program | None = None
    by: Program | None = None
    message_key: list[str] = field(default_factory=list)
    skip_at: tuple[int, ...] = ()

    def target(self, schema: str, name: str) -> Table:
        """Return the target table; the source's own object where nothing differs."""
        table = Table(schema, name, tuple(self.columns), tuple(self.key), tuple(self.message_key))
        return self.source if table == self.source else table

    def wrong(self, rule: Rule, keys: KeyPath, text: str) -> None:
        """Note a problem where its keys stand."""
        self.problems.append(f"{rule.mark(keys)}\t{text}")

    @property
    def passed(self) -> list[int]:
        """The source columns' indexes, where no column is computed."""
        return [at for at in self.taken if isinstance(at, int)]

    @property
    def own(self) -> set[str]:
        """Target columns that are source key columns."""
        return {
            self.columns[at].name
            for at, index in enumerate(self.taken)
            if isinstance(index, int) and index in self.source.key_at
        }


def shape(rule: Rule, source: Table, secrets: Mapping[str, bytes] | None = None) -> Shape:
    """Work out the target; every mistake is a line in `problems`."""
    mapping = rule.mapping
    made = Shape(source)
    _check_names(made, rule)
    left_out = {*mapping.exclude, *mapping.flatten, *(name for names in mapping.nest.values() for name in names)}
    for index, column in enumerate(source.columns):
        if column.name in left_out or (mapping.include is not None and column.name not in mapping.include):
            continue
        made.taken.append(index)
        name = mapping.rename.get(column.name, column.name)
        made.columns.append(column if name == column.name else replace(column, name=name))
    if not mapping.plain:
        _compute(made, rule, secrets)
    _check_twice(made, rule)
    _choose_key(made, rule)
    _skip(made, rule)
    _own_columns(made, rule)
    if not made.columns:
        made.problems.append("no column is left")
    return made


def _own_columns(made: Shape, rule: Rule) -> None:
    """Add the columns that the entry fills by itself."""
    mapping = rule.mapping
    added: list[Column] = []
    if mapping.soft_column:
        added.append(Column(mapping.soft_column, SOFT))
    history = mapping.history_columns
    if history is not None:
        kept = set(made.own)
        made.columns = [column if column.name in kept else replace(column, nullable=True) for column in made.columns]
        added += [Column(history.operation, WORD, nullable=False), Column(history.time, SOFT, nullable=False)]
    for column in added:
        if any(column.name == other.name for other in made.columns):
            keys = ("history",) if history is not None else ("delete", "soft")
            made.wrong(rule, keys, f"two columns would be named {column.name}")
        made.columns.append(column)


def _compute(made: Shape, rule: Rule, secrets: Mapping[str, bytes] | None) -> None:
    """Type every expression of the entry."""
    from cdcsync.mapping.expressions import Scope  # noqa: PLC0415  sqlglot is not waited for without expressions

    scope = Scope(made.source, secrets, rule.functions)
    mapping = rule.mapping
    for keys, name, text in _columns(mapping, made.source):
        program = _typed(made, rule, keys, text, scope)
        if program is None:
            continue
        column = Column(name, program.type, program.nullable)
        at = next((index for index, other in enumerate(made.columns) if other.name == name), None)
        if at is None:
            made.columns.append(column)
            made.taken.append(program)
        else:
            made.columns[at], made.taken[at] = column, program
        if keys[0] == "message_key":
            made.message_key.append(name)
            _whole(made, rule, keys, program)
    if mapping.where is not None:
        made.where = _typed(made, rule, ("where",), mapping.where, scope)
        _wanted(made, rule, ("where",), made.where, Kind.BOOLEAN)
        if made.where is not None and not made.where.plain and mapping.history is None:
            text = (
                "reads more than the row, so that it cannot tell which rows are in the target; that goes with `history`"
            )
            made.problems.append(f"{rule.place(('where',), mapping.where, 0)}\twhere: {text}")
    if isinstance(mapping.to, Routed):
        made.by = _typed(made, rule, ("to", "by"), mapping.to.by, scope)
        _wanted(made, rule, ("to", "by"), made.by, Kind.TEXT, Kind.ENUM)
        if made.by is not None and not made.by.plain:
            made.wrong(rule, ("to", "by"), "to.by: reads more than the row")


def _whole(made: Shape, rule: Rule, keys: Keys, program: Program) -> None:
    """A deleted row's message has a key too."""
    deletes = rule.mapping.history is None and rule.mapping.delete == "hard"
    if deletes and not program.plain:
        text = "reads more than the row, so that a delete has none; that goes with `history` or `delete: ignore`"
        made.problems.append(f"{rule.place(keys, program.text, 0)}\t{'.'.join(keys)}: {text}")


def _columns(mapping: TableMapping, source: Table) -> Iterable[tuple[Keys, str, str]]:
    """Yield every computed column: the keys that lead to it, its name, its expression."""
    for column, fields in mapping.flatten.items():
        is_json = column in source.at and source.columns[source.at[column]].type.kind is Kind.JSON
        for name, kind in fields.items() if is_json else ():
            arrow = "->" if kind.lower() in ("json", "jsonb") else "->>"
            path = f"{_quoted(column)} {arrow} {_literal(name)}"
            yield ("flatten", column, name), f"{column}_{name}", f"CAST({path} AS {kind})"
    for name, inner in mapping.nest.items():
        pairs = ", ".join(f"{_literal(each)}, {_quoted(each)}" for each in inner if each in source.at)
        yield ("nest", name), name, f"json_object({pairs})"
    for name, text in mapping.columns.items():
        yield ("columns", name), name, text
    for keys, text in mapping.message_fields.items():
        yield keys, ".".join((MESSAGE_KEY, *keys[1:])), text


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _typed(made: Shape, rule: Rule, keys: Keys, text: str, scope: Scope) -> Program | None:
    from cdcsync.mapping.expressions import Fault, compiled, parsed  # noqa: PLC0415  as above
    from cdcsync.mapping.expressions.program import Faults  # noqa: PLC0415

    try:
        return compiled(parsed(text), scope)
    except Faults as several:
        made.problems += [told(rule, keys, text, fault) for fault in several.faults]
    except Fault as fault:
        made.problems.append(told(rule, keys, text, fault))
    return None


def told(rule: Rule, keys: Keys, text: str, fault: Fault) -> str:
    """Return a fault as a problem: its place, a tab, what it is of, and carets under it."""
    if text != rule.mapping.expressions.get(keys):
        return f"{rule.mark(keys)}\t{'.'.join(keys)}: {fault}"
    return f"{rule.place(keys, text, fault.start)}\t{'.'.join(keys)}: {fault}\n{fault.caret(text)}"


def _wanted(made: Shape, rule: Rule, keys: Keys, program: Program | None, *kinds: Kind) -> None:
    if program is not None and program.type.kind not in kinds:
        place = rule.place(keys, program.text, 0)
        made.problems.append(f"{place}\t{'.'.join(keys)}: it is {program.type.kind}, and has to be {kinds[0]}")


def _check_names(made: Shape, rule: Rule) -> None:
    """Every column that the entry names has to be there."""
    mapping = rule.mapping
    for keys, name in _named(mapping):
        if name not in made.source.at:
            made.wrong(rule, keys, f"{keys[0]}: there is no column {name}{nearest(name, made.source.at)}")
    for name in mapping.rename:
        if name in mapping.exclude or (mapping.include is not None and name not in mapping.include):
            made.wrong(rule, ("rename", name), f"rename: column {name} is left out")
    for name in mapping.flatten:
        if name in made.source.at and made.source.columns[made.source.at[name]].type.kind is not Kind.JSON:
            made.wrong(rule, ("flatten", name), f"flatten: column {name} is no JSON")


def _named(mapping: TableMapping) -> Iterator[tuple[KeyPath, str]]:
    """Yield every source column that the entry names, with the keys that lead there."""
    for option, names in (("include", mapping.include or ()), ("exclude", mapping.exclude)):
        for at, name in enumerate(names):
            yield (option, at), name
    for option, named in (("rename", mapping.rename), ("flatten", mapping.flatten)):
        for name in named:
            yield (option, name), name
    for column, names in mapping.nest.items():
        for at, name in enumerate(names):
            yield ("nest", column, at), name


def _check_twice(made: Shape, rule: Rule) -> None:
    """Two source columns may not become one of the target."""
    seen: dict[str, int | Program] = {}
    for column, taken in zip(made.columns, made.taken, strict=True):
        if column.name in seen:
            sources = [made.source.columns[at].name for at in (seen[column.name], taken) if isinstance(at, int)]
            renamed = [name for name in sources if name in rule.mapping.rename]
            keys = ("rename", renamed[0]) if renamed else ()
            made.wrong(rule, keys, f"two columns would be named {column.name}")
        seen[column.name] = taken


def _choose_key(made: Shape, rule: Rule) -> None:
    """Take the declared key, by source names or else by target names; the source's own by default."""
    mapping = rule.mapping
    if mapping.key == "none" or mapping.history is not None:
        return
    wanted = mapping.key if mapping.key is not None else made.source.key
    if not wanted:
        made.problems.append(
            "there is no primary key: name unique columns as `key: [...]`, or write `key: none` to only append rows"
        )
    targets = {
        made.source.columns[index].name: made.columns[at].name
        for at, index in enumerate(made.taken)
        if isinstance(index, int)
    }
    by_target = {column.name for column in made.columns}
    computed = {made.columns[at].name for at, index in enumerate(made.taken) if not isinstance(index, int)}
    for at, name in enumerate(wanted):
        found = targets.get(name) or (
            name if name in by_target and (name in computed or name not in made.source.at) else None
        )
        if found is not None:
            made.key.append(found)
            continue
        text = f"there is no column {name}{nearest(name, made.source.at)}"
        if name in made.source.at:
            text = f"column {name} is left out"
        made.wrong(rule, ("key", at), f"key: {text}")
    if len(set(made.key)) < len(made.key):
        made.wrong(rule, ("key",), "key: a column stands there twice")


def _skip(made: Shape, rule: Rule) -> None:
    """Find the columns that count for `skip_unchanged`."""
    skip = rule.mapping.skip_unchanged
    if skip is None:
        return
    by_name = {column.name: at for at, column in enumerate(made.columns)}
    names = tuple(by_name) if skip is True else skip
    for at, name in enumerate(names):
        if name not in by_name:
            text = f"skip_unchanged: there is no target column {name}{nearest(name, by_name)}"
            made.wrong(rule, ("skip_unchanged", at), text)
    made.skip_at = tuple(by_name[name] for name in names if name in by_name)


def nullable_key(rule: Rule, made: Shape) -> list[str]:
    """Return a problem for each declared key column that may be null by the catalogue."""
    mapping = rule.mapping
    by_name = {column.name: column for column in made.columns}
    if mapping.key == "none":
        return []
    return [
        f"{rule.mark(('key',) if mapping.key is not None else ())}\tkey: column {name} may be null at the source; "
        "a key has to be unique and not null"
        for name in made.key
        if by_name[name].nullable and name not in made.own and (mapping.key is not None or _computed(made, name))
    ]


def _computed(made: Shape, name: str) -> bool:
    return any(
        column.name == name and not isinstance(index, int)
        for column, index in zip(made.columns, made.taken, strict=False)
    )
