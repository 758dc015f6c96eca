"""Connectors: every system, built in or third party, comes by the entry points of one group."""

from __future__ import annotations

import difflib
import enum
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cdcsync.errors import ExitStatus, Fatal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from pydantic import BaseModel

    from cdcsync.change import Position, Row, Table
    from cdcsync.ports import Group, Guarantee, PositionStore, Sink, SinkContext, Source, SourceContext, Stored
    from cdcsync.redo import Dialect

GROUP = "cdcsync.connectors"

SQL_AGAIN = (
    "the target passes through older states and is right again once it has caught up. On the way a change can be "
    "rejected: a unique value that another row has by now, a partial change of a row that is gone by now"
)
"""`SinkSpec.again` of the sinks that write rows by SQL."""


class Severity(enum.StrEnum):
    """How much a finding of `check` matters."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `check` looked at."""

    severity: Severity
    subject: str
    """What was looked at: "wal_level", "table shop.orders"."""
    message: str
    remedy: str | None = None
    """The exact SQL or line of configuration that mends it."""


ALTERED: Final = "is altered"
"""Reason of what is planned for a target that follows its table."""


class Planned(NamedTuple):
    """One thing that the next run does to a target."""

    target: str
    reason: str
    """What becomes of the target: "is created"."""
    statement: str
    """In the target's own language; empty where nothing but a person's work helps."""


class Cut(NamedTuple):
    """A range of keys, and what a server's hash of its rows is."""

    rows: int
    digest: str
    last: Row | None
    """The last key in the range; None when it goes on to the end of the table."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges of rows hashed at the server, for `verify`: from after one key up to another, None being no bound."""

    form: str
    """Equal hashes mean equal rows at two ends of one form."""
    takes: Callable[[Table], bool]
    """Whether ranges of this table can be asked for; else it is scanned."""
    cut: Callable[[Table, Row | None, int], Cut]
    """Hash the range of at most so many rows after a key."""
    digest: Callable[[Table, Row | None, Row | None], str]
    """Hash the rows of a range."""
    rows: Callable[[Table, Row | None, Row | None], list[Row]]
    """The rows of a range, by key."""


@dataclass(frozen=True, slots=True)
class Scanner:
    """Reads rows beside the stream, in an order that every system shares; for `verify`."""

    scan: Callable[[Table], Iterator[Row]]
    """All rows of one snapshot, by key: integers by value, text, enum and uuid by their bytes, others in any order."""
    read: Callable[[Table, Iterable[Row]], list[Row]]
    """The rows that have one of these keys, in any order."""
    end: Callable[[], Any]
    """Source: what tells whether an encoded position has passed all that `scan` and `read` have seen until now.
    Sink: the encoded position committed with the rows, None when it keeps none."""
    close: Callable[[], None]
    ranges: Ranges | None = None
    """Where the server can hash."""
    by_value: Callable[[Table], Collection[str]] | None = None
    """Sink: the columns that keep JSON by its value, not by its text."""


class Reach(NamedTuple):
    """How far a log can be read again."""

    first: str
    """The encoded position from which on all is there."""
    last: str
    """The encoded position of its end now."""
    words: str
    """What keeps it, for a person."""


