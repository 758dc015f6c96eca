"""Gives every part of an expression its type, or says what is wrong with it and where."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlglot import exp

from cdcsync.change import Table
from cdcsync.document import nearest
from cdcsync.mapping.expressions import calls, kinds, operators
from cdcsync.mapping.expressions.casts import cast, decimal_of_text, float_of_text
from cdcsync.mapping.expressions.forms import coerced, constant
from cdcsync.mapping.expressions.losses import loss
from cdcsync.mapping.expressions.registry import library
from cdcsync.mapping.expressions.syntax import parsed, span, word_span
from cdcsync.mapping.expressions.tree import METADATA, Call, Node, Op, Scope
from cdcsync.mapping.failures import Failure, Fault
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cdcsync.mapping.expressions.syntax import Syntax

CONDITIONS: Final = ("coalesce", "ifnull", "nullif")
"""Calls that are nodes of their own."""
BRANCHES_MAX: Final = 200
NAMES: Final = (*CONDITIONS, "secret")


def check(syntax: Syntax, scope: Scope) -> Node:
    """Return the typed tree. Raises Fault."""
    return _Checker(syntax, scope).node(syntax.root)


def every_fault(syntax: Syntax, scope: Scope) -> list[Fault]:
    """Return a fault for each part whose own parts are right; none where all is."""
    return list(_inner(_Checker(syntax, scope), syntax.root))


def _inner(checker: _Checker, node: Any) -> Iterator[Fault]:
    try:
        checker.node(node)
    except Fault as fault:
        parts = [part for part in _parts(node) if checker.knows(part)]
        deeper = [each for part in parts for each in _inner(checker, part)]
        yield from deeper or [fault]


def _parts(node: Any) -> Iterator[Any]:
    """Yield what stands in a node; the branches of CASE are looked into."""
    for part in node.iter_expressions():
        if isinstance(part, exp.If):
            yield from part.iter_expressions()
        else:
            yield part


def unknown(syntax: Syntax, scope: Scope | None, functions: Collection[str] = ()) -> list[Fault]:
    """Return a fault for every name that means nothing: functions, and columns where the table is known."""
    faults: list[Fault] = []
    known = {*library(), *calls.ALIASES, *NAMES, *(scope.functions if scope else functions)}
    for found in syntax.root.find_all(exp.Anonymous):
        name = str(found.this).lower()
        if name not in known:
            msg = f"there is no function {name}{nearest(name, known) if _near(name, known) else ''}"
            faults.append(Fault(msg, *word_span(found, syntax.text)))
    if scope is not None:
        checker = _Checker(syntax, scope)
        for column in syntax.root.find_all(exp.Column):
            try:
                checker.node(column)
            except Fault as fault:
                faults.append(fault)
    return faults


def _near(name: str, known: set[str]) -> bool:
    return "mean" in nearest(name, known)


def named_type(text: str) -> Type:
    """Return the type that a cast names. Raises ValueError."""
    try:
        syntax = parsed(f"CAST(NULL AS {text})")
        return _Checker(syntax, Scope(Table("", "", ()))).node(syntax.root).type
    except Fault as fault:
        msg = f"types: {fault}"
        raise ValueError(msg) from fault


class _Checker:
    """One expression against one table."""

    def __init__(self, syntax: Syntax, scope: Scope) -> None:
        self._text = syntax.text
        self._scope = scope
        self._ways: dict[type, Callable[[Any], Node]] = {
            exp.Column: self._column, exp.Literal: self._literal, exp.Boolean: self._boolean, exp.Null: self._null,
            exp.Paren: lambda node: self.node(node.this), exp.Neg: self._negative, exp.Not: self._not,
            exp.And: self._both, exp.Or: self._both, exp.Is: self._is, exp.In: self._in, exp.Between: self._between,
            exp.Like: self._like, exp.ILike: self._like, exp.Escape: self._escape, exp.Case: self._case,
            exp.RegexpLike: self._regex, exp.RegexpILike: self._regex, exp.Cast: self._cast, exp.TryCast: self._cast,
            exp.Anonymous: self._call, exp.Extract: self._extract, exp.Substring: self._substring,
            exp.StrPosition: self._position, exp.Trim: self._trim, exp.AtTimeZone: self._at_time_zone,
            exp.Interval: self._interval, exp.JSONExtract: self._json, exp.JSONExtractScalar: self._json,
            exp.Bracket: self._bracket, exp.Array: self._array, exp.DPipe: self._operator,
        }  # fmt: skip
        for kind in (*operators.ARITHMETIC, *operators.COMPARISONS):
            self._ways[kind] = self._operator

    def knows(self, node: Any) -> bool:
        """Return whether a node may be an expression by itself."""
        return type(node) in self._ways

    def node(self, node: Any) -> Node:
        """Return the typed node. Raises Fault."""
        way = self._ways.get(type(node))
        if way is None:
            msg = f"{type(node).__name__} cannot stand here"
            raise Fault(msg, *span(node, self._text))
        made = way(node)
        if node.args.get("negate"):
            return Node(Op.NOT, kinds.BOOLEAN, made.span, (made,), nullable=made.nullable)
        return made

    def _at(self, node: Any) -> tuple[int, int]:
        return span(node, self._text)

    def _boolean_of(self, node: Any, what: str) -> Node:
        made = self.node(node)
        if made.type == kinds.NULL:
            return replace(made, type=kinds.BOOLEAN)
        if made.type.kind is not Kind.BOOLEAN:
            msg = f"{what} has to be true or false, and this is {kinds.told(made.type)}"
            raise Fault(msg, *self._at(node))
        return made

    def _column(self, node: Any) -> Node:
        name, owner, at = node.name, node.table, self._at(node)
        if node.args.get("db") is not None:
            raise Fault("write a column's name alone, or _before.COLUMN", *at)
        table = self._scope.table
        if owner not in ("", "_before"):
            msg = f"there is no {owner} here; write a column's name alone, or _before.COLUMN"
            raise Fault(msg, *at)
        if not owner and name in METADATA:
            return self._metadata(name, at)
        index = table.at.get(name)
        if index is None and not node.this.quoted:
            alike = [column for column in table.at if column.lower() == name.lower()]
            index = table.at[alike[0]] if len(alike) == 1 else None
        if index is None:
            msg = f"there is no column {name}{nearest(name, (*table.at, *(METADATA if name[:1] == '_' else ())))}"
            raise Fault(msg, *word_span(node.this, self._text))
        column = table.columns[index]
        side = "b" if owner else "r"
        return Node(Op.COLUMN, column.type, at, value=(side, index), nullable=column.nullable or side == "b")

    def _metadata(self, name: str, at: tuple[int, int]) -> Node:
        fixed = {"_table": self._scope.table.name, "_schema": self._scope.table.schema}
        if name in fixed:
            return constant(fixed[name], kinds.TEXT, at)
        kind = kinds.TIMESTAMPTZ if name == "_commit_time" else kinds.TEXT
        return Node(Op.COLUMN, kind, at, value=("m", name[1:]), nullable=False)

    def _literal(self, node: Any) -> Node:
        at, text = self._at(node), str(node.this)
        if node.is_string:
            return constant(text, kinds.TEXT, at, literal=True)
        if text.isdigit():
            value = int(text)
            return (
                constant(value, kinds.INTEGER, at)
                if value < 1 << 63
                else constant(decimal_of_text(text), kinds.DECIMAL, at)
            )
        if "e" in text.lower():
            return constant(float_of_text(text), kinds.FLOAT, at)
        digits = len(text.partition(".")[2])
        return constant(
            decimal_of_text(text), Type(Kind.DECIMAL, precision=max(len(text) - 1, digits + 1), scale=digits), at
        )

    def _boolean(self, node: Any) -> Node:
        return constant(bool(node.this), kinds.BOOLEAN, self._at(node))

    def _null(self, node: Any) -> Node:
        return Node(Op.CONSTANT, kinds.NULL, self._at(node))

    def _negative(self, node: Any) -> Node:
        inner = self.node(node.this)
        if inner.type.kind is Kind.INTERVAL:
            return operators.negative_interval(inner)
        if inner.type.kind not in operators.NUMBERS:
            msg = f"there is no -{kinds.told(inner.type)}"
            raise Fault(msg, *self._at(node))
        if inner.op is Op.CONSTANT and inner.value is not None:
            return replace(inner, value=-inner.value)
        return Node(Op.CALL, inner.type, inner.span, (inner,), Call(None, "(-{0})"), inner.nullable)

    def _not(self, node: Any) -> Node:
        inner = self._boolean_of(node.this, "what NOT is said of")
        return Node(Op.NOT, kinds.BOOLEAN, inner.span, (inner,), nullable=inner.nullable)

    def _both(self, node: Any) -> Node:
        word = "AND" if isinstance(node, exp.And) else "OR"
        sides = tuple(self._boolean_of(side, f"a side of {word}") for side in (node.this, node.expression))
        nullable = any(side.nullable for side in sides)
        return Node(Op.AND if word == "AND" else Op.OR, kinds.BOOLEAN, self._at(node), sides, nullable=nullable)

    def _operator(self, node: Any) -> Node:
        return operators.binary(type(node), self.node(node.this), self.node(node.expression), self._at(node))

    def _is(self, node: Any) -> Node:
        wanted = node.expression
        if isinstance(wanted, exp.Null):
            return Node(Op.IS_NULL, kinds.BOOLEAN, self._at(node), (self.node(node.this),), nullable=False)
        inner = self._boolean_of(node.this, "what IS TRUE is asked of")
        call = Call(None, "({0} is True)" if wanted.this else "({0} is False)", strict=False)
        return Node(Op.CALL, kinds.BOOLEAN, self._at(node), (inner,), call, nullable=False)

    def _in(self, node: Any) -> Node:
        if not node.expressions:
            raise Fault("write the values in brackets", *self._at(node))
        return operators.among(self.node(node.this), [self.node(item) for item in node.expressions], self._at(node))

    def _between(self, node: Any) -> Node:
        if node.args.get("symmetric"):
            raise Fault("BETWEEN SYMMETRIC is not part of an expression here", *self._at(node))
        value, low, high = (self.node(node.args[name]) for name in ("this", "low", "high"))
        return operators.between(value, low, high, self._at(node))

    def _like(self, node: Any, escape: str = "\\") -> Node:
        fold = isinstance(node, exp.ILike)
        return operators.like(self.node(node.this), self.node(node.expression), self._at(node), escape, fold=fold)

    def _escape(self, node: Any) -> Node:
        mark = self.node(node.expression)
        if not mark.literal or len(mark.value) > 1 or not isinstance(node.this, exp.Like | exp.ILike):
            raise Fault("ESCAPE takes one character, as a literal", *self._at(node.expression))
        return self._like(node.this, mark.value)

    def _regex(self, node: Any) -> Node:
        flags = constant("i" if isinstance(node, exp.RegexpILike) else "", kinds.TEXT, self._at(node), literal=True)
        args = [self.node(node.this), self.node(node.expression), flags]
        return self._made("regexp_matches", args, self._at(node))

    def _case(self, node: Any) -> Node:
        parts: list[Node] = []
        if len(node.args["ifs"]) > BRANCHES_MAX:
            msg = f"CASE has at most {BRANCHES_MAX} branches"
            raise Fault(msg, *self._at(node))
        for branch in node.args["ifs"]:
            if node.this is not None:
                parts.append(
                    operators.binary(exp.EQ, self.node(node.this), self.node(branch.this), self._at(branch.this))
                )
            else:
                parts.append(self._boolean_of(branch.this, "what stands after WHEN"))
            parts.append(self.node(branch.args["true"]))
        default = node.args.get("default")
        parts.append(self.node(default) if default is not None else Node(Op.CONSTANT, kinds.NULL, self._at(node)))
        at = [*range(1, len(parts) - 1, 2), len(parts) - 1]
        values = operators.alike([parts[index] for index in at], self._at(node), "the results of CASE")
        for index, value in zip(at, values, strict=True):
            parts[index] = value
        nullable = any(value.nullable for value in values)
        return Node(Op.CASE, values[0].type, self._at(node), tuple(parts), nullable=nullable)

    def _cast(self, node: Any) -> Node:
        given, wanted = self.node(node.this), self._type(node.args["to"])
        at = self._at(node)
        if given.op is Op.CONSTANT and given.value is None:
            return replace(given, type=wanted)
        change = cast(given.type, wanted)
        if change is None:
            msg = f"there is no cast from {kinds.told(given.type)} to {kinds.told(wanted)}"
            raise Fault(msg, *at)
        attempt = isinstance(node, exp.TryCast)
        if given.op is Op.CONSTANT and not attempt:
            try:
                return constant(change(given.value), wanted, at)
            except Failure as failure:
                raise Fault(str(failure), *at) from failure
        note = loss(given.type, wanted) if given.op is Op.COLUMN else ""
        call = Call(_attempted(change) if attempt else change, total=not attempt, note=note)
        return Node(Op.CALL, wanted, at, (given,), call, nullable=attempt or given.nullable)

    def _type(self, node: Any) -> Type:
        name = node.this.value.lower() if hasattr(node.this, "value") else str(node.this).lower()
        if name in ("array", "list"):
            return kinds.array_of(self._type(node.expressions[0]))
        found = kinds.BY_NAME.get(name)
        if found is None:
            msg = f"there is no type {name} here{nearest(name, kinds.BY_NAME)}"
            raise Fault(msg, *self._at(node))
        limits = [int(each.name) for each in node.expressions if each.name.isdigit()]
        if found.kind is Kind.DECIMAL and limits:
            return replace(found, precision=limits[0], scale=limits[1] if len(limits) > 1 else 0)
        if found.kind is Kind.TEXT and limits:
            return replace(found, length=limits[0])
        if found.fixed:
            return replace(found, length=1)
        return found

    def _call(self, node: Any) -> Node:
        name, at = str(node.this).lower(), self._at(node)
        if name == "secret":
            return self._secret(node)
        named: dict[str, Node] = {}
        args: list[Node] = []
        for item in node.expressions:
            if isinstance(item, exp.Kwarg):
                named[item.this.name.lower()] = self.node(item.expression)
            elif named:
                raise Fault("a value without a name cannot follow one with a name", *self._at(item))
            else:
                args.append(self.node(item))
        if name in CONDITIONS:
            if named or len(args) < 1 or (name != "coalesce" and len(args) != 2):  # noqa: PLR2004  both sides
                msg = f"{name} takes {'values' if name == 'coalesce' else 'two values'}"
                raise Fault(msg, *at)
            return operators.nullif(args, at) if name == "nullif" else operators.coalesce(args, at)
        return calls.resolved(name, args, named, (at, word_span(node, self._text)), self._scope)

    def _secret(self, node: Any) -> Node:
        at = self._at(node)
        given = self.node(node.expressions[0]) if len(node.expressions) == 1 else None
        if given is None or not given.literal:
            raise Fault("secret takes its name, as a literal: secret('name')", *at)
        secrets = self._scope.secrets
        if secrets is None:
            return constant(given.value.encode(), kinds.SECRET, at)
        if given.value not in secrets:
            msg = f"the pipeline has no secret {given.value}{nearest(given.value, secrets)}; name it under `secrets`"
            raise Fault(msg, *at)
        return constant(secrets[given.value], kinds.SECRET, at)

    def _made(self, name: str, args: list[Node], at: tuple[int, int]) -> Node:
        return calls.resolved(name, args, {}, (at, at), self._scope)

    def _extract(self, node: Any) -> Node:
        unit = constant(node.this.name.lower(), kinds.TEXT, self._at(node), literal=True)
        return self._made("date_part", [unit, self.node(node.expression)], self._at(node))

    def _substring(self, node: Any) -> Node:
        start = node.args.get("start")
        args = [
            self.node(node.this),
            self.node(start) if start is not None else constant(1, kinds.INTEGER, self._at(node)),
        ]
        if node.args.get("length") is not None:
            args.append(self.node(node.args["length"]))
        return self._made("substring", args, self._at(node))

    def _position(self, node: Any) -> Node:
        return self._made("position", [self.node(node.this), self.node(node.args["substr"])], self._at(node))

    def _trim(self, node: Any) -> Node:
        names = {"LEADING": "ltrim", "TRAILING": "rtrim"}
        args = [self.node(node.this)]
        if node.expression is not None and node.args.get("expression") is not None:
            args.append(self.node(node.expression))
        return self._made(names.get(str(node.args.get("position") or "").upper(), "trim"), args, self._at(node))

    def _at_time_zone(self, node: Any) -> Node:
        return self._made("timezone", [self.node(node.args["zone"]), self.node(node.this)], self._at(node))

    def _interval(self, node: Any) -> Node:
        unit = node.args.get("unit")
        text = f"{node.this.name}{' ' + unit.name if unit is not None else ''}"
        given = constant(text, kinds.TEXT, self._at(node), literal=True)
        return coerced(given, kinds.INTERVAL)

    def _json(self, node: Any) -> Node:
        steps: list[Node] = []
        inner: Any = node
        while isinstance(inner, exp.JSONExtract) or (inner is node):
            steps.insert(0, self.node(inner.expression))
            inner = inner.this
        return operators.json_path(
            self.node(inner), steps, self._at(node), as_text=isinstance(node, exp.JSONExtractScalar)
        )

    def _bracket(self, node: Any) -> Node:
        if len(node.expressions) != 1 or isinstance(node.expressions[0], exp.Slice):
            raise Fault("one index is wanted", *self._at(node))
        return operators.element(self.node(node.this), self.node(node.expressions[0]), self._at(node))

    def _array(self, node: Any) -> Node:
        return operators.array([self.node(item) for item in node.expressions], self._at(node))


def _attempted(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def attempt(value: Any) -> Any:
        try:
            return change(value)
        except Failure:
            return None

    return attempt
