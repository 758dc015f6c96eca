"""A history's rows by key: of each the latest version, or those that share its time."""

from __future__ import annotations

import pickle
import sqlite3
from itertools import groupby
from typing import TYPE_CHECKING, Final

from cdcsync.lines import encode_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cdcsync.change import Row, Table

DELETE: Final = "delete"
SECOND: Final = len("2026-11-23T10:30:45")
"""Characters of a time up to its second."""


class Latest(tuple[object, ...]):  # noqa: SLOT001  it carries the others
    """The latest version of a row; one transaction's versions share a time, and any of them may be the last."""

    versions: Sequence[Row]
    """All with that time, this one among them."""

    @property
    def is_deleted(self) -> bool:
        """Whether the row may be gone."""
        return any(version[-2] == DELETE for version in self.versions)

    @property
    def present(self) -> list[Row]:
        """The versions in which it is there."""
        return [version for version in self.versions if version[-2] != DELETE]


def latest(rows: Iterable[Row]) -> Latest:
    """Return the latest of the versions of one row; there is one at least.

    MariaDB's log has whole seconds, those of rows that were read have more: within such a second any may be the last.
    """
    every = sorted(rows, key=_time)
    newest = _time(every[-1])
    within = [row for row in every if _time(row)[:SECOND] == newest[:SECOND]]
    whole = any(_time(row).endswith(".000000") for row in within)
    last = within if whole else [row for row in within if _time(row) == newest]
    there = [row for row in last if row[-2] != DELETE]
    made = Latest((there or last)[-1])
    made.versions = last
    return made


def by_key(table: Table, rows: Iterable[Row]) -> dict[str, Latest]:
    """Return the latest of each key, by the key's text."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(encode_key(table, row) or "", []).append(row)
    return {key: latest(group) for key, group in groups.items()}


def sorted_latest(table: Table, rows: Iterator[Row]) -> Iterator[tuple[str, Row]]:
    """Sort a history by the text of its key in a temporary file; give the latest of each."""
    connection = sqlite3.connect("")
    connection.execute("CREATE TABLE rows (key TEXT, time TEXT, row BLOB)")
    try:
        connection.executemany(
            "INSERT INTO rows VALUES (?, ?, ?)",
            ((encode_key(table, row), _time(row), pickle.dumps(row)) for row in rows),
        )
        connection.execute("CREATE INDEX by_key ON rows (key, time DESC)")
        found = connection.execute("SELECT key, time, row FROM rows ORDER BY key, time DESC")
        for key, group in groupby(found, key=lambda each: str(each[0])):
            yield key, latest(_last_of(group))
    finally:
        connection.close()


def _last_of(group: Iterator[tuple[str, str, bytes]]) -> Iterator[Row]:
    """Yield the versions of the second of the first."""
    last = ""
    for _, time, row in group:
        if last and time[:SECOND] != last:
            return
        last = time[:SECOND]
        yield pickle.loads(row)  # noqa: S301  written above


def _time(row: Row) -> str:
    """Return a version's time in a form that sorts."""
    whole, _, fraction = str(row[-1]).removesuffix("Z").partition(".")
    return f"{whole}.{fraction.ljust(6, '0')}"