@dataclass(frozen=True, slots=True)
class Log:
    """Reads a log again, beside the pipeline: for `replay` and `tail --from`."""

    make: Callable[[Any, SourceContext], Source]
    """A source on connections of its own, which opens at any position within the reach, leaves nothing behind and
    moves nothing of the pipeline's."""
    reach: Callable[[Any, SourceContext], Reach]
    """Raises Fatal when nothing can be read again."""
    at_time: Callable[[Any, SourceContext, int], str] | None = None
    """The encoded position before the first transaction committed at a time (microseconds since 1970 UTC) or later;
    raises Fatal when the log may be gone from there on, or nothing was committed since. Absent: the log has no index by
    time, and is read from its first position."""
    placed: Callable[[Any, SourceContext, Position], str] | None = None
    """The same place, encoded as the log's own reading names it, so that positions can be compared; absent: it is."""
    go_back: Callable[[Any, SourceContext, Position], list[str]] | None = None
    """Let the pipeline itself be opened at a position within the reach; return what was done, a line each. Absent:
    nothing has to be done. Whenever it is cut short, it can be done again."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Shares a source's lanes among the processes of a pipeline; each lane has a position of its own."""

    group: Callable[[Any, SourceContext], Group | None]
    """What gives the lanes out; None when this process has the source alone."""
    lanes: Callable[[Any, SourceContext], list[str]]
    """The lanes that there are now, by name. Raises Transient and Fatal."""
    part: Callable[[Any, str], Position | None]
    """A lane's part of a position; None where it has none."""
    whole: Callable[[Sequence[str]], str]
    """The positions of lanes as one, encoded."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """How to make and look after a source. `config` is the section's validated model."""

    config: type[BaseModel]
    make: Callable[[Any, SourceContext], Source]
    decode: Callable[[str], Position]
    identity: Callable[[Any, SourceContext], str]
    tables: Callable[[Any, SourceContext], list[Table]]
    """The tables that the mapping selects, as the log will show them, from the catalogue."""
    check: Callable[[Any, SourceContext], list[Finding]]
    drop: Callable[[Any, SourceContext], list[str]]
    """Remove what the pipeline keeps at the server; return what was removed, a line each."""
    tail: Callable[[Any, SourceContext], Source] | None = None
    """A source that leaves nothing behind and starts at the end of the log."""
    scanner: Callable[[Any, SourceContext], Scanner] | None = None
    look: Callable[[Any, SourceContext], tuple[str, list[Table]]] | None = None
    """Identity and tables at once, where that is cheaper: each start asks for both."""
    stored: Callable[[Any, SourceContext, str], str] | None = None
    """Turn a word for a place in the log into an encoded position that the server can be read from; raises Fatal."""
    judge: Callable[[Any, SourceContext, str], list[Finding]] | None = None
    """Look whether the server can still be read on from an encoded position, and for how long, for `check`."""
    moves: bool = False
    """Whether its identity is another after a failover: its positions say themselves whose they are."""
    late: bool = False
    """Whether tables are known when their first change comes: an entry may name one that nobody has seen."""
    sharing: Sharing | None = None
    """Where several processes may share the source."""
    log: Log | None = None
    dialect: Dialect | None = None
    """How the source writes a change as SQL."""
    whole: Callable[[Any, SourceContext], Callable[[Table], bool]] | None = None
    """What tells whether the log has all of a table's rows before, where that can be asked."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a target's tables and columns may be called."""

    longest: int
    in_bytes: bool = False
    """Whether the bound is on UTF-8's bytes, not on characters."""
    folds: bool = False
    """Whether column names that differ in capitals alone are one."""

    def length(self, name: str) -> int:
        """Return what the bound is on."""
        return len(name.encode()) if self.in_bytes else len(name)

    def too_long(self, name: str) -> str:
        """Return how long the name is, and may be, in words."""
        return f"{self.length(name)} {'bytes' if self.in_bytes else 'characters'} long; the target takes {self.longest}"


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """How to make and look after a sink."""

    config: type[BaseModel]
    make: Callable[[Any, SinkContext], Sink]
    guarantee: Callable[[Any], Guarantee]
    identity: Callable[[Any], str]
    """Of the target server and database, comparable with a source's; for refusing circles."""
    check: Callable[[Any, SinkContext], list[Finding]]
    scanner: Callable[[Any, SinkContext], Scanner] | None = None
    names: Names | None = None
    """What its tables and columns may be called; None: anything."""
    home: Callable[[Any, str, Table], tuple[str, str]] | None = None
    """Schema and name by which a source of the same system knows a target, by section and pipeline; absent: its own."""
    lone: bool = False
    """Whether only one lane can be written: a file that is cut back to the one position it has."""
    messages: bool = False
    """Whether it sends messages with keys: `message_key` in the mapping."""
    places: bool = False
    """Whether it makes topics or indexes as rows come: `to: {by: ...}` without `tables` in the mapping."""
    again: str = "the target gets the changes again"
    """What it means for what is in the target when the pipeline goes back and delivers changes again."""
    plan: Callable[[Any, SinkContext], list[Planned]] | None = None
    """What the next run does to its targets, changing nothing; absent: it makes and alters none."""
    obstacles: Callable[[Any, SinkContext, Sequence[Table]], list[str]] | None = None
    """Why these targets cannot be built anew beside themselves, a line each; absent: its sink is no `Rebuilder`."""


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """How to make a position store; for a sink that keeps its position, the same store as the sink's."""

    config: type[BaseModel]
    make: Callable[[Any, SinkContext], PositionStore]
    clear: Callable[[Any, SinkContext], bool]
    """Forget the pipeline's position; return whether there was one."""
    put: Callable[[Any, SinkContext, Position], None]
    """`positions set`: store this position with a new fence, under the lock."""
    look: Callable[[Any, SinkContext], Stored | None] | None = None
    """Return what is stored, without lock or fence, changing nothing; absent: by `open` and `load`."""


@dataclass(frozen=True, slots=True)
class Connector:
    """One system."""

    name: str
    schemes: tuple[str, ...] = ()
    """URL schemes, the first being the usual one."""
    from_url: Callable[[str], dict[str, Any]] | None = None
    """A URL as the mapping that its section of the file would hold."""
    source: SourceSpec | None = None
    sink: SinkSpec | None = None
    store: StoreSpec | None = None


def names() -> dict[str, EntryPoint]:
    """Return every installed connector's entry point by name; loads none."""
    return _names(tuple(sys.path))


@cache
def _names(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Look once per path: every installed package's metadata is read."""
    return {point.name: point for point in sorted(entry_points(group=GROUP))}


def load(name: str) -> Connector:
    """Import one connector. Raises Fatal when there is none of that name or its client is not installed."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        msg = f"no connector is named {name!r}"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    try:
        connector = known[name].load()
    except ImportError as error:
        msg = f"connector {name!r} cannot be imported: {error}"
        raise Fatal(msg, hint=f"pip install 'cdcsync[{name}]'", status=ExitStatus.CONFIG) from error
    if not isinstance(connector, Connector):
        msg = f"entry point {name!r} in {GROUP} is not a Connector"
        raise Fatal(msg, hint="report it to the package that registers it", status=ExitStatus.CONFIG)
    return connector
