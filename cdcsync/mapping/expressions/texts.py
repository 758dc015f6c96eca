"""Functions of text, and patterns over it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

from cdcsync.mapping.expressions.registry import define
from cdcsync.mapping.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT_MAX: Final = 16 << 20
"""Characters that a function may make of a row's values."""
SECTION: Final = "Text"
PATTERNS: Final = "Patterns"


def bounded(length: int) -> None:
    """Raise Failure when a text would be longer than a row may have."""
    if length > TEXT_MAX:
        too_long()


def too_long() -> NoReturn:
    """Raise that Failure."""
    msg = f"the text would be longer than {TEXT_MAX} characters"
    raise Failure(msg)


def upper(text: str) -> str:
    """Return it in upper case, character by character."""
    return text.upper() if text.isascii() else "".join(map(_one_upper, text))


def lower(text: str) -> str:
    """Return it in lower case, character by character."""
    return text.lower() if text.isascii() else "".join(map(_one_lower, text))


def _one_upper(character: str) -> str:
    made = character.upper()
    return made if len(made) == 1 else character


def _one_lower(character: str) -> str:
    made = character.lower()
    return made if len(made) == 1 else made[0]


def initcap(text: str) -> str:
    """Return every word with a capital."""
    return re.sub(r"[^\W_]+", lambda word: upper(word[0][0]) + lower(word[0][1:]), text)


def substring(text: str, start: int, length: int | None = None) -> str:
    """Return characters from `start`, counted from 1; what lies before the text counts into the length."""
    if length is None:
        return text[max(start - 1, 0) :]
    if length < 0:
        raise Failure("a negative length")
    return text[max(start - 1, 0) : max(start - 1 + length, 0)]


def left(text: str, count: int) -> str:
    """Return the first characters; a negative count leaves out the last."""
    return text[:count]


def right(text: str, count: int) -> str:
    """Return the last characters; a negative count leaves out the first."""
    return text[-count:] if count else ""


