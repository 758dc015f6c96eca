"""What a mapping file says of a table, as it is declared."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cdcsync.evolution import Alteration, Follows, Mode
from cdcsync.mapping import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.document import Document, KeyPath
    from cdcsync.mapping.expressions.registry import Function


class OnTruncate(enum.StrEnum):
    """What a TRUNCATE of the source does to the target."""

    APPLY = "apply"
    IGNORE = "ignore"
    STOP = "stop"


class SoftDelete(BaseModel):
    """A deleted row stays in the target, with the time of the delete in a column of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    soft: str = Field(min_length=1)
    """The column: a timestamp with time zone, NULL while the row exists at the source."""


class Routed(BaseModel):
    """Rows of one table go to several targets of the same columns, by their content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: str = Field(min_length=1)
    """An expression: the name of one of `tables`, for each row."""
    tables: tuple[str, ...] = ()
    """The targets, `table` or `schema.table`. A row that moves from one to another is deleted in the old one, unless
    deletes are ignored: the source table needs full before images. Absent, for sinks that make topics and indexes as rows come: whatever the
    expression names, up to 1,000 of them."""


class History(BaseModel):
    """Every version of a row becomes a row of its own; nothing is updated or deleted in the target."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operation: str = Field("operation", min_length=1)
    """The column that says insert, update, delete or read."""
    time: str = Field("changed_at", min_length=1)
    """The column of the commit time."""


class SchemaChanges(BaseModel):
    """How the target follows, and which kinds of changes; what it does not follow is ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Mode.EVOLVE
    """As `schema_changes` in one word."""
    include: tuple[Alteration, ...] | None = None
    """Kinds that the target follows; absent: all but `drop_table`."""
    exclude: tuple[Alteration, ...] = ()
    """Kinds that it does not follow."""


class Example(BaseModel):
    """One change, and what has to come of it; run by `cdcsync test` and `cdcsync check`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    given: dict[str, Any]
    """`operation`, `before` and `after` with source columns (those left out are null), and where they matter `table`,
    `commit_time`, `position` and `transaction`."""
    expect: Any = None
    """`nothing`, or what comes out: `operation`, `table`, `before` and `after`; a list where it is more than one
    change, `rejected: words of the reason` where the row is refused. Only what is named is compared."""


