"""Chooses the overload that a call means, and binds its literal parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cdcsync.mapping.expressions import kinds, times
from cdcsync.mapping.expressions.documents import SECTION as DOCUMENTS
from cdcsync.mapping.expressions.forms import coerced, constant, outer
from cdcsync.mapping.expressions.json_text import Raw
from cdcsync.mapping.expressions.registry import ANY, SAME, Function, Parameter, overloads
from cdcsync.mapping.expressions.tree import Call, Node, Op
from cdcsync.mapping.failures import Failure, Fault
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.mapping.expressions.tree import Scope

ALIASES: Final = {
    "ceiling": "ceil", "pow": "power", "substr": "substring", "char_length": "length", "btrim": "trim",
    "character_length": "length", "len": "length", "list_contains": "array_contains", "regexp_like": "regexp_matches",
    "json_build_object": "json_object", "json_build_array": "json_array", "array_cat": "array_concat",
    "datepart": "date_part", "json_type": "json_typeof",
}  # fmt: skip
"""Other names for the same."""
Spans: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Of the whole call, and of its name."""


def resolved(name: str, args: Sequence[Node], named: dict[str, Node], spans: Spans, scope: Scope) -> Node:
    """Return the call. Raises Fault when no overload takes these arguments."""
    name = ALIASES.get(name, name)
    if name == "json_object" and len(args) % 2:
        raise Fault("json_object takes keys and values by turns", *spans[0])
    if name == "date_part":
        return _part(args, spans[0])
    own = scope.functions.get(name)
    candidates = overloads(name) if own is None else [own]
    best: tuple[int, Function, list[Node | None]] | None = None
    for function in candidates:
        placed = _placed(function, args, named)
        far = _distance(function, placed) if placed is not None else None
        if placed is not None and far is not None and (best is None or far < best[0]):
            best = far, function, placed
    if best is None:
        raise _no_overload(name, candidates, [*args, *named.values()], spans)
    return _bound(best[1], best[2], spans[0])


def _no_overload(name: str, candidates: Sequence[Function], given: Sequence[Node], spans: Spans) -> Fault:
    if not candidates:
        msg = f"there is no function {name}"
        return Fault(msg, *spans[1])
    told = ", ".join(kinds.told(node.type) for node in given)
    there = "; ".join(dict.fromkeys(function.signature for function in candidates))
    return Fault(f"{name}({told}) is none of: {there}", *spans[0])


def _placed(function: Function, args: Sequence[Node], named: dict[str, Node]) -> list[Node | None] | None:
    """Return an argument for each parameter, None for a default; None when they do not go together."""
    parameters = _parameters(function, len(args))
    if len(args) > len(parameters):
        return None
    placed: list[Node | None] = [*args, *([None] * (len(parameters) - len(args)))]
    at = {parameter.name: index for index, parameter in enumerate(parameters)}
    for name, node in named.items():
        if name not in at or placed[at[name]] is not None:
            return None
        placed[at[name]] = node
    missing = any(node is None and not parameter.optional for node, parameter in zip(placed, parameters, strict=True))
    return None if missing else placed


def _parameters(function: Function, count: int) -> tuple[Parameter, ...]:
    if not function.variadic:
        return function.parameters
    last = function.parameters[-1]
    return (*function.parameters[:-1], *([last] * max(0, count - len(function.parameters) + 1)))


def _distance(function: Function, placed: Sequence[Node | None]) -> int | None:
    total = 0
    same = _same(function, placed)
    if same is None:
        return None
    for node, parameter in zip(placed, _parameters(function, len(placed)), strict=True):
        if node is None:
            continue
        wanted = _filled(parameter.type, same)
        if parameter.literal and not (node.op is Op.CONSTANT and node.value is not None):
            return None
        far = 3 if wanted == ANY else kinds.distance(node.type, wanted, literal=node.literal)
        if far is None or (wanted == ANY and node.type == kinds.SECRET):
            return None
        total += far
    return total


