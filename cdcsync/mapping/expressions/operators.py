"""What operators do with typed operands: arithmetic, comparison, choice, patterns, paths."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlglot import exp

from cdcsync.mapping.expressions import arrays, json_text, kinds, moments, numbers, texts
from cdcsync.mapping.expressions.casts import EXACT
from cdcsync.mapping.expressions.forms import coerced, inward, outer
from cdcsync.mapping.expressions.tree import Call, Node, Op
from cdcsync.mapping.failures import Failure, Fault
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Sequence

    Span = tuple[int, int]

NUMBERS: Final = (Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT)
"""Later ones hold earlier ones."""
MOMENTS: Final = (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)
ARITHMETIC: Final[dict[type, str]] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%"}
COMPARISONS: Final[dict[type, str]] = {exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
                      exp.NullSafeEQ: "IS NOT DISTINCT FROM", exp.NullSafeNEQ: "IS DISTINCT FROM"}  # fmt: skip

_INTEGERS: Final = {"+": Call(None, "({0} + {1})"), "-": Call(None, "({0} - {1})"), "*": Call(None, "({0} * {1})"),
                    "/": Call(numbers.integer_divide), "%": Call(numbers.integer_rest)}  # fmt: skip
_DECIMALS: Final = {"+": Call(EXACT.add), "-": Call(EXACT.subtract), "*": Call(EXACT.multiply),
                    "/": Call(numbers.decimal_divide), "%": Call(numbers.decimal_rest)}  # fmt: skip


def _float(inline: str) -> Call:
    return Call(lambda a, b: numbers.float_result(_FLOAT_RUNS[inline](a, b), a, b))


_FLOAT_RUNS: Final[dict[str, Any]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": numbers.float_divide,
    "%": lambda a, b: math.fmod(a, b) if b else numbers.float_divide(a, b),
}  # fmt: skip
_FLOATS: Final = {symbol: _float(symbol) for symbol in _FLOAT_RUNS}


def binary(kind: type, left: Node, right: Node, span: Span) -> Node:
    """Return the operator's node. Raises Fault when it does not take these types."""
    if kind in COMPARISONS:
        return compare(COMPARISONS[kind], left, right, span)
    if kind is exp.DPipe:
        return _joined(left, right, span)
    symbol = ARITHMETIC[kind]
    made = _numeric(symbol, left, right, span) or _temporal(symbol, left, right, span)
    if made is None:
        msg = f"there is no {kinds.told(left.type)} {symbol} {kinds.told(right.type)}"
        raise Fault(msg, *span)
    return made


def _numeric(symbol: str, left: Node, right: Node, span: Span) -> Node | None:
    known = [node.type.kind for node in (left, right) if node.type != kinds.NULL]
    if not known or any(kind not in NUMBERS for kind in known):
        return None
    wide = max(known, key=NUMBERS.index)
    wanted = {Kind.INTEGER: kinds.INTEGER, Kind.DECIMAL: kinds.DECIMAL, Kind.FLOAT: kinds.FLOAT}[wide]
    sides = coerced(left, wanted), coerced(right, wanted)
    calls = {Kind.INTEGER: _INTEGERS, Kind.DECIMAL: _DECIMALS, Kind.FLOAT: _FLOATS}[wide]
    result = _decimal_type(symbol, sides[0].type, sides[1].type) if wide is Kind.DECIMAL else wanted
    return Node(Op.CALL, result, span, sides, calls[symbol], left.nullable or right.nullable)


def _decimal_type(symbol: str, left: Type, right: Type) -> Type:
    """Return the type that holds every exact result, unlimited where that is not known or not needed."""
    if left.precision is None or right.precision is None or symbol in "/%":
        return kinds.DECIMAL
    a, b = left.scale or 0, right.scale or 0
    if symbol == "*":
        precision, scale = left.precision + right.precision, a + b
    else:
        scale = max(a, b)
        precision = max(left.precision - a, right.precision - b) + scale + 1
    return kinds.DECIMAL if precision > 38 else Type(Kind.DECIMAL, precision=precision, scale=scale)  # noqa: PLR2004  what other systems hold at most


