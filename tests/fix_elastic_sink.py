"""An Elasticsearch sink as a test drives it: what it is given, what it said, what is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdcsync.change import Batch, Column, Table
from cdcsync.elastic.sink import ElasticSink
from cdcsync.evolution import Follows, Mode
from cdcsync.ports import SinkContext
from cdcsync.testing.conformance.samples import transaction
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fix_elastic import Cluster

    from cdcsync.change import Item, Position

LONG = Type(Kind.INTEGER, bits=64)
TEXT = Type(Kind.TEXT)
ITEMS = Table("", "items", (Column("id", LONG, nullable=False), Column("size", LONG), Column("note", TEXT)), ("id",))


@dataclass
class Ends:
    """A sink that is open, and how many transactions it was given."""

    sink: ElasticSink
    given: int = 0
    clock: list[float] = field(default_factory=lambda: [100.0])

    def batch(self, *items: Item, epoch: int = 1, at: int | None = None) -> Batch:
        """Return a batch of one transaction: the next, or the one of that number again."""
        if at is None:
            self.given += 1
            at = self.given
        only = transaction(at, items, epoch=epoch)
        return Batch((only,), only.position, len(items), len(items))

    def write(self, *items: Item, epoch: int = 1, at: int | None = None) -> Position | None:
        """Write one transaction."""
        return self.sink.write(self.batch(*items, epoch=epoch, at=at))


def ends(
    cluster: Cluster,
    tables: Sequence[Table] = (ITEMS,),
    *,
    pipeline: str = "p",
    url: str = "",
    mode: Mode = Mode.STOP,
    **options: Any,
) -> Ends:
    """Return a sink over these tables, not opened; `url` is a proxy's."""
    hosts = {"hosts": [url]} if url else {}
    made: list[float] = [100.0]
    clock: Callable[[], float] = lambda: made[0]  # noqa: E731  one value
    context = SinkContext(pipeline, Path("/nowhere"), tuple(tables), "memory:1", follows=lambda _table: Follows(mode))
    return Ends(ElasticSink(cluster.config(**{**options, **hosts}), context, clock=clock), clock=made)


def opened(cluster: Cluster, tables: Sequence[Table] = (ITEMS,), **options: Any) -> Ends:
    """Return a sink that is open."""
    made = ends(cluster, tables, **options)
    made.sink.open()
    return made
