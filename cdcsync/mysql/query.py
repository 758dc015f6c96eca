"""What a statement in the log does to tables, told from its words; never by a grammar, so that none stops the daemon."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.mysql.binlog import Query

Name = tuple[str, str]
"""Database and table."""


class _Token(NamedTuple):
    """A word of a statement."""

    text: str
    kind: str
    """w word, q quoted name, s string, p anything else."""

    def says(self, *words: str) -> bool:
        """Return whether it is one of these keywords, in upper case."""
        return self.kind == "w" and self.text.upper() in words


@dataclass(frozen=True, slots=True)
class Effects:
    """What a statement does; empty when it does nothing to tables."""

    altered: tuple[Name, ...] = ()
    """Tables whose columns may be others after it."""
    gone: tuple[Name, ...] = ()
    """Dropped, or renamed away."""
    renamed: tuple[tuple[Name, Name], ...] = ()
    """Old and new name."""
    truncated: tuple[Name, ...] = ()
    unlogged: str = ""
    """Words that change rows of `altered` without logging them: DROP PARTITION."""
    database_gone: str = ""
    rows: bool = False
    """It changes rows by itself: logged as a statement."""
    columns: tuple[tuple[str, str], ...] = ()
    """Old and new names of columns that it renames, of the one table in `altered`."""
    created: tuple[Name, ...] = ()
    opens: bool = False
    """Rows follow: CREATE TABLE ... START TRANSACTION."""


NOTHING: Final = Effects()
_DML: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "DO", "SELECT", "WITH", "VALUES"})
_HARMLESS: Final = frozenset(
    {
        "GRANT", "REVOKE", "FLUSH", "ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "CHECKSUM", "SAVEPOINT", "RELEASE", "COMMIT",
        "ROLLBACK", "BEGIN", "START", "XA", "INSTALL", "UNINSTALL", "CACHE", "RESET", "KILL", "LOCK", "UNLOCK", "BINLOG",
        "HANDLER", "USE", "SET", "SHUTDOWN", "PURGE", "CHANGE", "SIGNAL", "BACKUP", "IMPORT",
    }
)  # fmt: skip
_SILENT: Final = frozenset(
    {
        *((word, "PARTITION") for word in ("DROP", "TRUNCATE", "EXCHANGE", "CONVERT", "DISCARD", "IMPORT")),
        *((word, "TABLESPACE") for word in ("DISCARD", "IMPORT")),
        ("CONVERT", "TABLE"),
    }
)
"""Words of ALTER TABLE that change rows without logging them."""

_HEAD: Final = r"\s+|--(?:[\s\x00-\x1f][^\n]*)?(?:\n|\Z)|\#[^\n]*|/\*(?!M?!).*?(?:\*/|\Z)|/\*M?!\d*|\*/"
_WORDS: Final = r"(?P<w>[\w$\u0080-\uffff]+)|(?P<q>`(?:[^`]|``)*`)"


def _lexer(*, ansi_quotes: bool, no_escapes: bool) -> re.Pattern[str]:
    double, single = (rf"{mark}(?:[^{mark}\\]|\\.|{mark}{mark})*{mark}" for mark in "\"'")
    if no_escapes:
        double, single = (rf"{mark}(?:[^{mark}]|{mark}{mark})*{mark}" for mark in "\"'")
    names, strings = (r'|(?P<n>"(?:[^"]|"")*")', single) if ansi_quotes else ("", f"{double}|{single}")
    return re.compile(rf"(?P<skip>{_HEAD})|{_WORDS}{names}|(?P<s>{strings})|(?P<p>.)", re.DOTALL)


_LEXERS: Final = {
    (ansi, plain): _lexer(ansi_quotes=ansi, no_escapes=plain) for ansi in (False, True) for plain in (False, True)
}


def tokens(query: Query) -> Iterator[_Token]:
    """Yield the words of a statement, without comments; what MySQL runs inside of a comment is among them."""
    for match in _LEXERS[query.ansi_quotes, query.no_escapes].finditer(query.text):
        kind = match.lastgroup or "p"
        if kind == "skip":
            continue
        text = match[0]
        if kind in "qn":
            yield _Token(text[1:-1].replace(text[0] * 2, text[0]), "q")
        else:
            yield _Token(text, kind)


def effects(query: Query) -> Effects:
    """Return what the statement does to tables."""
    coming = tokens(query)
    head = next((token for token in coming if token.text != "("), _Token("", "p"))
    first = head.text.upper() if head.kind == "w" else ""
    if first in _DML or (first == "SET" and next(coming, head).says("STATEMENT")):
        return Effects(rows=True)
    if first in _HARMLESS or not first:
        return NOTHING
    words = _Words(list(coming), query.database)
    if first == "TRUNCATE":
        words.skip("TABLE")
        return Effects(truncated=tuple(words.names(1)))
    if first == "RENAME":
        return _rename(words) if words.skip("TABLE", "TABLES") else NOTHING
    if first == "DROP":
        return _drop(words)
    if first == "ALTER":
        return _alter(words)
    if first == "CREATE":
        return _create(words)
    return Effects(rows=True)


class _Words:
    """Reads a statement's words in order."""

    def __init__(self, found: list[_Token], database: str) -> None:
        self._found = found
        self._at = 0
        self._database = database

    def peek(self) -> _Token:
        """Return the next word, an empty one at the end."""
        return self._found[self._at] if self._at < len(self._found) else _Token("", "p")

    def skip(self, *words: str) -> bool:
        """Pass over words as long as they are among these; return whether there was one."""
        before = self._at
        while self.peek().says(*words):
            self._at += 1
        return self._at > before

    def skip_mark(self, mark: str) -> bool:
        """Pass over a comma or the like; return whether there was one."""
        there = self.peek() == _Token(mark, "p")
        self._at += there
        return there

    def name(self) -> Name | None:
        """Take a table's name."""
        first = self.peek()
        if first.kind not in {"w", "q"}:
            return None
        self._at += 1
        if not self.skip_mark("."):
            return self._database, first.text
        second = self.peek()
        self._at += 1
        return first.text, second.text

    def names(self, most: int = 1 << 30) -> Iterator[Name]:
        """Take names with commas between them."""
        for _ in range(most):
            found = self.name()
            if found is None:
                return
            yield found
            if not self.skip_mark(","):
                return

    def rest(self) -> list[_Token]:
        """Return what is left."""
        return self._found[self._at :]

    def after(self, index: int) -> _Words:
        """Return a reader of what is left, from an index on."""
        return _Words(self.rest()[index:], self._database)


