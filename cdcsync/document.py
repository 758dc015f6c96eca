"""A strict YAML file as plain values, with the line and column of every key and value, and its mistakes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from cdcsync.errors import ExitStatus, Fatal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ruamel.yaml.nodes import Node

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys and indexes from the root of a document."""

FOLD: Final = "\a"
"""What the round trip loader puts into a folded text where a line ended."""
BOOLEANS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file, counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """Return `file:line:column`, as editors take it."""
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake."""

    mark: Mark
    message: str

    def __str__(self) -> str:
        """Return the line that is shown."""
        return f"{self.mark}: {self.message}"


@dataclass(slots=True)
class Document:
    """One parsed file: `value` is made of dict, list, str, int, float, bool and None."""

    file: str
    value: Any = None
    keys: dict[KeyPath, Mark] = field(default_factory=dict)
    """Where each key stands."""
    values: dict[KeyPath, Mark] = field(default_factory=dict)
    """Where each value begins."""
    problems: list[Problem] = field(default_factory=list)
    """Duplicate keys, unknown tags and the like; syntax errors are raised at once."""
    text: str = field(default="", repr=False)
    """The file's text."""

    def key_mark(self, path: KeyPath) -> Mark:
        """Return where the key stands, else the nearest thing above it."""
        return self.keys.get(path) or self.value_mark(path)

    def value_mark(self, path: KeyPath) -> Mark:
        """Return where the value begins, else the nearest thing above it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.values:
                return self.values[path[:length]]
        return Mark(self.file, 1, 1)

    def inner_mark(self, path: KeyPath, value: str, offset: int) -> Mark:
        """Return where a character of a text value stands, whatever its YAML style; else where the value begins."""
        start = self.value_mark(path)
        raw = self.text
        at = sum(len(line) + 1 for line in raw.split("\n")[: start.line - 1]) + start.column - 1
        quote = raw[at : at + 1] if raw[at : at + 1] in ("'", '"') else ""
        at = raw.find("\n", at) if raw[at : at + 1] in ("|", ">") else at + len(quote)
        for character in value[:offset]:
            at = _after(raw, at, character, quote)
        while offset < len(value) and not value[offset].isspace() and raw[at : at + 1].isspace():
            at += 1
        if at < 0 or at >= len(raw):
            return start
        line = raw.count("\n", 0, at)
        return Mark(self.file, line + 1, at - (raw.rfind("\n", 0, at) + 1) + 1)


def _after(raw: str, at: int, character: str, quote: str) -> int:
    """Return where reading goes on after a value's character; white space may be folded."""
    if character.isspace():
        while raw[at : at + 1].isspace():
            at += 1
        return at
    found = raw.find(character, at)
    doubled = quote == "'" and character == "'"
    return at if found < 0 else found + 1 + doubled


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?", or what there is to choose from, or nothing."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are: {', '.join(known)}" if known else ""


def fatal(problems: Iterable[Problem], *, hint: str = "mend these lines of the file") -> Fatal:
    """Return the one error that shows all mistakes, a line each, in the order of the file."""
    return Fatal("\n".join(map(str, sorted(set(problems)))), hint=hint, status=ExitStatus.CONFIG)


def read(path: Path) -> Document:
    """Read and parse a file. Raises Fatal with CONFIG when it cannot be read or is no YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        msg = f"{path} cannot be read: {reason}"
        raise Fatal(msg, hint="give the name or the path of a pipeline's file", status=ExitStatus.CONFIG) from error
    return parse(text, str(path))


def parse(text: str, file: str) -> Document:
    """Parse YAML 1.2. Raises Fatal with CONFIG on a syntax error; other mistakes are in `problems`."""
    document = Document(file, text=text)
    try:
        root = YAML(typ="rt", pure=True).compose(text)
    except YAMLError as error:
        raise fatal([_syntax(error, file)]) from error
    if root is not None:
        document.value = _Builder(document).build(root, (), ())
    return document


def _syntax(error: YAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark if isinstance(error, MarkedYAMLError) else None
    at = Mark(file, mark.line + 1, mark.column + 1) if mark else Mark(file, 1, 1)
    words = (error.context, error.problem) if isinstance(error, MarkedYAMLError) else (str(error),)
    return Problem(at, f"not valid YAML: {', '.join(word for word in words if word)}")


class _Builder:
    """Turns composed nodes into plain values, noting marks and mistakes."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def build(self, node: Node, path: KeyPath, above: Sequence[Node]) -> Any:
        """Return the node's value; `above` are the nodes it lies in, against aliases to themselves."""
        self._document.values[path] = self._mark(node)
        if any(node is other for other in above):
            return self._wrong(node, "an alias may not contain itself")
        if isinstance(node, MappingNode):
            return self._mapping(node, path, (*above, node))
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, at), (*above, node)) for at, item in enumerate(node.value)]
        return self._scalar(node) if isinstance(node, ScalarNode) else None

    def _mapping(self, node: MappingNode, path: KeyPath, above: Sequence[Node]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._wrong(key_node, "a key has to be a word")
                continue
            key = key_node.value
            if key in values:
                first = self._document.keys[(*path, key)]
                self._wrong(key_node, f"{key} stands here twice, first in line {first.line}")
                continue
            self._document.keys[(*path, key)] = self._mark(key_node)
            values[key] = self.build(value_node, (*path, key), above)
        return values

    def _scalar(self, node: ScalarNode) -> Any:
        """Return the value by the tag that the YAML 1.2 resolver gave; a date stays the text it is."""
        tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
        text = node.value
        if node.style == ">":
            text = text.replace(FOLD, "")
        if tag in ("str", "timestamp"):
            return text
        if tag == "null":
            return None
        if tag == "bool":
            return BOOLEANS.get(text.lower(), text)
        if tag in ("int", "float"):
            return self._number(node, text.replace("_", ""), tag)
        return self._wrong(node, f"the tag {node.tag} means nothing here")

    def _number(self, node: ScalarNode, text: str, tag: str) -> Any:
        try:
            if tag == "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            return int(text, 0) if text.lstrip("+-").startswith(("0x", "0o", "0b")) else int(text)
        except ValueError:
            return self._wrong(node, "not a number that can be read")

    def _mark(self, node: Node) -> Mark:
        return Mark(self._document.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _wrong(self, node: Node, message: str) -> None:
        self._document.problems.append(Problem(self._mark(node), message))
