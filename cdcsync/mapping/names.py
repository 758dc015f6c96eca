"""Which source tables an entry takes, and what its target is called."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cdcsync.document import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

SHADOW: Final = re.compile(r"_+(?P<of>.+?)_(?:gho|ghc|ghost|new|(?:\d+_)?(?:del|old)\d*)")
"""What gh-ost and pt-online-schema-change call their copies, their logs and what they leave of a table."""
_PART: Final = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')
"""A name, quoted as in SQL where it holds a dot."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """An entry's `from`: exact, a glob, or a regex over `schema.table`."""

    text: str
    exact: tuple[str, str] | None
    """Schema and table when nothing is left open; the schema is empty where only a table is named."""
    expression: str = ""
    """What the whole of `schema.table` has to match (RE2 syntax)."""
    groups: tuple[str, ...] = ()
    """Names and numbers of the captures."""

    @staticmethod
    def parse(text: str) -> Pattern:
        """Parse; raises ValueError saying what is wrong."""
        if len(text) > 1 and text.startswith("/") and text.endswith("/"):
            return Pattern(text, None, text[1:-1], _groups(text[1:-1]))
        schema, table = _split(text)
        if not any(mark in text for mark in "*?"):
            return Pattern(text, (schema, table))
        expression = (_glob(schema) + r"\." if schema else "") + _glob(table)
        return Pattern(text, None, expression, _groups(expression))

    def match(self, schema: str, table: str) -> dict[str, str] | None:
        """Return what is captured, None when the table is not taken.

        Tables of an online schema change are taken only by their own names.
        """
        if self.exact is not None:
            return {} if self.exact == (schema, table) else None
        found = _compiled(self.expression).fullmatch(f"{schema}.{table}" if schema else table)
        if found is None or SHADOW.fullmatch(table):
            return None
        captured = {str(at): text or "" for at, text in enumerate(found.groups(), 1)}
        return captured | {name: text or "" for name, text in found.groupdict().items()}


@dataclass(frozen=True, slots=True)
class Template:
    """An entry's `to`, in two parts."""

    schema: str
    table: str

    @staticmethod
    def parse(text: str, pattern: Pattern) -> Template:
        """Parse; raises ValueError when it asks for what the pattern does not capture."""
        known = ("schema", "table", *pattern.groups)
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
        except ValueError as error:
            msg = f"to: {error}; write {{{{ for a brace"
            raise ValueError(msg) from error
        for name in fields:
            if name not in known:
                msg = f"to: {{{name}}} is not captured by `from`{nearest(name, known)}"
                raise ValueError(msg)
        schema, dot, table = text.partition(".")
        return Template(schema, table) if dot else Template("", text)

    def fill(self, captured: Mapping[str, str]) -> tuple[str, str]:
        """Return the target's schema and table."""
        return _filled(self.schema, captured), _filled(self.table, captured)


def _filled(text: str, captured: Mapping[str, str]) -> str:
    parts = string.Formatter().parse(text)
    return "".join(before + ("" if name is None else captured[name]) for before, name, _, _ in parts)


def _split(text: str) -> tuple[str, str]:
    """Return schema and table of `table`, `schema.table` or `"any.thing".table`."""
    first = _PART.match(text)
    if first is not None and first.end() == len(text):
        return "", _plain(first)
    if first is not None and text[first.end()] == ".":
        second = _PART.fullmatch(text, first.end() + 1)
        if second is not None:
            return _plain(first), _plain(second)
    msg = 'from: write table, schema.table, a glob, or /regex/; a name with a dot in it stands in "quotes"'
    raise ValueError(msg)


def _plain(part: re.Match[str]) -> str:
    return part[1].replace('""', '"') if part[1] is not None else part[2]


def _glob(text: str) -> str:
    """Return a glob as a regex: a star takes and captures anything but a dot, a question mark one character."""
    special = {"*": r"([^.]*)", "?": r"[^.]"}
    return "".join(special.get(character) or re.escape(character) for character in text)


def _groups(expression: str) -> tuple[str, ...]:
    compiled = _compiled(expression)
    return (*map(str, range(1, compiled.groups + 1)), *compiled.groupindex)


def _compiled(expression: str) -> re.Pattern[str]:
    """Compile by RE2, in linear time whatever the input; imported only where a pattern is used."""
    import re2  # noqa: PLC0415  a mapping of plain names does not wait for it

    options = re2.Options()
    options.log_errors = False
    try:
        compiled: re.Pattern[str] = re2.compile(expression, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
        msg = f"from: not a regular expression (RE2 syntax): {reason}"
        raise ValueError(msg) from error
    return compiled