class TableMapping(BaseModel):
    """One entry of `tables`: which tables it takes and what becomes of them.

    The first entry that matches wins, unless it says `match: all`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: str = Field(alias="from", min_length=1)
    """The source tables: `schema.table`, a glob as `shop.*`, or a whole `/regex/` over `schema.table`."""
    match: Literal["first", "all"] = "first"
    """`all`: entries below may take the table too, so that it goes to several targets."""
    to: Annotated[str, Field(min_length=1)] | Routed | None = None
    """The target, `table` or `schema.table`; takes {schema}, {table}, and {1} or {name} for what was captured by
    the regex or a star. Or `by: expression` and `tables: [...]`: each row goes where its content says. Absent: the
    source's own name."""
    where: str | None = Field(None, min_length=1)
    """An expression over the source's columns: only rows for which it is true are in the target. A row that an update
    brings in is inserted, one that it takes out is deleted."""
    include: tuple[str, ...] | None = None
    """Source columns that go to the target; absent: all."""
    exclude: tuple[str, ...] = ()
    """Source columns that do not."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Source column to target column."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Target column to an expression over the source's columns: added, or in the place of the column of that name."""
    flatten: dict[str, dict[str, str]] = Field(default_factory=dict)
    """JSON column to its keys and their types, `address: {city: text, zip: text}`: each becomes a column
    `address_city`, and the JSON column is left out."""
    nest: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """JSON column to source columns that go into it as one object, and are left out themselves."""
    key: Literal["none"] | tuple[str, ...] | None = None
    """Columns that are unique and not null at the source; absent: its primary key; `none`: rows are only appended,
    each once; an update or delete in the log stops the pipeline (the log has them where the table has a replica
    identity)."""
    delete: Literal["hard", "ignore"] | SoftDelete = "hard"
    """`hard`, `ignore`, or `soft: column`."""
    history: Literal[True] | History | None = None
    """Every version of a row is appended, with operation and commit time; `true`, or names of these two columns."""
    skip_unchanged: Literal[True] | tuple[str, ...] | None = None
    """Target columns: an update that leaves all of them as they were is left out. `true`: all columns."""
    truncate: OnTruncate | None = None
    """`apply`, `ignore` or `stop`. Absent: apply under `delete: hard`, else stop, as the rows are there to stay."""
    message_key: Annotated[str, Field(min_length=1)] | dict[str, str] | None = None
    """The key of a row's message, for sinks that send messages: an expression, whose text it is, or fields, each with
    its expression. It has to be known of a deleted row too. Absent: the target's key."""

    schema_changes: Mode | SchemaChanges = Mode.EVOLVE
    """`evolve`: the target follows the source table. `lenient`: so that nothing is lost; columns are added, widened and
    made nullable, dropped ones are kept. `ignore`: it stays as it is, where the rows still fit. `stop`: the pipeline
    stops. Or `mode`, `include` and `exclude`."""

    types: dict[str, str] = Field(default_factory=dict)
    """Source column to its type, as in a cast, for the examples when no source is asked; absent: told from their
    values."""
    examples: tuple[Example, ...] = ()
    """Changes, and what has to come of them."""

    @field_validator("from_")
    @classmethod
    def _pattern(cls, value: str) -> str:
        names.Pattern.parse(value)
        return value

    @field_validator("key")
    @classmethod
    def _some_key(cls, value: object) -> object:
        if value == ():
            msg = "name at least one column, or write `key: none` for rows that are only appended"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse what contradicts itself."""
        if isinstance(self.to, str):
            names.Template.parse(self.to, names.Pattern.parse(self.from_))
        if self.include is not None and self.exclude:
            msg = "give `include` or `exclude`, not both"
            raise ValueError(msg)
        if self.soft_column and self.key == "none":
            msg = "`delete: soft` needs a key; with `key: none` rows are only appended"
            raise ValueError(msg)
        if self.history_columns and (self.delete != "hard" or self.key is not None or self.skip_unchanged):
            msg = "`history` appends every version: it goes with no `key`, `delete` or `skip_unchanged`"
            raise ValueError(msg)
        if self.history_columns and self.truncate is OnTruncate.APPLY:
            msg = "`truncate: apply` would remove the rows that `history` keeps; write ignore or stop"
            raise ValueError(msg)
        if self.message_key == {}:
            msg = "`message_key` has no field"
            raise ValueError(msg)
        if isinstance(self.to, Routed) and not self.to.tables and self.truncate is OnTruncate.APPLY:
            msg = "`truncate: apply` has to know the targets; list `tables` under `to`, or write ignore or stop"
            raise ValueError(msg)
        if self.soft_column and self.truncate is OnTruncate.APPLY:
            msg = "`truncate: apply` would remove the rows that `delete: soft` keeps; write ignore or stop"
            raise ValueError(msg)
        return self

    @property
    def soft_column(self) -> str | None:
        """The column that a soft delete sets."""
        return self.delete.soft if isinstance(self.delete, SoftDelete) else None

    @property
    def on_truncate(self) -> OnTruncate:
        """What a TRUNCATE does, the default resolved."""
        keeps = self.delete != "hard" or self.history is not None or self.free
        return self.truncate or (OnTruncate.STOP if keeps else OnTruncate.APPLY)

    @property
    def free(self) -> bool:
        """Whether rows themselves name their targets, which nobody lists."""
        return isinstance(self.to, Routed) and not self.to.tables

    @property
    def message_fields(self) -> dict[tuple[str, ...], str]:
        """The expressions of the message's key by the keys that lead to each."""
        if isinstance(self.message_key, str):
            return {("message_key",): self.message_key}
        return {("message_key", name): text for name, text in (self.message_key or {}).items()}

    @property
    def history_columns(self) -> History | None:
        """The columns that `history` adds."""
        return History.model_validate({}) if self.history is True else self.history

    @property
    def follows(self) -> Follows:
        """How the target follows changes of the source table."""
        said, whole = self.schema_changes, self.model_dump_json(exclude={"schema_changes", "types", "examples"})
        entry = hashlib.sha256(whole.encode()).hexdigest()[:16]
        if isinstance(said, Mode):
            return Follows(said, entry=entry)
        include = None if said.include is None else frozenset(said.include)
        return Follows(said.mode, include, frozenset(said.exclude), entry)

    @property
    def expressions(self) -> dict[tuple[str, ...], str]:
        """Every expression by the keys that lead to it."""
        found: dict[tuple[str, ...], str] = {}
        if self.where is not None:
            found["where",] = self.where
        if isinstance(self.to, Routed):
            found["to", "by"] = self.to.by
        return found | {("columns", name): text for name, text in self.columns.items()} | self.message_fields

    @property
    def plain(self) -> bool:
        """Whether nothing of it needs the row's values: names alone are different."""
        return not (self.expressions or self.flatten or self.nest or self.history or self.skip_unchanged)


@dataclass(frozen=True, slots=True)
class Rule:
    """One declared entry with the place where it is declared."""

    mapping: TableMapping
    where: str = ""
    """`file:line:column`, for messages; empty when it comes from the command line or from code."""
    document: Document | None = field(default=None, compare=False, repr=False)
    """The file."""
    path: KeyPath = field(default=(), compare=False)
    """The keys that lead to the entry in it."""
    functions: Mapping[str, Function] = field(default_factory=dict, compare=False, repr=False)
    """Python functions that its expressions may call."""

    def place(self, keys: tuple[str, ...], text: str, offset: int) -> str:
        """Return where a character of an expression stands, as `file:line:column: `; empty when in no file."""
        if self.document is None:
            return ""
        return f"{self.document.inner_mark((*self.path, *keys), text, offset)}: "

    def mark(self, keys: KeyPath) -> str:
        """Return where a key or value stands, as `file:line:column: `; empty when in no file."""
        if self.document is None:
            return ""
        path = (*self.path, *keys)
        at = self.document.values if path in self.document.values else self.document.keys
        return f"{at.get(path) or self.document.value_mark(path)}: "

    def __str__(self) -> str:
        """Return the place, else what the entry takes."""
        return self.where or f"table {self.mapping.from_}"


class MappingFile(BaseModel):
    """A mapping file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: tuple[Any, ...] = Field(min_length=1)
    """Entries; a bare name is short for `from: name`."""
    functions: tuple[str, ...] = ()
    """Python functions that expressions may call, each `module:name`; their parameters are typed by annotation."""


def spelled_out(entry: Any) -> Any:
    """Return an entry with the short form, a bare name, as the mapping it stands for."""
    return {"from": entry} if isinstance(entry, str) else entry