def _rename(words: _Words) -> Effects:
    words.skip("IF", "EXISTS")
    pairs: list[tuple[Name, Name]] = []
    while (old := words.name()) is not None:
        words.skip("WAIT", "NOWAIT")
        if not words.skip("TO"):
            break
        new = words.name()
        if new is None:
            break
        pairs.append((old, new))
        if not words.skip_mark(","):
            break
    return _moved(pairs)


def _moved(pairs: list[tuple[Name, Name]]) -> Effects:
    """Return the effects of renames that happen one after another."""
    old, new = tuple(each for each, _ in pairs), tuple(each for _, each in pairs)
    return Effects(altered=old + new, gone=old, renamed=tuple(pairs))


def _drop(words: _Words) -> Effects:
    if words.skip("DATABASE", "SCHEMA"):
        words.skip("IF", "EXISTS")
        name = words.peek().text
        return Effects(database_gone=name)
    if words.skip("TEMPORARY"):
        return NOTHING
    if not words.skip("TABLE", "TABLES"):
        return NOTHING
    words.skip("IF", "EXISTS")
    found = tuple(words.names())
    return Effects(altered=found, gone=found)


def _alter(words: _Words) -> Effects:
    words.skip("ONLINE", "OFFLINE", "IGNORE")
    if not words.skip("TABLE"):
        return NOTHING
    words.skip("IF", "EXISTS")
    name = words.name()
    if name is None:
        return NOTHING
    made = Effects(altered=(name,))
    rest = words.rest()
    for index, token in enumerate(rest):
        following = rest[index + 1] if index + 1 < len(rest) else _Token("", "p")
        made = replace(made, columns=(*made.columns, *_renamed_column(rest[index : index + 7])))
        if token.kind == following.kind == "w" and (token.text.upper(), following.text.upper()) in _SILENT:
            made = replace(made, unlogged=f"{token.text} {following.text}".upper())
        elif token.says("WITH", "CONVERT") and following.says("TABLE"):
            made = replace(made, altered=(*made.altered, *words.after(index + 2).names(1)))
        elif token.says("RENAME") and not following.says("COLUMN", "INDEX", "KEY"):
            target = words.after(index + 1)
            target.skip("TO", "AS")
            target.skip_mark("=")
            new = target.name()
            if new is not None:
                return replace(_moved([(name, new)]), unlogged=made.unlogged)
    return made


def _renamed_column(words: list[_Token]) -> Iterator[tuple[str, str]]:
    """Yield old and new name where RENAME COLUMN old TO new, or CHANGE COLUMN old new, stands at the front."""
    found = [word for word in words[1:] if not word.says("COLUMN", "IF", "EXISTS", "TO")]
    renames = words[0].says("RENAME") and len(words) > 1 and words[1].says("COLUMN")
    if not (renames or words[0].says("CHANGE")) or len(found) < 2:  # noqa: PLR2004  two names
        return
    old, new = found[:2]
    if old.kind in {"w", "q"} and new.kind in {"w", "q"} and old.text != new.text:
        yield old.text, new.text


def _create(words: _Words) -> Effects:
    replaced = words.skip("OR", "REPLACE")
    if words.skip("TEMPORARY"):
        return NOTHING
    if not words.skip("TABLE"):
        return NOTHING
    words.skip("IF", "NOT", "EXISTS")
    name = words.name()
    if name is None:
        return NOTHING
    rest = words.rest()
    return Effects(
        altered=(name,),
        gone=(name,) if replaced else (),
        created=(name,),
        rows=any(token.says("SELECT") for token in rest),
        opens=[token.text.upper() for token in rest[-2:]] == ["START", "TRANSACTION"],
    )
