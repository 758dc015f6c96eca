"""What a decoder is given, and what it says of a message that is none of its format."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Item


class Record(NamedTuple):
    """One record of a topic."""

    topic: str
    partition: int
    offset: int
    time_us: int
    """The record's own time, microseconds since 1970 UTC."""
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> str:
        """For messages: `topic-partition@offset`."""
        return f"{self.topic}-{self.partition}@{self.offset}"


class Decoded(NamedTuple):
    """What a record holds."""

    items: Sequence[Item]
    time_us: int
    """When it was committed at its source, else the record's time."""
    transaction: str = ""
    """The source transaction's name, where the message has one."""


class Malformed(ValueError):  # noqa: N818  a finding that the source turns into a rejected item
    """A message is not what its format says; the text says what is wrong, and holds no value of it."""


class Unregistered(Malformed):
    """The registry does not have the schema of a message."""


class Decoder(Protocol):
    """Turns the records of one topic into items."""

    def decode(self, record: Record) -> Decoded:
        """Return what the record holds. Raises Malformed."""
        ...


def table_of_topic(topic: str) -> tuple[str, str]:
    """Return schema and name of the table that a topic is: what stands before and after its last dot."""
    schema, _, name = topic.rpartition(".")
    return schema, name
