"""Rows on disk while they are compared: counts of rows without a key, and rows sorted by a key with no shared order."""

from __future__ import annotations

import pickle
import sqlite3
import tempfile
from typing import TYPE_CHECKING, Self

from cdcsync.lines import encode_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cdcsync.change import Row, Table


class Bags:
    """Counts of row digests in a temporary file, so that memory stays bounded."""

    def __enter__(self) -> Self:
        """Make the file."""
        self._connection = sqlite3.connect("")
        columns = (
            "before INTEGER NOT NULL DEFAULT 0, there INTEGER NOT NULL DEFAULT 0, after INTEGER NOT NULL DEFAULT 0"
        )
        self._connection.execute(f"CREATE TABLE counts (digest BLOB PRIMARY KEY, {columns}) WITHOUT ROWID")
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._connection.close()

    def count(self, column: str, digests: Iterator[bytes]) -> None:
        """Set the column ("before", "there" or "after") to how often each digest comes."""
        self._connection.execute(f"UPDATE counts SET {column} = 0")  # noqa: S608  one of three words
        self._connection.executemany(
            f"INSERT INTO counts (digest, {column}) VALUES (?, 1) "  # noqa: S608  one of three words
            f"ON CONFLICT (digest) DO UPDATE SET {column} = {column} + 1",
            ((digest,) for digest in digests),
        )

    def are_equal(self) -> bool:
        """Return whether what is there is what was before."""
        return self._connection.execute("SELECT 1 FROM counts WHERE before <> there LIMIT 1").fetchone() is None

    def differences(self) -> tuple[int, int]:
        """Return how many rows are missing since before, and how many are there that are not even there after."""
        query = "SELECT total(max(before - there, 0)), total(max(there - after, 0)) FROM counts"
        missing, extra = self._connection.execute(query).fetchone()
        return int(missing), int(extra)


def sorted_rows(table: Table, rows: Iterator[Row]) -> Iterator[tuple[str, Row]]:
    """Sort rows by the text of their key in a temporary file."""
    with tempfile.TemporaryDirectory(prefix="cdcsync-verify-") as folder:
        connection = sqlite3.connect(f"{folder}/rows.db")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, row BLOB) WITHOUT ROWID")
        try:
            connection.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?)",
                ((encode_key(table, row), pickle.dumps(row)) for row in rows),
            )
            for key, row in connection.execute("SELECT key, row FROM rows ORDER BY key"):
                yield key, pickle.loads(row)  # noqa: S301  written above
        finally:
            connection.close()


class Origins:
    """Which row of the source became which row of the target, where the target's key does not say; on disk."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("")
        self._connection.execute("CREATE TABLE origins (key TEXT PRIMARY KEY, origin BLOB) WITHOUT ROWID")

    def put(self, key: str, origin: Row) -> None:
        """Note the source's key of a target's."""
        self._connection.execute("INSERT OR REPLACE INTO origins VALUES (?, ?)", (key, pickle.dumps(origin)))

    def of(self, keys: Iterable[str]) -> list[Row]:
        """Return the source's keys of those of the target's that are known."""
        query = "SELECT origin FROM origins WHERE key = ?"
        found = (self._connection.execute(query, (key,)).fetchone() for key in keys)
        return [pickle.loads(row[0]) for row in found if row is not None]  # noqa: S301  written above

    def close(self) -> None:
        """Remove the file."""
        self._connection.close()