def _temporal(symbol: str, left: Node, right: Node, span: Span) -> Node | None:
    a, b = left.type.kind, right.type.kind
    nullable = left.nullable or right.nullable

    def made(kind: Type, run: Any, *args: Node) -> Node:
        return Node(Op.CALL, kind, span, args or (left, right), Call(run), nullable)

    if symbol == "+" and b in MOMENTS and a in (Kind.INTERVAL, Kind.INTEGER):
        return _temporal(symbol, right, left, span)
    if a in MOMENTS and b is Kind.INTERVAL and symbol in "+-":
        moment = coerced(left, kinds.TIMESTAMP) if a is Kind.DATE else left
        return made(moment.type, moments.plus if symbol == "+" else moments.minus, moment, right)
    if a is Kind.DATE and b is Kind.INTEGER and symbol in "+-":
        run = moments.plus_days if symbol == "+" else lambda text, days: moments.plus_days(text, -days)
        return made(kinds.DATE, run)
    if symbol == "-" and a is Kind.DATE and b is Kind.DATE:
        return made(kinds.INTEGER, moments.days_between)
    if symbol == "-" and a in MOMENTS and b in MOMENTS:
        wide = kinds.TIMESTAMPTZ if Kind.TIMESTAMPTZ in (a, b) else kinds.TIMESTAMP
        return made(kinds.INTERVAL, moments.between, coerced(left, wide), coerced(right, wide))
    if a is Kind.INTERVAL and b is Kind.INTERVAL and symbol in "+-":
        sign = 1 if symbol == "+" else -1
        return made(kinds.INTERVAL, lambda x, y: moments.Span(*(i + sign * j for i, j in zip(x, y, strict=True))))
    if {a, b} == {Kind.INTERVAL, Kind.INTEGER} and symbol == "*":
        args = (left, right) if a is Kind.INTERVAL else (right, left)
        return made(kinds.INTERVAL, lambda x, times: moments.Span(*(i * times for i in x)), *args)
    return None


def negative_interval(node: Node) -> Node:
    """Return an interval backwards."""
    return Node(Op.CALL, node.type, node.span, (node,), Call(lambda x: moments.Span(*(-i for i in x))), node.nullable)


_JOIN: Final = Call(texts.too_long, f"(z if len(z := {{0}} + {{1}}) <= {texts.TEXT_MAX} else {{f}}())")
"""Looked at at each step, so that a long chain of them stays within the bound."""


def _joined(left: Node, right: Node, span: Span) -> Node:
    """Return `a || b`: of arrays, or of text, what is not text cast to it."""
    nullable = left.nullable or right.nullable
    if Kind.ARRAY in (left.type.kind, right.type.kind):
        if left.type.kind is right.type.kind:
            sides = alike([left, right], span, "the two arrays")
            return Node(
                Op.CALL, sides[0].type, span, tuple(sides), Call(arrays.concatenated, strict=False, total=False)
            )
        raise Fault("use array_append for one more element", *span)
    if not any(node.type.kind in (Kind.TEXT, Kind.ENUM) or node.type == kinds.NULL for node in (left, right)):
        msg = f"there is no {kinds.told(left.type)} || {kinds.told(right.type)}; cast one to text"
        raise Fault(msg, *span)
    from cdcsync.mapping.expressions.casts import cast  # noqa: PLC0415  by the operator alone

    sides = []
    for node in (left, right):
        change = cast(node.type, kinds.TEXT) if node.type != kinds.NULL else str
        if change is None:
            msg = f"there is no {kinds.told(left.type)} || {kinds.told(right.type)}"
            raise Fault(msg, *span)
        plain = node.type.kind in (Kind.TEXT, Kind.ENUM) or node.type == kinds.NULL
        sides.append(node if plain else Node(Op.CALL, kinds.TEXT, node.span, (node,), Call(change), node.nullable))
    return Node(Op.CALL, kinds.TEXT, span, tuple(sides), _JOIN, nullable)


