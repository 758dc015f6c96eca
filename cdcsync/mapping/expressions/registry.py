"""Functions by name: a signature in words, an implementation, and an example that the tests run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from cdcsync.mapping.expressions import kinds
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable

ANY: Final = Type(Kind.OPAQUE, name="any")
SAME: Final = Type(Kind.OPAQUE, name="T")
"""One type for all parameters that have it."""
WORDS: Final = {
    "any": ANY, "T": SAME, "T[]": kinds.array_of(SAME), "secret": kinds.SECRET,
    **{str(kind): each for kind, each in (
        (Kind.BOOLEAN, kinds.BOOLEAN), (Kind.INTEGER, kinds.INTEGER), (Kind.DECIMAL, kinds.DECIMAL),
        (Kind.FLOAT, kinds.FLOAT), (Kind.TEXT, kinds.TEXT), (Kind.BYTES, kinds.BYTES), (Kind.DATE, kinds.DATE),
        (Kind.TIME, kinds.TIME), (Kind.TIMESTAMP, kinds.TIMESTAMP), (Kind.TIMESTAMPTZ, kinds.TIMESTAMPTZ),
        (Kind.INTERVAL, kinds.INTERVAL), (Kind.UUID, kinds.UUID), (Kind.JSON, kinds.JSON),
    )},
    "text[]": kinds.array_of(kinds.TEXT),
}  # fmt: skip
"""The types that a signature names."""
_SIGNATURE: Final = re.compile(r"(\w+)\((.*)\) -> (\S+)")
_PARAMETER: Final = re.compile(r"(?:(\w+) )?(')?([\w\[\]]+)(\.\.\.)?(?: = (.+))?")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter."""

    name: str
    type: Type
    literal: bool
    """It has to be written as a literal: it is looked at once, when the expression is compiled."""
    default: Any = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """One overload."""

    name: str
    signature: str
    parameters: tuple[Parameter, ...]
    returns: Type
    run: Callable[..., Any]
    """Takes the arguments; where a parameter is literal: takes those and returns what takes the others."""
    inline: str = ""
    variadic: bool = False
    """The last parameter may come again."""
    strict: bool = True
    total: bool = True
    section: str = ""
    said: str = ""
    example: tuple[str, str] = ("", "")
    """An expression, and what comes out, as text."""
    duckdb: str = ""
    """How DuckDB says the same: `{0}`, ...; empty: in the same words; "-": not at all."""
    typed: Callable[[tuple[Type, ...]], Type] | None = field(default=None, compare=False)
    """The type of the result by those of the arguments, where the signature does not say it whole."""


FUNCTIONS: Final[dict[str, list[Function]]] = {}
"""Every overload by name."""
SECTIONS: Final[dict[str, None]] = {}
"""The sections of the reference, in their order."""


def define(
    section: str, signature: str, run: Callable[..., Any], said: str, example: tuple[str, str], **more: Any
) -> None:
    """Register one overload."""
    found = _SIGNATURE.fullmatch(signature)
    assert found is not None, signature  # noqa: S101  written in this package
    parts = [part for part in found[2].split(", ") if part]
    matches = [_PARAMETER.fullmatch(part) for part in parts]
    parameters = tuple(_parameter(match) for match in matches if match is not None)
    assert len(parameters) == len(parts), signature  # noqa: S101  written in this package
    made = Function(
        name=found[1],
        signature=re.sub(r"'(?=[a-z])", "", signature),
        parameters=parameters,
        returns=WORDS[found[3]],
        run=run,
        variadic=signature.split(") ->", maxsplit=1)[0].endswith("..."),
        section=section,
        said=said,
        example=example,
    )
    SECTIONS[section] = None
    FUNCTIONS.setdefault(made.name, []).append(replace(made, **more))


def _parameter(match: re.Match[str]) -> Parameter:
    name, literal, word, _, default = match.groups()
    value: Any = None
    if default is not None:
        value = default[1:-1] if default.startswith("'") else int(default)
    return Parameter(name or word, WORDS[word], bool(literal), value, default is not None)


def overloads(name: str) -> list[Function]:
    """Return the overloads of a name, the library being loaded; none when there is no such function."""
    library()
    return FUNCTIONS.get(name, [])


def library() -> dict[str, list[Function]]:
    """Return every function, its module loaded."""
    from cdcsync.mapping.expressions import arrays, documents, numbers, privacy, texts, times  # noqa: F401, PLC0415

    return FUNCTIONS
