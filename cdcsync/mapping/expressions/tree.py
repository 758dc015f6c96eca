"""The typed tree of an expression, and what its names mean."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdcsync.change import Table
    from cdcsync.mapping.expressions.registry import Function
    from cdcsync.types import Type


class Op(enum.Enum):
    """What a node does; each has its own way into Python."""

    COLUMN = "column"
    """`value`: ("r" or "b", index), the row after or before; or ("m", name), metadata."""
    CONSTANT = "constant"
    CALL = "call"
    """`value`: a `Call`; null when an argument is, unless it is not strict."""
    AND = "and"
    OR = "or"
    NOT = "not"
    IS_NULL = "is null"
    COALESCE = "coalesce"
    CASE = "case"
    """Condition, value, condition, value, ..., and the value that is left."""


@dataclass(frozen=True, slots=True)
class Call:
    """A plain Python function, with a template that stands for the call where that is faster."""

    run: Callable[..., Any] | None
    inline: str = ""
    """`{0}`, `{1}`, ... stand for arguments; `{f}` for `run`."""
    strict: bool = True
    """Null when an argument is null, and then not called."""
    total: bool = True
    """Never null when no argument is."""
    note: str = ""
    """What an operator should know of it before a row is read."""


@dataclass(frozen=True, slots=True)
class Node:
    """One typed part of an expression."""

    op: Op
    type: Type
    span: tuple[int, int]
    args: tuple[Node, ...] = ()
    value: Any = None
    nullable: bool = True
    literal: bool = False
    """A quoted text as it is written: it becomes a date and the like where one is wanted."""


METADATA: Final = {
    "_operation": "insert, update, delete or read",
    "_commit_time": "when the transaction was committed",
    "_position": "where the stream goes on after the transaction",
    "_transaction": "the transaction's id at the source",
    "_table": "the source table's name",
    "_schema": "the source table's schema or database",
}
"""What every change has beside its row; `_before.COLUMN` is a value of the row before."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean in an expression."""

    table: Table
    secrets: Mapping[str, bytes] | None = None
    """By name; None: every secret is its own name, as `cdcsync test` takes it."""
    functions: Mapping[str, Function] = field(default_factory=dict)
    """Python functions by the name that expressions call them by."""