_DIRECT: Final = (Kind.INTEGER, Kind.TEXT, Kind.BOOLEAN, Kind.BYTES, Kind.UUID, Kind.TIME, Kind.ENUM)
"""Kinds whose values Python compares as SQL does."""
_EQUAL_ONLY: Final = (Kind.TIMETZ, Kind.BIT, Kind.SET, Kind.ARRAY, Kind.OPAQUE, Kind.GEOMETRY)
_PYTHON: Final = {"=": "==", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def _interval_order(span: Any) -> int:
    return (int(span[0]) * 30 + int(span[1])) * moments.DAY_US + int(span[2])


def compare(symbol: str, left: Node, right: Node, span: Span) -> Node:
    """Return a comparison. Raises Fault when the two do not compare."""
    kind = kinds.joined([left.type, right.type], [left.literal, right.literal])
    if kind is None or kind.kind is Kind.JSON:
        hint = "; take a text out of it by ->>" if kind is not None else ""
        msg = f"{kinds.told(left.type)} and {kinds.told(right.type)} do not compare{hint}"
        raise Fault(msg, *span)
    sides = coerced(left, kind), coerced(right, kind)
    if symbol.startswith("IS"):
        return _distinct(symbol, kind, sides, span)
    return Node(Op.CALL, kinds.BOOLEAN, span, sides, _comparison(symbol, kind, span), left.nullable or right.nullable)


def _comparison(symbol: str, kind: Type, span: Span) -> Call:
    if kind.kind in _DIRECT or kind == kinds.NULL:
        return Call(None, f"({{0}} {_PYTHON[symbol]} {{1}})")
    if symbol in ("=", "<>") and kind.kind in (*MOMENTS, *_EQUAL_ONLY):
        return Call(None, f"({{0}} {_PYTHON[symbol]} {{1}})")
    if kind.kind in _EQUAL_ONLY:
        msg = f"{kinds.told(kind)} has no order here"
        raise Fault(msg, *span)
    pairs: dict[Kind, tuple[Any, Any]] = {
        Kind.DECIMAL: (numbers.decimal_same, numbers.decimal_less),
        Kind.FLOAT: (numbers.float_same, numbers.float_less),
        Kind.INTERVAL: (
            lambda a, b: _interval_order(a) == _interval_order(b),
            lambda a, b: _interval_order(a) < _interval_order(b),
        ),
    }
    same, less = pairs.get(kind.kind, (None, _earlier))
    inlines = {"=": ("{f}({0}, {1})", same), "<>": ("(not {f}({0}, {1}))", same), "<": ("{f}({0}, {1})", less),
               ">": ("{f}({1}, {0})", less), "<=": ("(not {f}({1}, {0}))", less), ">=": ("(not {f}({0}, {1}))", less)}  # fmt: skip
    inline, run = inlines[symbol]
    return Call(run, inline)


def _earlier(a: str, b: str) -> bool:
    """Return whether one date or timestamp lies before another of its kind."""
    if "0" <= a[0] < ":" and "0" <= b[0] < ":":
        return a < b if a[-1] != "Z" else a[:-1] < b[:-1]
    return moments.order(a) < moments.order(b)


def _distinct(symbol: str, kind: Type, sides: tuple[Node, Node], span: Span) -> Node:
    no = "not " if symbol == "IS NOT DISTINCT FROM" else ""
    if kind.kind in (Kind.FLOAT, Kind.DECIMAL, Kind.INTERVAL):
        same: Any = _comparison("=", kind, span).run

        def differ(a: Any, b: Any) -> bool:
            return (a is not b) if a is None or b is None else not same(a, b)

        call = Call(differ, f"({no}{{f}}({{0}}, {{1}}))", strict=False)
    else:
        call = Call(None, f"({no}({{0}} != {{1}}))", strict=False)
    return Node(Op.CALL, kinds.BOOLEAN, span, sides, call, nullable=False)


def alike(nodes: Sequence[Node], span: Span, what: str) -> list[Node]:
    """Return the nodes as values of one type. Raises Fault when they have none in common."""
    kind = kinds.joined([node.type for node in nodes], [node.literal for node in nodes])
    if kind is None:
        told = " and ".join(dict.fromkeys(kinds.told(node.type) for node in nodes))
        msg = f"{what} have no type in common: {told}"
        raise Fault(msg, *span)
    return [replace(made, type=kind) if (made := coerced(node, kind)).op is not Op.COLUMN else made for node in nodes]


def coalesce(args: Sequence[Node], span: Span) -> Node:
    """Return the first value that is not null."""
    sides = alike(args, span, "the values of coalesce")
    kind = next((node.type for node in sides if node.op is not Op.COLUMN), sides[0].type)
    return Node(Op.COALESCE, kind, span, tuple(sides), nullable=all(node.nullable for node in sides))


def nullif(args: Sequence[Node], span: Span) -> Node:
    """Return the first value, null where it equals the second."""
    null = Node(Op.CONSTANT, args[0].type, span)
    value = replace(args[0], literal=False)
    return Node(Op.CASE, value.type, span, (compare("=", args[0], args[1], span), null, value))


def among(value: Node, items: Sequence[Node], span: Span) -> Node:
    """Return `value IN (items)`."""
    fixed = [item for item in items if item.op is Op.CONSTANT and item.value is not None]
    kind = kinds.joined(
        [value.type, *(item.type for item in items)], [value.literal, *(item.literal for item in items)]
    )
    if kind is None:
        compare("=", value, items[0], span)
        msg = f"the values of IN have no type in common with {kinds.told(value.type)}"
        raise Fault(msg, *span)
    if len(fixed) == len(items) and (kind.kind in _DIRECT or kind.kind in MOMENTS):
        known = frozenset(coerced(item, kind).value for item in items)
        call = Call(known.__contains__)
        return Node(Op.CALL, kinds.BOOLEAN, span, (coerced(value, kind),), call, value.nullable)
    made: Node | None = None
    for item in items:
        one = compare("=", value, item, span)
        made = (
            one
            if made is None
            else Node(Op.OR, kinds.BOOLEAN, span, (made, one), nullable=made.nullable or one.nullable)
        )
    assert made is not None  # noqa: S101  there is at least one item
    return made


def between(value: Node, low: Node, high: Node, span: Span) -> Node:
    """Return `value BETWEEN low AND high`."""
    sides = compare(">=", value, low, span), compare("<=", value, high, span)
    nullable = any(side.nullable for side in sides)
    kind = kinds.joined([value.type, low.type, high.type], [value.literal, low.literal, high.literal])
    fixed = all(node.op is Op.CONSTANT and node.value is not None for node in (low, high))
    if kind is not None and kind.kind in _DIRECT and fixed:
        args = tuple(coerced(node, kind) for node in (value, low, high))
        return Node(Op.CALL, kinds.BOOLEAN, span, args, Call(None, "({1} <= {0} <= {2})"), nullable)
    return Node(Op.AND, kinds.BOOLEAN, span, sides, nullable=nullable)


@lru_cache(maxsize=1024)
def _matcher(pattern: str, escape: str, fold: bool) -> Any:  # noqa: FBT001  the key of a cache
    return texts.like_matcher(pattern, escape, fold=fold)


def like(value: Node, pattern: Node, span: Span, escape: str, *, fold: bool) -> Node:
    """Return `value LIKE pattern`."""
    args = coerced(value, kinds.TEXT), coerced(pattern, kinds.TEXT)
    nullable = value.nullable or pattern.nullable
    if pattern.op is not Op.CONSTANT or pattern.value is None:
        call = Call(lambda text, form: _matcher(form, escape, fold)(text))
        return Node(Op.CALL, kinds.BOOLEAN, span, args, call, nullable)
    try:
        match = texts.like_matcher(args[1].value, escape, fold=fold)
    except Failure as failure:
        raise Fault(str(failure), *pattern.span) from failure
    return Node(Op.CALL, kinds.BOOLEAN, span, args[:1], Call(match), value.nullable)


def json_path(value: Node, steps: Sequence[Node], span: Span, *, as_text: bool) -> Node:
    """Return what lies at a path in JSON, as JSON or as text."""
    given = coerced(value, kinds.JSON) if value.literal or value.type == kinds.NULL else value
    if given.type.kind is not Kind.JSON:
        msg = f"a path leads into JSON, and this is {kinds.told(value.type)}; cast it to json"
        raise Fault(msg, *value.span)
    for step in steps:
        if step.type.kind not in (Kind.TEXT, Kind.INTEGER):
            raise Fault("a step of a path is a key or an index", *step.span)
    find = json_text.text_at if as_text else json_text.at
    kind = kinds.TEXT if as_text else kinds.JSON
    if all(step.op is Op.CONSTANT for step in steps):
        path = tuple(step.value for step in steps)
        return Node(Op.CALL, kind, span, (given,), Call(lambda text: find(text, path), total=False))
    call = Call(lambda text, *path: find(text, path), total=False)
    return Node(Op.CALL, kind, span, (given, *steps), call)


def element(value: Node, index: Node, span: Span) -> Node:
    """Return one element of an array, counted from 1."""
    kind = value.type.element if value.type.kind is Kind.ARRAY else kinds.TEXT if value.type.kind is Kind.SET else None
    if kind is None:
        msg = f"{kinds.told(value.type)} has no elements"
        raise Fault(msg, *value.span)
    if index.type.kind is not Kind.INTEGER:
        raise Fault("an index is a whole number", *index.span)
    found = Node(Op.CALL, kind, span, (value, index), Call(arrays.element, total=False))
    change = inward(kind)
    return found if change is None else Node(Op.CALL, kind, span, (found,), Call(change))


def array(items: Sequence[Node], span: Span) -> Node:
    """Return an array of these elements."""
    sides = [outer(item) for item in alike(items, span, "the elements")] if items else []
    kind = next((node.type for node in sides), kinds.TEXT)
    call = Call(lambda *values: values, strict=False)
    return Node(Op.CALL, kinds.array_of(kind), span, tuple(sides), call, nullable=False)
