"""Constants, conversions, and the form of values inside an expression: decimals and intervals are not text there."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cdcsync.mapping.expressions import kinds
from cdcsync.mapping.expressions.casts import cast, plain
from cdcsync.mapping.expressions.moments import interval_of_iso, iso_interval
from cdcsync.mapping.expressions.tree import Call, Node, Op
from cdcsync.mapping.failures import Failure, Fault
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.types import Type


def inward(kind: Type) -> Callable[[Any], Any] | None:
    """Return what makes a row's value one to compute with; None where they are the same."""
    ways: dict[Kind, Callable[[Any], Any]] = {Kind.DECIMAL: Decimal, Kind.INTERVAL: interval_of_iso}
    return ways.get(kind.kind)


def outward(kind: Type) -> Callable[[Any], Any] | None:
    """Return what makes a computed value one of a row; None where they are the same."""
    ways: dict[Kind, Callable[[Any], Any]] = {Kind.DECIMAL: plain, Kind.INTERVAL: iso_interval}
    return ways.get(kind.kind)


def constant(value: Any, kind: Type, span: tuple[int, int], *, literal: bool = False) -> Node:
    """Return a constant that is not null."""
    return Node(Op.CONSTANT, kind, span, value=value, nullable=False, literal=literal)


def outer(node: Node) -> Node:
    """Return a node whose value has a row's form, as elements of arrays have."""
    change = outward(node.type)
    if change is None:
        return node
    if node.op is Op.CONSTANT:
        return node if node.value is None else replace(node, value=change(node.value))
    return Node(Op.CALL, node.type, node.span, (node,), Call(change), node.nullable)


def coerced(node: Node, wanted: Type) -> Node:
    """Return the node as a value of the wanted kind, which it turns into by itself. Raises Fault for a bad literal."""
    if node.op is Op.CONSTANT and node.value is None:
        return replace(node, type=wanted)
    if node.type.kind is wanted.kind and node.type.kind is not Kind.ARRAY:
        return node
    if node.type.kind is Kind.ARRAY and wanted.kind is Kind.ARRAY:
        return node
    change = cast(node.type, replace(wanted, precision=None, scale=None, length=None, bits=64, unsigned=False))
    if change is None:
        msg = f"{kinds.told(node.type)} is no {kinds.told(wanted)}"
        raise Fault(msg, *node.span)
    if node.op is Op.CONSTANT:
        try:
            return replace(node, value=change(node.value), type=wanted, literal=False)
        except Failure as failure:
            raise Fault(str(failure), *node.span) from failure
    target = (
        replace(wanted, precision=node.type.precision, scale=node.type.scale) if wanted.kind is Kind.DECIMAL else wanted
    )
    if node.type.kind is Kind.INTEGER and wanted.kind is Kind.DECIMAL:
        target = replace(wanted, precision=19, scale=0)
    if node.type.kind is Kind.INTEGER and wanted.kind in (Kind.DECIMAL, Kind.FLOAT):
        change = Decimal if wanted.kind is Kind.DECIMAL else float
    return Node(Op.CALL, target, node.span, (node,), Call(change), node.nullable)
