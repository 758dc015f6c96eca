"""The outbox router: an outbox table's inserts become messages, routed by one of its columns.

Source: Debezium's documentation, "Outbox Event Router", whose column names are the defaults.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from cdcsync.change import UNCHANGED, Operation
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.kafka.encoding.modes import Unfit

if TYPE_CHECKING:
    from cdcsync.change import Change, Table

_ROUTED: Final = frozenset({Operation.INSERT, Operation.READ})


class OutboxConfig(BaseModel):
    """An outbox table, and what its columns are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = "outbox"
    """The mapping's target: `schema.name`, or the name alone."""
    event_id: str = "id"
    """The column that becomes the header `id`, by which a consumer tells a message that comes again."""
    event_key: str = "aggregateid"
    """The column that becomes the key."""
    event_payload: str = "payload"
    """The column that becomes the value, to the byte; null is a tombstone."""
    route_by: str = "aggregatetype"
    """The column that chooses the topic."""
    topic: str = Field("outbox.event.{value}", pattern=r"\{value\}")
    """`{value}` is what `route_by` holds."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers by name, and the columns that they hold: `{eventType: type}`."""

    def is_of(self, table: Table) -> bool:
        """Return whether that is the outbox."""
        return self.table in {table.qualified, table.name}


class Routed(NamedTuple):
    """One message."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]


class Outbox:
    """Routes the rows of one table version."""

    def __init__(self, table: Table, config: OutboxConfig) -> None:
        """Raise Fatal naming the columns that are missing."""
        wanted = [config.event_id, config.event_key, config.event_payload, config.route_by, *config.headers.values()]
        missing = [name for name in wanted if name not in table.at]
        if missing:
            msg = f"outbox table {table.qualified} has no column {', '.join(dict.fromkeys(missing))}"
            hint = "name its columns under `outbox`: event_id, event_key, event_payload, route_by"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
        self._at = {name: table.at[name] for name in wanted}
        self._config = config

    def route(self, change: Change) -> Routed | None:
        """Return the message of an insert, None for a delete. Raises Unfit for an update."""
        if change.operation in {Operation.DELETE, Operation.TRUNCATE}:
            return None
        if change.operation not in _ROUTED or change.after is None:
            raise Unfit("a row of the outbox was updated: its message is sent already")
        config, row = self._config, change.after
        routed = row[self._at[config.route_by]]
        if routed is None or any(row[at] is UNCHANGED for at in self._at.values()):
            msg = f"column {config.route_by} is null, or a value was not logged: it goes to no topic"
            raise Unfit(msg)
        topic = re.sub(r"[^a-zA-Z0-9._-]", "_", config.topic.replace("{value}", str(routed)))
        headers = [("id", _bytes(row[self._at[config.event_id]]))]
        headers += [(name, _bytes(row[self._at[column]])) for name, column in config.headers.items()]
        key, value = row[self._at[config.event_key]], row[self._at[config.event_payload]]
        return Routed(topic, _bytes(key), _bytes(value), list(headers))


def _bytes(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else str(value).encode()
