"""An expression's text to sqlglot's tree, of which nothing but listed nodes is let through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import TokenType

from cdcsync.document import nearest
from cdcsync.mapping.expressions.kinds import BY_NAME
from cdcsync.mapping.failures import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT_MAX: Final = 20_000
"""Characters of one expression."""
DEPTH_MAX: Final = 100
"""Brackets within brackets, and operators within operators."""

SPECIAL: Final = ("CAST", "TRY_CAST", "EXTRACT", "SUBSTRING", "POSITION", "TRIM")
"""Calls with a grammar of their own; all others are a name and arguments."""

UNITS: Final = ("second", "minute", "hour", "day", "week", "month", "year")
"""What may follow `INTERVAL '3'`."""

ALLOWED: Final = (
    exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.DPipe,
    exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ,
    exp.And, exp.Or, exp.Not, exp.Is, exp.In, exp.Between, exp.Like, exp.ILike, exp.Escape, exp.RegexpLike,
    exp.RegexpILike, exp.Case, exp.If, exp.Cast, exp.TryCast, exp.DataType, exp.DataTypeParam,
    exp.Extract, exp.Substring, exp.StrPosition, exp.Trim, exp.AtTimeZone, exp.Interval, exp.Var,
    exp.JSONExtract, exp.JSONExtractScalar, exp.Bracket, exp.Array, exp.Kwarg, exp.Anonymous,
    exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Paren,
)  # fmt: skip
"""The whole of the grammar."""
ARGUMENTS: Final = frozenset({
    "this", "expression", "expressions", "ifs", "true", "default", "to", "low", "high", "start", "length", "substr",
    "zone", "unit", "position", "table", "db", "catalog", "quoted", "is_string", "safe", "negate", "symmetric", "nested",
    "only_json_types", "is_numeric", "typed",
})  # fmt: skip
"""What those nodes may hold: a newer sqlglot that says something by another word is not misread."""


class _Parser(PostgresParser):
    """PostgreSQL's expressions, with every call left as it is written."""

    FUNCTIONS = {}  # noqa: RUF012  sqlglot's way
    FUNCTION_PARSERS = {  # noqa: RUF012  sqlglot's way
        name: made for name, made in PostgresParser.FUNCTION_PARSERS.items() if name in SPECIAL
    }
    NO_PAREN_FUNCTIONS = {}  # noqa: RUF012  sqlglot's way
    NO_PAREN_FUNCTION_PARSERS = {  # noqa: RUF012  sqlglot's way
        "CASE": PostgresParser.NO_PAREN_FUNCTION_PARSERS["CASE"]
    }
    COLUMN_OPERATORS = {  # noqa: RUF012  sqlglot's way
        **PostgresParser.COLUMN_OPERATORS,
        TokenType.ARROW: lambda self, this, path: self.expression(exp.JSONExtract(this=this, expression=path)),
        TokenType.DARROW: lambda self, this, path: self.expression(exp.JSONExtractScalar(this=this, expression=path)),
    }

    def _parse_interval(self, require_interval: bool = True, parse_function_unit: bool = True) -> Any:  # noqa: ARG002, FBT001, FBT002  sqlglot's signature
        """Take the text as it is: sqlglot looks for one unit in it."""
        start = self._index
        if not self._match(TokenType.INTERVAL, advance=require_interval) or not self._match(TokenType.STRING):
            self._retreat(start)
            return None
        text = exp.Literal.string(self._prev.text).update_positions(self._prev)
        unit = self._parse_var() if self._curr and self._curr.text.lower().removesuffix("s") in UNITS else None
        return self.expression(exp.Interval(this=text, unit=unit))


class _Dialect(Postgres):
    """The parser above with PostgreSQL's words; indexes stay as they are written."""

    INDEX_OFFSET = 0
    Parser = _Parser
    parser_class = _Parser  # type: ignore[assignment]  # sqlglot's own dialects do the same


@dataclass(frozen=True, slots=True)
class Syntax:
    """One expression, parsed."""

    text: str
    root: Any
    """sqlglot's node; only listed ones below it."""


@cache
def _dialect() -> Any:
    return _Dialect()


def parsed(text: str) -> Syntax:
    """Parse one expression. Raises Fault."""
    if len(text) > TEXT_MAX:
        msg = f"an expression has at most {TEXT_MAX} characters"
        raise Fault(msg, 0, 1)
    _shallow(text)
    try:
        found = _dialect().parser().parse(_dialect().tokenize(text), text)
    except SqlglotError as error:
        raise _fault(error, text) from error
    except RecursionError as error:
        raise Fault("nested too deeply", 0, len(text)) from error
    if len(found) != 1 or found[0] is None:
        end = text.find(";")
        raise Fault("one expression is wanted", max(end, 0), max(end, 0) + 1)
    root = found[0]
    _check(root, text, 0)
    return Syntax(text, root)


def _shallow(text: str) -> None:
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth > DEPTH_MAX:
            msg = f"more than {DEPTH_MAX} brackets within brackets"
            raise Fault(msg, at, at + 1)


def _check(node: Any, text: str, depth: int) -> None:
    """Raise Fault at what is not listed."""
    if depth > 2 * DEPTH_MAX:
        raise Fault("nested too deeply", *span(node, text))
    if not isinstance(node, ALLOWED):
        msg = f"{_name(node)} is not part of an expression here"
        raise Fault(msg, *span(node, text))
    if isinstance(node, exp.DataType) and node.args.get("kind"):
        name = str(node.args["kind"])
        at = text.lower().find(name.lower())
        msg = f"there is no type {name} here{nearest(name.lower(), BY_NAME)}"
        raise Fault(msg, max(at, 0), max(at, 0) + len(name))
    for name, value in node.args.items():
        if value and name not in ARGUMENTS:
            msg = f"{_name(node)} with {name} is not part of an expression here"
            raise Fault(msg, *span(node, text))
    for below in node.iter_expressions():
        _check(below, text, depth + 1)


def _name(node: Any) -> str:
    words = {exp.Select: "a query", exp.Subquery: "a query", exp.Window: "a window", exp.Star: "*"}
    return words.get(type(node), type(node).__name__)


def _fault(error: Any, text: str) -> Fault:
    told = (getattr(error, "errors", None) or [{}])[0]
    if not told:
        return Fault("this cannot be read as SQL", 0, len(text))
    lines = text.split("\n")
    line, column = told["line"] - 1, told["col"]
    word = told.get("highlight") or " "
    start = sum(len(each) + 1 for each in lines[:line]) + max(0, column - len(word))
    said = "this cannot be read as SQL here"
    if "Required keyword" in told["description"]:
        said = "something is missing after this"
    elif "Expecting )" in told["description"]:
        said = "a bracket is not closed"
    return Fault(said, start, start + len(word))


def span(node: Any, text: str) -> tuple[int, int]:
    """Return the offsets of a node, those around all that it holds, with the brackets that close in it."""
    marks = list(_marks(node))
    if not marks:
        return 0, len(text)
    start, end = min(start for start, _ in marks), max(end for _, end in marks) + 1
    while text[start:end].count("(") > text[start:end].count(")") and text[end:].lstrip()[:1] == ")":
        end = text.index(")", end) + 1
    return start, end


def _marks(node: Any) -> Iterator[tuple[int, int]]:
    for each in node.walk():
        if each.meta.get("start") is not None:
            yield each.meta["start"], each.meta["end"]


def word_span(node: Any, text: str) -> tuple[int, int]:
    """Return the offsets of the node's own word, as a call's name, else of all of it."""
    if node.meta.get("start") is not None:
        return node.meta["start"], node.meta["end"] + 1
    return span(node, text)
