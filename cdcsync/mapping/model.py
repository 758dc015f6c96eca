"""What a mapping file says of a table, as it is declared."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cdcsync.mapping import names


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


class TableMapping(BaseModel):
    """One entry of `tables`: which tables it takes and what becomes of them. The first entry that matches wins."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: str = Field(alias="from", min_length=1)
    """The source tables: `schema.table`, a glob as `shop.*`, or a whole `/regex/` over `schema.table`."""
    to: str | None = Field(None, min_length=1)
    """The target, `table` or `schema.table`; takes {schema}, {table}, and {1} or {name} for what was captured by
    the regex or a star. Absent: the source's own name."""
    include: tuple[str, ...] | None = None
    """Source columns that go to the target; absent: all."""
    exclude: tuple[str, ...] = ()
    """Source columns that do not."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Source column to target column."""
    key: Literal["none"] | tuple[str, ...] | None = None
    """Columns that are unique and not null at the source; absent: its primary key; `none`: rows are only appended,
    each once; an update or delete in the log stops the pipeline (the log has them where the table has a replica
    identity)."""
    delete: Literal["hard", "ignore"] | SoftDelete = "hard"
    """`hard`, `ignore`, or `soft: column`."""
    truncate: OnTruncate | None = None
    """`apply`, `ignore` or `stop`. Absent: apply under `delete: hard`, else stop, as the rows are there to stay."""

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
        if self.to is not None:
            names.Template.parse(self.to, names.Pattern.parse(self.from_))
        if self.include is not None and self.exclude:
            msg = "give `include` or `exclude`, not both"
            raise ValueError(msg)
        if self.soft_column and self.key == "none":
            msg = "`delete: soft` needs a key; with `key: none` rows are only appended"
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
        return self.truncate or (OnTruncate.APPLY if self.delete == "hard" else OnTruncate.STOP)


@dataclass(frozen=True, slots=True)
class Rule:
    """One declared entry with the place where it is declared."""

    mapping: TableMapping
    where: str = ""
    """`file:line:column`, for messages; empty when it comes from the command line or from code."""

    def __str__(self) -> str:
        """Return the place, else what the entry takes."""
        return self.where or f"table {self.mapping.from_}"


class MappingFile(BaseModel):
    """A mapping file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: tuple[Any, ...] = Field(min_length=1)
    """Entries; a bare name is short for `from: name`."""


def spelled_out(entry: Any) -> Any:
    """Return an entry with the short form, a bare name, as the mapping it stands for."""
    return {"from": entry} if isinstance(entry, str) else entry
