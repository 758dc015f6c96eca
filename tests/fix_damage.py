"""A binlog file damaged on purpose: one event found, its bytes changed, and put back."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdcsync.testing.mysql_servers import MysqlServer

HEADER = 19
TYPE_AT, SIZE_AT = 4, 9


@dataclass(frozen=True)
class Event:
    """One event of a file."""

    file: str
    offset: int
    size: int

    @property
    def place(self) -> str:
        """As messages have it."""
        return f"{self.file}:{self.offset}"


def last_event(server: MysqlServer, kind: str) -> Event:
    """Return the last event of a kind, as SHOW BINLOG EVENTS names it, in the server's last file."""
    file = server.binlogs()[-1]
    rows = [row for row in server.query(f"SHOW BINLOG EVENTS IN '{file}'") if row[2] == kind]
    return Event(file, rows[-1][1], rows[-1][4] - rows[-1][1])


@contextlib.contextmanager
def damaged(
    server: MysqlServer, event: Event, change: Callable[[bytearray], None], *, sealed: bool = True
) -> Iterator[None]:
    """Change an event's bytes in the file while the block runs; `sealed`: with a checksum that fits them."""
    path = server.data / event.file
    before = path.read_bytes()[event.offset : event.offset + event.size]
    after = bytearray(before)
    change(after)
    if sealed:
        after[-4:] = zlib.crc32(after[:-4]).to_bytes(4, "little")
    _write(server, event, bytes(after))
    try:
        yield
    finally:
        _write(server, event, before)


def _write(server: MysqlServer, event: Event, data: bytes) -> None:
    with (server.data / event.file).open("r+b") as file:
        file.seek(event.offset)
        file.write(data)
