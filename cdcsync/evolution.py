"""How a target follows its source table: what is different between two versions, what of it is followed, what comes of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from cdcsync.change import Change, Column, CopyStart, Operation, SchemaChange, Table, place_of
from cdcsync.errors import Fatal
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Batch

NAME: Final = "cdcsync_schemas"
"""The table in which SQL sinks keep what their targets look like, and for which version they were altered."""
Renamed = tuple[tuple[str, str], ...]
"""Old and new names of columns, where a statement tells; a column dropped and one added look the same otherwise."""


class Mode(enum.StrEnum):
    """What becomes of a target when its source table changes."""

    EVOLVE = "evolve"
    """It follows in everything but the loss of the whole table."""
    LENIENT = "lenient"
    """It follows as far as nothing is lost: columns are added, widened, made nullable; those dropped are kept."""
    IGNORE = "ignore"
    """It stays as it is, for as long as the rows fit."""
    STOP = "stop"
    """The pipeline stops."""


class Alteration(enum.StrEnum):
    """One kind of difference between two versions of a table."""

    ADD = "add"
    DROP = "drop"
    RENAME = "rename"
    TYPE = "type"
    NULLABLE = "nullable"
    KEY = "key"
    RENAME_TABLE = "rename_table"
    DROP_TABLE = "drop_table"


class Step(NamedTuple):
    """One difference, as the target is to be altered."""

    kind: Alteration
    old: Column | None
    """The column as it is, under its new name where an earlier step renames it; None for one that is added."""
    new: Column | None
    """The column as it will be; None for one that is dropped, and for a key."""
    key: tuple[str, ...] = ()
    """The new key, of a step of that kind."""


@dataclass(frozen=True, slots=True)
class Follows:
    """How a target follows, and which kinds of changes; a kind that is left out is ignored."""

    mode: Mode = Mode.STOP
    include: frozenset[Alteration] | None = None
    """None: all but the drop of a whole table."""
    exclude: frozenset[Alteration] = frozenset()
    entry: str = field(default="", compare=False)
    """Stands for what else its entry says: after another entry it is no change of the source that makes a difference."""

    def takes(self, kind: Alteration) -> bool:
        """Return whether the target follows a change of this kind."""
        if self.mode in (Mode.IGNORE, Mode.STOP) or kind in self.exclude:
            return False
        return kind in self.include if self.include is not None else kind is not Alteration.DROP_TABLE


class Applied(NamedTuple):
    """What a target looks like, as a sink keeps it beside the rows."""

    table: Table
    version: int
    """Of the transaction for which it was altered last."""
    entry: str = ""
    """As `Follows.entry` was then."""


class Met(NamedTuple):
    """A table version that a sink is about to write rows of."""

    table: Table
    version: int
    """Of the transaction."""
    copied: bool = False
    """Its rows were read beside the log, so that it may be older than what the log has shown."""
    renamed: Renamed = ()
    begun: bool = False
    """A copy of it begins: what was before does not matter."""


def steps(old: Table, new: Table, renamed: Renamed = ()) -> list[Step]:
    """Return what is different, in the order in which it is to be done: renames first, drops last.

    Raises Fatal for names that go round in a circle.
    """
    names = _names(old, new, renamed)
    found: list[Step] = []
    gone: list[Step] = []
    types: list[Step] = []
    for column in old.columns:
        name = names.get(column.name, column.name)
        if name not in new.at:
            gone.append(Step(Alteration.DROP, column, None))
            continue
        other = new.columns[new.at[name]]
        if name != column.name:
            found.append(Step(Alteration.RENAME, column, replace(column, name=name)))
        types += _altered(replace(column, name=name), other)
    had = {names.get(column.name, column.name) for column in old.columns}
    found += [Step(Alteration.ADD, None, column) for column in new.columns if column.name not in had]
    key = tuple(names.get(name, name) for name in old.key)
    keyed = [Step(Alteration.KEY, None, None, new.key)] if key != new.key and set(key) != set(new.key) else []
    return [*found, *types, *keyed, *gone]


def _names(old: Table, new: Table, renamed: Renamed) -> dict[str, str]:
    """Return the renames that hold for these two versions."""
    names = {one: other for one, other in renamed if one in old.at and other in new.at}
    for one, other in list(names.items()):
        if one in new.at or other in old.at:
            if one in names.values() or other in names:
                msg = f"columns of {new.qualified} exchanged their names: {one} is {other} now"
                hint = "rename them at the target by hand, under `schema_changes: stop`, or fill the target anew"
                raise Fatal(msg, hint=hint)
            del names[one]
    return names


def _altered(column: Column, other: Column) -> list[Step]:
    """Return how one column's type and nullability are different."""
    found: list[Step] = []
    if not alike(column.type, other.type):
        found.append(Step(Alteration.TYPE, column, replace(other, nullable=column.nullable)))
    if other.nullable and not column.nullable:
        found.append(Step(Alteration.NULLABLE, replace(column, type=other.type), other))
    return found