def replaced(text: str, old: str, new: str) -> str:
    """Return it with every occurrence replaced."""
    if not old:
        return text
    if len(new) > len(old):
        bounded(len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def repeated(text: str, count: int) -> str:
    """Return it several times."""
    bounded(len(text) * max(count, 0))
    return text * count


def padded(text: str, length: int, fill: str) -> tuple[str, str]:
    """Return what to pad with, and the text cut to the length."""
    bounded(length)
    short = max(0, length - len(text))
    if not fill:
        return "", text[: max(0, length)]
    return (fill * (short // len(fill) + 1))[:short], text[: max(0, length)]


def lpad(text: str, length: int, fill: str) -> str:
    """Return it filled up at the left, or cut."""
    return "".join(padded(text, length, fill))


def rpad(text: str, length: int, fill: str) -> str:
    """Return it filled up at the right, or cut."""
    return "".join(reversed(padded(text, length, fill)))


def split_part(text: str, separator: str, number: int) -> str:
    """Return the n-th part, counted from 1, or from the end when negative."""
    if number == 0:
        raise Failure("parts are counted from 1")
    parts = text.split(separator) if separator else [text]
    at = number - 1 if number > 0 else number
    return parts[at] if -len(parts) <= at < len(parts) else ""


def concat(*parts: str | None) -> str:
    """Return all that is not null, joined."""
    return _joined("", parts)


def concat_ws(separator: str | None, *parts: str | None) -> str | None:
    """Return all that is not null with a separator between."""
    return None if separator is None else _joined(separator, parts)


def _joined(separator: str, parts: tuple[str | None, ...]) -> str:
    known = [part for part in parts if part is not None]
    bounded(sum(map(len, known)) + len(separator) * len(known))
    return separator.join(known)


def translate(text: str, old: str, new: str) -> str:
    """Return it with characters of `old` replaced by those of `new` at the same place, or removed."""
    table: dict[int, str | None] = {}
    for at, character in enumerate(old):
        table.setdefault(ord(character), new[at] if at < len(new) else None)
    return text.translate(table)


def chr_of(code: int) -> str:
    """Return the character of a code point."""
    if code <= 0 or code > 0x10FFFF or 0xD800 <= code < 0xE000:  # noqa: PLR2004  Unicode's bounds
        raise Failure("no such character")
    return chr(code)


_Row: TypeAlias = tuple[str, Any, str, tuple[str, str], dict[str, Any]]
_TEXTS: Final[tuple[_Row, ...]] = (
    ("upper(text) -> text", upper, "In capitals, character by character: ß stays, as in PostgreSQL.", ("upper('Aé')", "AÉ"), {}),
    ("lower(text) -> text", lower, "In small letters.", ("lower('AÉ')", "aé"), {}),
    ("initcap(text) -> text", initcap, "Every word with a capital.", ("initcap('new yORK')", "New York"), {"duckdb": "-"}),
    ("length(text) -> integer", len, "Number of characters.", ("length('häß')", "3"), {}),
    ("octet_length(text) -> integer", lambda text: len(text.encode()), "Number of bytes in UTF-8.", ("octet_length('hä')", "3"), {"duckdb": "strlen({0})"}),
    ("ltrim(text, text = ' ') -> text", lambda text, what: text.lstrip(what) if what else text, "Without these characters at the left.", ("ltrim('xxa', 'x')", "a"), {}),
    ("rtrim(text, text = ' ') -> text", lambda text, what: text.rstrip(what) if what else text, "Without these characters at the right.", ("rtrim('a  ')", "a"), {}),
    ("trim(text, text = ' ') -> text", lambda text, what: text.strip(what) if what else text, "Without these characters at both ends; also `trim(both 'x' from t)`.", ("trim('  a ')", "a"), {}),
    ("substring(text, integer) -> text", substring, "From a character on, counted from 1.", ("substring('orders', 3)", "ders"), {}),
    ("substring(text, integer, integer) -> text", substring, "So many characters from one on; also `substring(t from 2 for 3)`.", ("substring('orders', 2, 3)", "rde"), {}),
    ("left(text, integer) -> text", left, "The first characters; with a negative number all but the last.", ("left('orders', 2)", "or"), {}),
    ("right(text, integer) -> text", right, "The last characters; with a negative number all but the first.", ("right('orders', 2)", "rs"), {}),
    ("replace(text, text, text) -> text", replaced, "Every occurrence replaced.", ("replace('a-b-c', '-', '+')", "a+b+c"), {}),
    ("translate(text, text, text) -> text", translate, "Character by character replaced, or removed where there is none to replace it.", ("translate('12,5', ',', '.')", "12.5"), {}),
    ("position(text, text) -> integer", lambda text, what: text.find(what) + 1, "Where a text first stands in another, from 1; 0 when it does not: written `position('d' in t)`.", ("position('d' in 'orders')", "3"), {"duckdb": "strpos({0}, {1})"}),
    ("strpos(text, text) -> integer", lambda text, what: text.find(what) + 1, "The same.", ("strpos('orders', 'd')", "3"), {}),
    ("starts_with(text, text) -> boolean", str.startswith, "Whether it begins so.", ("starts_with('orders', 'or')", "true"), {"inline": "{0}.startswith({1})"}),
    ("ends_with(text, text) -> boolean", str.endswith, "Whether it ends so.", ("ends_with('orders', 'rs')", "true"), {"inline": "{0}.endswith({1})"}),
    ("contains(text, text) -> boolean", lambda text, what: what in text, "Whether it holds the other.", ("contains('orders', 'der')", "true"), {"inline": "({1} in {0})"}),
    ("repeat(text, integer) -> text", repeated, "Several times over.", ("repeat('ab', 3)", "ababab"), {}),
    ("reverse(text) -> text", lambda text: text[::-1], "From its end.", ("reverse('abc')", "cba"), {"inline": "{0}[::-1]", "duckdb": "-"}),
    ("lpad(text, integer, text = ' ') -> text", lpad, "Filled up at the left, or cut.", ("lpad('7', 3, '0')", "007"), {"duckdb": "lpad({0}, {1}::int, {2})"}),
    ("rpad(text, integer, text = ' ') -> text", rpad, "Filled up at the right, or cut.", ("rpad('7', 3, '0')", "700"), {"duckdb": "rpad({0}, {1}::int, {2})"}),
    ("split_part(text, text, integer) -> text", split_part, "The n-th part between separators, from the end when negative; empty when there is none.", ("split_part('a.b.c', '.', 2)", "b"), {"duckdb": "-"}),
    ("concat(text...) -> text", concat, "All joined; nulls are left out.", ("concat('a', null, 'b')", "ab"), {"strict": False}),
    ("concat_ws(text, text...) -> text", concat_ws, "All with a separator between; nulls are left out.", ("concat_ws('-', 'a', null, 'b')", "a-b"), {"strict": False, "total": False}),
    ("ascii(text) -> integer", lambda text: ord(text[0]) if text else 0, "Code point of the first character; 0 when there is none.", ("ascii('A')", "65"), {"duckdb": "(case when {0} = '' then 0 else unicode({0}) end)"}),
    ("chr(integer) -> text", chr_of, "The character of a code point.", ("chr(233)", "é"), {"duckdb": "-"}),
)  # fmt: skip
for _signature, _run, _said, _example, _more in _TEXTS:
    define(SECTION, _signature, _run, _said, _example, **_more)


def like_pattern(pattern: str, escape: str = "\\") -> list[str | None]:
    """Return the pieces of a LIKE pattern: text, `%`, or None for one character. Raises Failure."""
    pieces: list[str | None] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if escape and character == escape:
            at += 1
            if at == len(pattern):
                raise Failure("a LIKE pattern may not end with its escape character")
            pieces.append("=" + pattern[at])
        elif character == "_":
            pieces.append(None)
        else:
            pieces.append("%" if character == "%" else "=" + character)
        at += 1
    return pieces


def like_matcher(pattern: str, escape: str = "\\", *, fold: bool = False) -> Callable[[str], bool]:
    """Return what says whether a text is like the pattern."""
    pieces = like_pattern(lower(pattern) if fold else pattern, escape)
    inner = "".join(piece[1] for piece in pieces if piece is not None and piece != "%")
    if None not in pieces:
        marks = [at for at, piece in enumerate(pieces) if piece == "%"]
        simple = _simple(marks, len(pieces), inner)
        if simple is not None:
            return (lambda text: simple(lower(text))) if fold else simple
    expression = "".join(
        "(?s:.)" if piece is None else "(?s:.)*" if piece == "%" else _quoted(piece[1]) for piece in pieces
    )
    match = regex(expression.encode()).fullmatch
    return (
        (lambda text: match(lower(text).encode()) is not None)
        if fold
        else lambda text: match(text.encode()) is not None
    )


def _simple(marks: list[int], width: int, inner: str) -> Callable[[str], bool] | None:
    """Return a test without a regular expression, where the pattern is that plain."""
    if not marks:
        return lambda text: text == inner
    if marks == [width - 1]:
        return lambda text: text.startswith(inner)
    if marks == [0]:
        return lambda text: text.endswith(inner)
    if marks == [0, width - 1]:
        return lambda text: inner in text
    return None


def _quoted(character: str) -> str:
    return character if character.isalnum() or not character.isascii() else f"\\x{{{ord(character):x}}}"


@lru_cache(maxsize=256)
def regex(expression: str | bytes, flags: str = "") -> Any:
    """Return a compiled expression of RE2: linear in time whatever the input. Raises Failure.

    As bytes it searches UTF-8, with half the time in RE2's own wrapper, which counts characters in a text.
    """
    import re2  # noqa: PLC0415  a mapping without patterns does not wait for it

    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = "i" not in flags
    options.dot_nl = True
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        told = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error.args[0])
        msg = f"not a regular expression (RE2 syntax): {told}"
        raise Failure(msg) from error


def matches(expression: str, flags: str) -> Callable[[str], bool]:
    """Return what says whether a text holds a match."""
    search = regex(expression.encode(), _flags(flags, "i")).search
    return lambda text: search(text.encode()) is not None


def _flags(flags: str, known: str) -> str:
    if set(flags) - set(known):
        msg = f"flags are {' and '.join(known)}"
        raise Failure(msg)
    return flags


def extracted(expression: str, group: int) -> Callable[[str], str]:
    """Return what takes a group of the first match; empty when there is none."""
    compiled = _with_group(expression, group)

    def first(text: str) -> str:
        found = compiled.search(text)
        return (found[group] or "") if found is not None else ""

    return first


def found_part(expression: str, group: int) -> Callable[[str], str | None]:
    """Return what takes a group of the first match; null when there is none."""
    compiled = _with_group(expression, group)

    def first(text: str) -> str | None:
        found = compiled.search(text)
        return found[group] if found is not None else None

    return first


def _with_group(expression: str, group: int) -> Any:
    compiled = regex(expression)
    if not 0 <= group <= compiled.groups:
        msg = f"the expression has {compiled.groups} groups"
        raise Failure(msg)
    return compiled


def substituted(expression: str, template: str, flags: str) -> Callable[[str], str]:
    r"""Return what replaces the first match, every one with the flag g; `\1` stands for a group, `\0` for all."""
    compiled = regex(expression, _flags(flags, "gi").replace("g", ""))
    pieces = re.split(r"\\([0-9\\])", template)
    for at in range(1, len(pieces), 2):
        if pieces[at] != "\\" and int(pieces[at]) > compiled.groups:
            msg = f"the expression has {compiled.groups} groups"
            raise Failure(msg)
    most = 0 if "g" in flags else 1

    def replace(text: str) -> str:
        length = len(text)

        def expand(found: Any) -> str:
            nonlocal length
            made = "".join(
                piece if at % 2 == 0 else "\\" if piece == "\\" else found[int(piece)] or ""
                for at, piece in enumerate(pieces)
            )
            length += len(made) - len(found[0])
            bounded(length)
            return made

        made: str = compiled.sub(expand, text, most)
        return made

    return replace


_PATTERNS: Final[tuple[_Row, ...]] = (
    ("regexp_matches(text, pattern 'text, flags 'text = '') -> boolean", matches, "Whether it holds a match (RE2 syntax); `t ~ 'x'` is the same, `~*` without regard to case.", ("regexp_matches('order 17', '[0-9]+')", "true"), {}),
    ("regexp_extract(text, pattern 'text, group 'integer = 0) -> text", extracted, "A group of the first match; empty when there is none, as in DuckDB.", ("regexp_extract('order 17', '([a-z]+) ([0-9]+)', 2)", "17"), {}),
    ("regexp_substr(text, pattern 'text, group 'integer = 0) -> text", found_part, "A group of the first match; null when there is none, as in PostgreSQL.", ("regexp_substr('order 17', '[0-9]+')", "17"), {"total": False, "duckdb": "-"}),
    ("regexp_replace(text, pattern 'text, replacement 'text, flags 'text = '') -> text", substituted, "The first match replaced, every one with the flag `g`; `\\1` stands for a group.", ("regexp_replace('a1b22', '[0-9]+', '#', 'g')", "a#b#"), {}),
)  # fmt: skip
for _signature, _run, _said, _example, _more in _PATTERNS:
    define(PATTERNS, _signature, _run, _said, _example, **_more)
