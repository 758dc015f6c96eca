"""Typed trees to one plain Python function over the row: no text of the mapping stands in it, only names made here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cdcsync.change import UNCHANGED
from cdcsync.mapping.expressions import kinds
from cdcsync.mapping.expressions.checker import check, every_fault, unknown
from cdcsync.mapping.expressions.forms import inward, outward
from cdcsync.mapping.expressions.tree import Call, Node, Op
from cdcsync.mapping.failures import FAILURES, Failure, Fault, reason
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cdcsync.change import Row
    from cdcsync.mapping.expressions.syntax import Syntax
    from cdcsync.mapping.expressions.tree import Scope
    from cdcsync.types import Type

INDENT_MAX: Final = 60
NEST_MAX: Final = 30
"""Calls in calls in one line of Python, which has a limit of its own."""


@dataclass(frozen=True, slots=True)
class Program:
    """One expression, typed against one table version."""

    text: str
    node: Node
    type: Type
    nullable: bool
    inputs: frozenset[tuple[str, Any]]
    """Columns and metadata that it reads: ("r" | "b", index), ("m", name)."""

    @property
    def plain(self) -> bool:
        """Whether it reads nothing but the row itself."""
        return all(side == "r" for side, _ in self.inputs)

    @property
    def notes(self) -> list[Fault]:
        """What an operator should know before a row is read, each with the part that it is about."""
        calls = (each for each in _walk(self.node) if each.op is Op.CALL)
        return [Fault(call.value.note, *call.span) for call in calls if call.value.note]


def compiled(syntax: Syntax, scope: Scope) -> Program:
    """Type an expression. Raises Fault; more than one unknown name is told in one."""
    faults = unknown(syntax, scope)
    if faults:
        raise faults[0] if len(faults) == 1 else Faults(faults)
    try:
        node = check(syntax, scope)
    except Fault as fault:
        several = every_fault(syntax, scope)
        raise Faults(several) if len(several) > 1 else fault from fault
    if node.type == kinds.SECRET:
        raise Fault("a secret cannot be written to a target", *node.span)
    inputs = frozenset(each.value for each in _walk(node) if each.op is Op.COLUMN)
    return Program(syntax.text, node, _told(node.type), node.nullable, inputs)


class Faults(Fault):
    """Several faults of one expression."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)), faults[0].start, faults[0].end)
        self.faults = tuple(faults)


def _told(kind: Type) -> Type:
    return kinds.TEXT if kind == kinds.NULL else kind


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for arg in node.args:
        yield from _walk(arg)


@dataclass(frozen=True, slots=True)
class _Code:
    """A Python expression; its value counts when none of the guards is None, else it is None."""

    text: str
    guards: tuple[str, ...] = ()
    depth: int = 0

    def value(self) -> str:
        """Return an expression that is None when a guard is."""
        if not self.guards or self.guards == (self.text,):
            return self.text
        return f"(None if {self.null()} else {self.text})"

    def null(self) -> str:
        """Return the condition that a guard is None."""
        return " or ".join(f"{guard} is None" for guard in self.guards)

    def truth(self) -> str:
        """Return an expression that is true where the value is."""
        if not self.guards or self.guards == (self.text,):
            return self.text
        return f"({' and '.join(f'{guard} is not None' for guard in self.guards)} and {self.text})"


