"""SQL expressions over a row: parsed, typed, and compiled to plain Python."""

from cdcsync.mapping.expressions.checker import unknown
from cdcsync.mapping.expressions.program import Program, compiled
from cdcsync.mapping.expressions.syntax import Syntax, parsed
from cdcsync.mapping.expressions.tree import Scope
from cdcsync.mapping.failures import Failure, Fault

__all__ = ["Failure", "Fault", "Program", "Scope", "Syntax", "compiled", "parsed", "unknown"]