def renaming(table: Table, pairs: Renamed) -> tuple[Table, Table, Renamed] | None:
    """Return the table before and after its columns were renamed, and by which; None where it has none of them.

    `table` may have the new names already: what the catalogue has is of now.
    """
    back = {new: old for old, new in pairs if new in table.at and old not in table.at}
    old = _with_names(table, back)
    names = {one: other for one, other in pairs if one in old.at}
    return (old, _with_names(old, names), tuple(names.items())) if names else None


def _with_names(table: Table, names: Mapping[str, str]) -> Table:
    columns = tuple(replace(column, name=names.get(column.name, column.name)) for column in table.columns)
    return replace(table, columns=columns, key=tuple(names.get(each, each) for each in table.key))


def alike(one: Type, other: Type) -> bool:
    """Return whether two types are the same; labels are a hint, and matter where both are known."""
    if one.labels and other.labels and one.labels != other.labels:
        return False
    return _bare(one) == _bare(other)


def _bare(kind: Type) -> Type:
    return replace(kind, labels=(), element=_bare(kind.element) if kind.element else None)


def followed(follows: Follows, old: Table, new: Table, renamed: Renamed = ()) -> list[Step]:
    """Return what the target does of a change. Raises Fatal as `steps` does."""
    lenient = follows.mode is Mode.LENIENT
    found = steps(old, new, () if lenient else renamed)
    if lenient:
        found = [made for step in found for made in _lenient(step)]
    return [step for step in found if follows.takes(step.kind)]


def _lenient(step: Step) -> list[Step]:
    """Return what of a step loses nothing."""
    column, new = step.old, step.new
    if step.kind is Alteration.KEY:
        return []
    if step.kind is Alteration.DROP and column is not None:
        return [] if column.nullable else [Step(Alteration.NULLABLE, column, replace(column, nullable=True))]
    if step.kind is Alteration.TYPE and column is not None and new is not None:
        kind = widened(column.type, new.type)
        return [] if alike(kind, column.type) else [Step(Alteration.TYPE, column, replace(new, type=kind))]
    return [step]


def widened(old: Type, new: Type) -> Type:
    """Return a type that holds all values of both: the wider one, or a text without a bound."""
    if old.kind is not new.kind:
        return Type(Kind.TEXT)
    if old.kind is Kind.INTEGER:
        return _wider_integer(old, new)
    if old.kind is Kind.FLOAT:
        return max(old, new, key=lambda each: each.bits)
    if old.kind is Kind.DECIMAL:
        return _wider_decimal(old, new)
    if old.kind in _MEASURED:
        return max(old, new, key=_measure)
    if old.kind in (Kind.ENUM, Kind.SET):
        return replace(new, labels=tuple(dict.fromkeys([*old.labels, *new.labels])))
    return new if old.kind in (Kind.JSON, Kind.UUID, Kind.BOOLEAN, Kind.DATE, Kind.GEOMETRY) else Type(Kind.TEXT)


_MEASURED: Final = frozenset(
    {Kind.TEXT, Kind.BYTES, Kind.BIT, Kind.TIME, Kind.TIMETZ, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.INTERVAL}
)


def _measure(kind: Type) -> float:
    if kind.kind in (Kind.TEXT, Kind.BYTES, Kind.BIT):
        return float("inf") if kind.length is None else kind.length + (0.0 if kind.fixed else 0.5)
    return float("inf") if kind.precision is None else kind.precision


def _wider_integer(old: Type, new: Type) -> Type:
    if old.unsigned == new.unsigned:
        return max(old, new, key=lambda each: each.bits)
    signed, unsigned = (old, new) if new.unsigned else (new, old)
    if signed.bits > unsigned.bits:
        return signed
    bits = next((bits for bits in (16, 32, 64) if bits > unsigned.bits), 0)
    return Type(Kind.INTEGER, bits=bits) if bits else Type(Kind.DECIMAL, precision=20, scale=0)