@dataclass(slots=True)
class _Emitter:
    """Writes one function."""

    names: dict[str, Any] = field(default_factory=lambda: {"U": UNCHANGED})
    lines: list[str] = field(default_factory=list)
    loads: dict[str, str] = field(default_factory=dict)
    indent: int = 1
    made: int = 0

    def line(self, text: str) -> None:
        """Add a line."""
        if self.indent > INDENT_MAX:
            raise Fault("nested too deeply")
        self.lines.append(f"{' ' * self.indent}{text}")

    def new(self) -> str:
        """Return a name that stands nowhere yet."""
        self.made += 1
        return f"t{self.made}"

    def bound(self, value: Any) -> str:
        """Return a name for a constant or a function."""
        if value is None or isinstance(value, bool) or type(value) is int:
            return f"({value})" if value is not None and value < 0 else str(value)
        for name, known in self.names.items():
            if known is value:
                return name
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def kept(self, code: str) -> str:
        """Return a name that holds the value."""
        name = self.new()
        self.line(f"{name} = {code}")
        return name

    def raw(self, side: str, at: Any) -> str:
        """Return the name of a value as the row has it."""
        name = f"{side}{at}"
        source = {"r": f"r[{at}]", "b": f"None if b is None else b[{at}]", "m": f"m.{at}"}[side]
        self.loads.setdefault(name, source)
        return name

    def emit(self, node: Node) -> _Code:
        """Write what a node needs, and return its value."""
        ways: dict[Op, Callable[[Node], _Code]] = {
            Op.COLUMN: self._column,
            Op.CONSTANT: self._constant,
            Op.CALL: self._call,
            Op.AND: self._connected,
            Op.OR: self._connected,
            Op.NOT: self._not,
            Op.IS_NULL: self._is_null,
            Op.COALESCE: self._coalesce,
            Op.CASE: self._case,
        }
        code = ways[node.op](node)
        if code.depth <= NEST_MAX:
            return code
        name = self.kept(code.value())
        return _Code(name, (name,) if code.guards else ())

    def _column(self, node: Node) -> _Code:
        side, at = node.value
        name = self.raw(side, at)
        change = inward(node.type)
        if change is not None:
            inner = f"d{name}"
            self.loads.setdefault(inner, f"{name} if {name} is None or {name} is U else {self.bound(change)}({name})")
            name = inner
        return _Code(name, () if side == "m" else (name,))

    def _constant(self, node: Node) -> _Code:
        return _Code("None", ("None",)) if node.value is None else _Code(self.bound(node.value))

    def _call(self, node: Node) -> _Code:
        call: Call = node.value
        codes = [self.emit(arg) for arg in node.args]
        guards = tuple(dict.fromkeys(guard for code in codes for guard in code.guards)) if call.strict else ()
        words = [code.text if call.strict else code.value() for code in codes]
        function = self.bound(call.run) if call.run is not None else ""
        text = call.inline.format(*words, f=function) if call.inline else f"{function}({', '.join(words)})"
        depth = max((code.depth for code in codes), default=0) + 1
        if "None" in guards:
            return _Code("None", ("None",))
        if call.total:
            return _Code(text, guards, depth)
        name = self.kept(_Code(text, guards).value())
        return _Code(name, (name,))

    def _apart(self, node: Node) -> tuple[_Code, list[str]]:
        """Return a node's value and the lines that it needs, one level further in."""
        outside, self.lines = self.lines, []
        self.indent += 1
        code = self.emit(node)
        self.indent -= 1
        inside, self.lines = self.lines, outside
        return code, inside

    def _connected(self, node: Node) -> _Code:
        first = self.emit(node.args[0])
        second, lines = self._apart(node.args[1])
        word = "and" if node.op is Op.AND else "or"
        if not first.guards and not second.guards and not lines:
            return _Code(f"({first.text} {word} {second.text})", (), max(first.depth, second.depth) + 1)
        name = self.kept(first.value())
        decided, other = ("False", "True") if node.op is Op.AND else ("True", "False")
        self.line(f"if {name} is not {decided}:")
        self.lines += lines
        value = self.new()
        self.indent += 1
        self.line(f"{value} = {second.value()}")
        self.line(f"if {name} is {other} or {value} is {decided}: {name} = {value}")
        self.indent -= 1
        return _Code(name, (name,))

    def truth(self, node: Node) -> str:
        """Return a condition that holds where the node is true; what is null is not."""
        if node.op in (Op.AND, Op.OR):
            mark, made = len(self.lines), self.made
            first = self.truth(node.args[0])
            outside, self.lines = self.lines, []
            second = self.truth(node.args[1])
            inside, self.lines = self.lines, outside
            if not inside and len(first) + len(second) < 2000:  # noqa: PLR2004  Python nests so deep and no deeper
                return f"({first} {'and' if node.op is Op.AND else 'or'} {second})"
            del self.lines[mark:]
            self.made = made
        return self.emit(node).truth()

    def _not(self, node: Node) -> _Code:
        code = self.emit(node.args[0])
        return _Code(f"(not {code.text})", code.guards, code.depth + 1)

    def _is_null(self, node: Node) -> _Code:
        code = self.emit(node.args[0])
        if code.guards == (code.text,):
            return _Code(f"({code.text} is None)")
        return _Code(f"({self.kept(code.value())} is None)")

    def _coalesce(self, node: Node) -> _Code:
        first = self.emit(node.args[0])
        name = self.kept(first.value())
        code = first
        for arg in node.args[1:]:
            if not code.guards:
                break
            self.line(f"if {name} is None:")
            code, lines = self._apart(arg)
            self.lines += lines
            self.line(f" {name} = {code.value()}")
        return _Code(name, (name,) if code.guards else ())

    def _case(self, node: Node) -> _Code:
        name = self.new()
        self._branch(name, node.args, "if")
        return _Code(name, (name,))

    def _branch(self, name: str, args: Sequence[Node], word: str) -> None:
        """Write a condition, what it leads to, and the rest; a condition that needs lines goes one level further in."""
        self.line(f"{word} {self.truth(args[0])}:")
        self._assigned(name, args[1])
        rest = args[2:]
        if len(rest) == 1:
            self.line("else:")
            self._assigned(name, rest[0])
        elif not self._needs_lines(rest[0]):
            self._branch(name, rest, "elif")
        else:
            self.line("else:")
            self.indent += 1
            self._branch(name, rest, "if")
            self.indent -= 1

    def _needs_lines(self, condition: Node) -> bool:
        outside, self.lines = self.lines, []
        self.truth(condition)
        inside, self.lines = self.lines, outside
        return bool(inside)

    def _assigned(self, name: str, node: Node) -> None:
        code, lines = self._apart(node)
        self.lines += lines
        self.line(f" {name} = {code.value()}")

    def output(self, name: str, program: Program) -> None:
        """Write one expression's value, UNCHANGED where an input is."""
        waits = [self.raw(side, at) for side, at in sorted(program.inputs, key=str) if side != "m"]
        if waits:
            self.line(f"if {' or '.join(f'{wait} is U' for wait in waits)}: {name} = U")
            self.line("else:")
            self.indent += 1
        code = self.emit(program.node)
        change = outward(program.node.type)
        if change is not None:
            self.line(f"{name} = {_Code(f'{self.bound(change)}({code.text})', code.guards).value()}")
        else:
            self.line(f"{name} = {code.value()}")
        if program.node.type.kind is Kind.INTEGER and program.node.op is Op.CALL:
            low, high = _bounds(program.node.type)
            unless = f"{name} is not None and " if code.guards else ""
            self.line(f"if {unless}not {low} <= {name} <= {high}: {self.bound(_too_large)}()")
        if waits:
            self.indent -= 1

    def function(self, result: str, where: str) -> Callable[..., Any]:
        """Return the function that these lines make."""
        loads = [f" {name} = {source}" for name, source in self.loads.items()]
        source = "\n".join(["def made(r, b=None, m=None):", *loads, *self.lines, f" return {result}"])
        exec(compile(source, f"<mapping {where}>", "exec"), self.names)  # noqa: S102  every word of it was made above
        made: Callable[..., Any] = self.names["made"]
        return made


