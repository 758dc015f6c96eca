"""What the catalogue says of a table, and whether it says it of the table as a place in the log shows it.

With `binlog_row_metadata=FULL` the log lays rows out by itself, and the catalogue gives hints alone. Without, and on
MySQL 5.7, the columns are the catalogue's: that of now, which holds for the place only if no statement since then
altered the table. This is proved from the log between, read on a connection of its own; else the pipeline stops.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from cdcsync.errors import Fatal
from cdcsync.mysql import binlog, compressed, logs
from cdcsync.mysql.binlog import Framing
from cdcsync.mysql.catalogue import hints
from cdcsync.mysql.position import file_number
from cdcsync.mysql.query import effects
from cdcsync.mysql.types import FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.query import Name
    from cdcsync.mysql.stream import Stream
    from cdcsync.mysql.table_map import Layout
    from cdcsync.mysql.types import Hints

SCAN_WAIT_S: Final = 0.1
SLICE_S: Final = 0.25
"""How long one look through the log may hold up its reading."""
LOOK_AT: Final = 500
"""Events between two looks at the clock."""

Place = tuple[int, int]
"""A file's number and an offset in it."""


class Unproved(Exception):  # noqa: N818  no verdict yet
    """The log is still being looked through: ask the same again."""


class _Proof(NamedTuple):
    asked: tuple[str, str, str, int]
    """Database and table, file and offset."""
    hints: Hints
    scan: Generator[None, None, None]


class Schema:
    """The catalogue of the server whose log is read."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        dump: Callable[[Connection], Stream],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._dump = dump
        """Makes a dump, with a reader's number of its own, out of a connection."""
        self._clock = clock
        self._altered: list[tuple[Place, Name]] = []
        """Tables that statements altered, after the place where the first proof began."""
        self._scanned: tuple[Place, Place] | None = None
        """From where to where that was looked at."""
        self._proof: _Proof | None = None
        """What is being proved."""

    def look(self, schema: str, name: str) -> Hints | None:
        """Return what the catalogue says now."""
        with self._connect() as connection:
            return hints(connection, schema, name)

    def prove(self, layout: Layout, file: str, offset: int) -> Hints:
        """Return what the catalogue says, proved to hold for the log at that place. Raises Fatal when it is not.

        Looks for `SLICE_S` and raises Unproved where that is not enough: asked again it goes on.
        """
        asked = layout.schema, layout.name, file, offset
        if self._proof is None or self._proof.asked != asked:
            self.close()
            self._proof = self._begun(layout, asked)
        proof, until = self._proof, self._clock() + SLICE_S
        for _ in proof.scan:
            if self._clock() >= until:
                raise Unproved
        self._proof = None
        place, name = (file_number(file), offset), (layout.schema, layout.name)
        if any(at > place and altered == name for at, altered in self._altered):
            raise _unknown(layout, f"{file}:{offset}", "was altered since")
        return proof.hints

    def close(self) -> None:
        """Leave off what is being proved. Never raises."""
        proof, self._proof = self._proof, None
        if proof is not None:
            proof.scan.close()

    def _begun(self, layout: Layout, asked: tuple[str, str, str, int]) -> _Proof:
        _, _, file, offset = asked
        with self._connect() as connection:
            found = hints(connection, layout.schema, layout.name)
            end = logs.end(connection)
        if found is None:
            raise _unknown(layout, f"{file}:{offset}", "is gone since")
        return _Proof(asked, found, self._scan(file, offset, end.file, end.offset))

    def _scan(self, file: str, offset: int, end_file: str, end_offset: int) -> Generator[None, None, None]:
        """Note what statements alter, from a place up to the log's end, as far as that was not looked at."""
        start, end = (file_number(file), offset), (file_number(end_file), end_offset)
        here = start
        if self._scanned is not None and self._scanned[0] <= start:
            start = self._scanned[0]
            here = max(here, self._scanned[1])
            file = f"{file.rpartition('.')[0]}.{here[0]:06d}"
        if here >= end:
            return
        stream = self._dump(self._connect())
        try:
            stream.start_at(file, here[1])
            framing = Framing(file, here[1])
            count = 0
            while (file_number(framing.file), framing.offset) < end:
                event = stream.read()
                if event is None:
                    stream.wait(SCAN_WAIT_S)
                else:
                    self._note(framing, event)
                    count += 1
                if event is None or count % LOOK_AT == 0:
                    yield
        finally:
            stream.close()
        self._scanned = start, end

    def _note(self, framing: Framing, event: bytes) -> None:
        kind = framing.take(event)
        end = framing.end
        if kind == binlog.QUERY_COMPRESSED:
            event = compressed.query(event, end)
            kind, end = binlog.QUERY, len(event)
        if kind == binlog.QUERY and event[end - 5 : end] != b"BEGIN":
            place = file_number(framing.file), framing.began
            done = effects(binlog.query(event, binlog.HEADER, end))
            self._altered.extend((place, name) for name in done.altered)


def _unknown(layout: Layout, place: str, what: str) -> Fatal:
    msg = (
        f"the log does not describe {layout.schema}.{layout.name} at {place}, and the table {what}: which columns its "
        "rows have cannot be known"
    )
    hint = (
        f"{FULL}; on older servers alter tables only while the pipeline has no lag; what was logged before cannot be "
        "read any more: fill the target table anew, from a position after the statement"
    )
    return Fatal(msg, hint=hint)