def _same(function: Function, placed: Sequence[Node | None]) -> Type | None:
    """Return what T stands for; NULL where the function has none, None when its arguments do not agree."""
    types: list[Type] = []
    literals: list[bool] = []
    for node, parameter in zip(placed, _parameters(function, len(placed)), strict=True):
        if node is None or SAME not in (parameter.type, parameter.type.element):
            continue
        if parameter.type == SAME:
            types.append(node.type)
            literals.append(node.literal)
        elif node.type.element is not None:
            types.append(node.type.element)
            literals.append(False)
        elif node.type != kinds.NULL:
            return None
    return kinds.joined(types, literals) if types else kinds.NULL


def _filled(kind: Type, same: Type) -> Type:
    if kind == SAME:
        return same
    return kinds.array_of(same) if kind.element == SAME else kind


def _bound(function: Function, placed: Sequence[Node | None], span: tuple[int, int]) -> Node:
    same = _same(function, placed) or kinds.NULL
    literals: list[Any] = []
    given: list[Node] = []
    for node, parameter in zip(placed, _parameters(function, len(placed)), strict=True):
        made = node if node is not None else constant(parameter.default, parameter.type, span)
        if parameter.type == ANY:
            made = _as_json(made) if function.section == DOCUMENTS else made
        else:
            made = coerced(made, _filled(parameter.type, same))
            made = outer(made) if parameter.type == SAME else made
        (literals if parameter.literal else given).append(made.value if parameter.literal else made)
    run = _specialised(function, literals, placed, span) if literals else function.run
    returns = _filled(function.returns, same)
    if function.typed is not None:
        returns = function.typed(tuple(node.type for node in given))
    nullable = not function.total or (function.strict and any(node.nullable for node in given))
    inline = "" if literals else function.inline
    call = Call(run, inline, strict=function.strict, total=function.total)
    return Node(Op.CALL, returns, span, tuple(given), call, nullable)


def _specialised(
    function: Function, literals: Sequence[Any], placed: Sequence[Node | None], span: tuple[int, int]
) -> Any:
    """Call the factory with the literals; what it refuses is a fault at them."""
    at = next(
        (node.span for node, parameter in zip(placed, function.parameters, strict=True) if parameter.literal and node),
        span,
    )
    try:
        return function.run(*literals)
    except (Failure, ValueError) as failure:
        raise Fault(str(failure), *at) from failure


def _as_json(node: Node) -> Node:
    """Return a node whose value goes into a document as it is meant: JSON as JSON, bytes as base64."""
    ways: dict[Kind, Any] = {Kind.JSON: Raw, Kind.BYTES: _base64}
    if node.type.kind is Kind.INTERVAL:
        return outer(node)
    change = ways.get(node.type.kind)
    if change is None:
        return node
    return Node(Op.CALL, node.type, node.span, (node,), Call(change), node.nullable)


def _base64(value: bytes) -> str:
    from base64 import b64encode  # noqa: PLC0415  few documents hold bytes

    return b64encode(value).decode()


def _part(args: Sequence[Node], span: tuple[int, int]) -> Node:
    """Return extract(unit from x): whole parts are integers, seconds and epoch decimals."""
    if len(args) != 2 or not args[0].literal:  # noqa: PLR2004  unit and value
        raise Fault("date_part takes a unit, as a literal, and a date or timestamp", *span)
    unit, value = args[0].value.lower().removesuffix("s") or args[0].value, args[1]
    if value.literal:
        value = coerced(value, kinds.TIMESTAMP)
    if value.type.kind not in (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        msg = f"a part is taken of a date or timestamp, and this is {kinds.told(value.type)}"
        raise Fault(msg, *value.span)
    exact = {"second": times.seconds, "epoch": times.epoch}
    if unit in exact:
        kind = Type(Kind.DECIMAL, precision=20, scale=6)
        return Node(Op.CALL, kind, span, (value,), Call(exact[unit]), value.nullable)
    try:
        run = times.microsecond if unit == "microsecond" else times.part(unit)
    except ValueError as error:
        raise Fault(str(error), *args[0].span) from error
    return Node(Op.CALL, replace(kinds.INTEGER), span, (value,), Call(run), value.nullable)