def _bounds(kind: Type) -> tuple[int, int]:
    if kind.unsigned:
        return 0, (1 << kind.bits) - 1
    return -(1 << kind.bits - 1), (1 << kind.bits - 1) - 1


def _too_large() -> None:
    raise Failure("the result is out of range")


def value_function(program: Program, where: str) -> Callable[[Row, Row | None, Any], Any]:
    """Return a function of the row, the row before and the metadata: the value, or UNCHANGED.

    Raises what `FAILURES` names.
    """
    emitter = _Emitter()
    emitter.output("o", program)
    return emitter.function("o", where)


def row_function(outputs: Sequence[int | Program | None], where: str) -> Callable[[Row, Row | None, Any], Row]:
    """Return a function that makes a whole row: values by their index, expressions, and None for UNCHANGED."""
    emitter = _Emitter()
    words: list[str] = []
    for at, output in enumerate(outputs):
        if isinstance(output, Program):
            words.append(f"o{at}")
            emitter.output(f"o{at}", output)
        else:
            words.append("U" if output is None else emitter.raw("r", output))
    return emitter.function(f"({', '.join(words)},)", where)


def why(program: Program, error: Exception) -> str:
    """Return what is said of an expression that failed on a row: its text and the reason, never a value."""
    shown = " ".join(program.text.split())
    if len(shown) > 200:  # noqa: PLR2004  a line of a log
        shown = f"{shown[:200]}..."
    return f"`{shown}` fails: {reason(error)}"


__all__ = ["FAILURES", "Faults", "Program", "compiled", "row_function", "value_function", "why"]
