"""Python functions that expressions call: found by `module:name`, typed by their annotations."""

from __future__ import annotations

import importlib
import inspect
import typing
from datetime import date, datetime
from decimal import Decimal
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

from cdcsync.mapping.expressions import kinds
from cdcsync.mapping.expressions.moments import read, write
from cdcsync.mapping.expressions.registry import Function, Parameter

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.types import Type

TYPES: Final[dict[object, Type]] = {
    bool: kinds.BOOLEAN,
    int: kinds.INTEGER,
    float: kinds.FLOAT,
    Decimal: kinds.DECIMAL,
    str: kinds.TEXT,
    bytes: kinds.BYTES,
    date: kinds.DATE,
    datetime: kinds.TIMESTAMP,
}
"""Annotations, and what they are in an expression."""
INWARD: Final[dict[object, Callable[[Any], Any]]] = {date: date.fromisoformat, datetime: read}
OUTWARD: Final[dict[object, Callable[[Any], Any]]] = {date: date.isoformat, datetime: write}


def load(text: str) -> Function:
    """Return the function that `module:name` means. Raises ValueError saying what is wrong."""
    module, colon, name = text.partition(":")
    if not colon:
        raise ValueError("write module:name")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        msg = f"there is no module {module}"
        raise ValueError(msg) from error
    except AttributeError as error:
        msg = f"{module} has no {name}"
        raise ValueError(msg) from error
    return typed(name.lower(), found)


def typed(name: str, found: Callable[..., Any]) -> Function:
    """Return a Python function as one of expressions. Raises ValueError when an annotation is missing or unknown."""
    try:
        hints = typing.get_type_hints(found)
    except NameError as error:
        msg = f"the annotation {error.name} is not there at run time: import it outside of TYPE_CHECKING"
        raise ValueError(msg) from error
    parameters: list[Parameter] = []
    changes: list[Callable[[Any], Any] | None] = []
    optional = False
    for parameter in inspect.signature(found).parameters.values():
        annotation, nullable = _annotation(hints, parameter.name)
        optional = optional or nullable
        has_default = parameter.default is not inspect.Parameter.empty
        default = parameter.default if has_default else None
        parameters.append(
            Parameter(parameter.name, TYPES[annotation], literal=False, default=default, optional=has_default)
        )
        changes.append(INWARD.get(annotation))
    result, nullable = _annotation(hints, "return")
    run = found if not any(changes) and result not in OUTWARD else _wrapped(found, changes, OUTWARD.get(result))
    told = ", ".join(f"{each.name} {kinds.told(each.type)}" for each in parameters)
    return Function(
        name=name,
        signature=f"{name}({told}) -> {kinds.told(TYPES[result])}",
        parameters=tuple(parameters),
        returns=TYPES[result],
        run=run,
        strict=not optional,
        total=not nullable,
    )


def _annotation(hints: dict[str, Any], name: str) -> tuple[object, bool]:
    """Return an annotation's type and whether it may be None."""
    annotation = hints.get(name)
    parts = [annotation]
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
    if len(parts) != 1 or parts[0] not in TYPES:
        known = ", ".join(str(getattr(each, "__name__", each)) for each in TYPES)
        msg = f"{'its result' if name == 'return' else f'parameter {name}'} has to be annotated with one of: {known}"
        raise ValueError(msg)
    return parts[0], parts[0] is not annotation


def _wrapped(
    found: Callable[..., Any], changes: list[Callable[[Any], Any] | None], outward: Callable[[Any], Any] | None
) -> Callable[..., Any]:
    def called(*args: Any) -> Any:
        given = [
            arg if arg is None or change is None else change(arg) for arg, change in zip(args, changes, strict=True)
        ]
        made = found(*given)
        return made if made is None or outward is None else outward(made)

    return called