def _wider_decimal(old: Type, new: Type) -> Type:
    if old.precision is None or new.precision is None:
        return old if old.precision is None else new
    scale = max(old.scale or 0, new.scale or 0)
    whole = max(old.precision - (old.scale or 0), new.precision - (new.scale or 0))
    for each in (old, new):
        if (each.precision, each.scale or 0) == (whole + scale, scale):
            return each
    return Type(Kind.DECIMAL, precision=whole + scale, scale=scale)


def after(old: Table, new: Table, done: Sequence[Step]) -> Table:
    """Return what a target of `old` looks like once these steps are done, under the name of `new`."""
    columns = {column.name: column for column in old.columns}
    key = old.key
    for step in done:
        if step.kind is Alteration.RENAME and step.old is not None and step.new is not None:
            last, name = step.old.name, step.new.name
            columns = {(name if each == last else each): column for each, column in columns.items()}
            key = tuple(name if each == last else each for each in key)
        if step.kind is Alteration.KEY:
            key = step.key
        elif step.new is not None:
            columns[step.new.name] = step.new
        elif step.old is not None:
            del columns[step.old.name]
    return Table(new.schema, new.name, tuple(columns.values()), tuple(name for name in key if name in columns))


def trimmed(table: Table, there: Table) -> Table:
    """Return the table without the columns that its target has not; the table itself where it has them all."""
    kept = tuple(column for column in table.columns if column.name in there.at or column.name in table.key)
    return table if len(kept) == len(table.columns) else replace(table, columns=kept)


def is_older(met: Met, applied: Applied) -> bool:
    """Return whether rows of this version were logged before the target was altered: they are delivered again."""
    return not met.begun and (met.copied or place_of(met.version) < place_of(applied.version))


def met(batch: Batch) -> dict[Table, Met]:
    """Return the table versions of a batch where they first come up, in order."""
    found: dict[Table, Met] = {}
    renamed: dict[Table, Renamed] = {}
    for transaction in batch.transactions:
        for item in transaction.items:
            if isinstance(item, SchemaChange):
                if item.new is not None and item.renamed:
                    renamed[item.new] = item.renamed
            elif isinstance(item, Change | CopyStart) and item.table not in found:
                copied = isinstance(item, Change) and item.operation is Operation.READ
                known, begun = renamed.get(item.table, ()), isinstance(item, CopyStart)
                found[item.table] = Met(item.table, transaction.version, copied, known, begun)
    return found


def encode(applied: Applied) -> str:
    """Return what a target looks like as text, without the version, for a sink to keep."""
    table = applied.table
    columns = [
        {"name": each.name, "type": _fields(each.type), "nullable": each.nullable, "generated": each.generated}
        for each in table.columns
    ]
    shown = {"schema": table.schema, "name": table.name, "columns": columns, "key": table.key, "entry": applied.entry}
    return orjson.dumps(shown).decode()


def decode(text: str, version: int) -> Applied:
    """Return what a target looks like, of a text that `encode` made."""
    shown = orjson.loads(text)
    columns = tuple(
        Column(each["name"], _type(each["type"]), each["nullable"], each["generated"]) for each in shown["columns"]
    )
    table = Table(shown["schema"], shown["name"], columns, tuple(shown["key"]))
    return Applied(table, version, shown["entry"])


_PLAIN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "bits": int, "unsigned": bool, "length": int, "fixed": bool, "precision": int, "scale": int, "name": str, "system": str,
}  # fmt: skip


def _fields(kind: Type) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": kind.kind.value}
    for name in _PLAIN:
        value = getattr(kind, name)
        if value not in (None, False, "") and not (name == "bits" and not value):
            found[name] = value
    if kind.labels:
        found["labels"] = kind.labels
    if kind.element is not None:
        found["element"] = _fields(kind.element)
    return found


def _type(shown: Mapping[str, Any]) -> Type:
    plain = {name: convert(shown[name]) for name, convert in _PLAIN.items() if name in shown}
    element = _type(shown["element"]) if "element" in shown else None
    return Type(Kind(shown["kind"]), labels=tuple(shown.get("labels", ())), element=element, **plain)
