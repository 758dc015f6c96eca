"""Opens a message's key or value: JSON as it is, or wrapped with its Kafka Connect schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson

from cdcsync.kafka.decoding.records import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_START: Final = b'{"schema":'
_PAYLOAD: Final = b'"payload":'
SCHEMAS_MAX: Final = 1000
"""Schemas remembered by their text; a topic has a few."""


class Opened(NamedTuple):
    """What was in a message."""

    payload: Any
    schema: Mapping[str, Any] | None
    """Its Connect schema, the same object for the same text; None when the message has none."""


class Opener(Protocol):
    """Opens messages of one topic."""

    def open(self, data: bytes) -> Opened:
        """Return what is in it. Raises Malformed."""
        ...


class Json:
    """JSON, with or without its schema.

    A schema is longer than its row, and the same in message after message: what begins with a text that is known
    is read from its payload on.
    """

    def __init__(self, loads: Callable[[bytes], Any] = orjson.loads) -> None:
        self._loads = loads
        self._begin = b"\0"
        self._schema: Mapping[str, Any] | None = None
        self._known: dict[bytes, Mapping[str, Any] | None] = {}

    def open(self, data: bytes) -> Opened:
        """Return payload and schema."""
        try:
            if data.startswith(self._begin):
                return Opened(self._loads(data[len(self._begin) : -1]), self._schema)
            if not data.startswith(_START):
                return self._unwrapped(self._loads(data))
            return self._wrapped(data)
        except (ValueError, RecursionError) as error:
            raise Malformed("it is not JSON") from error

    def _unwrapped(self, value: Any) -> Opened:
        if (
            isinstance(value, dict)
            and len(value) == len(("schema", "payload"))
            and "schema" in value
            and "payload" in value
        ):
            return Opened(value["payload"], value["schema"])
        return Opened(value, None)

    def _wrapped(self, data: bytes) -> Opened:
        at = data.find(_PAYLOAD)
        begin = data[: at + len(_PAYLOAD)]
        if at >= 0 and begin in self._known:
            self._begin, self._schema = begin, self._known[begin]
            return Opened(self._loads(data[len(begin) : -1]), self._schema)
        found = self._unwrapped(self._loads(data))
        if at >= 0 and data.endswith(b"}") and self._is_payload(data[len(begin) : -1], found.payload):
            if len(self._known) >= SCHEMAS_MAX:
                self._known.clear()
            self._known[begin] = found.schema
            self._begin, self._schema = begin, found.schema
        return found

    def _is_payload(self, text: bytes, payload: Any) -> bool:
        try:
            return bool(self._loads(text) == payload)
        except ValueError:
            return False


def fields_in(payload: Any, what: str) -> dict[str, Any]:
    """Return an object's fields. Raises Malformed when it is none."""
    if not isinstance(payload, dict):
        msg = f"its {what} is no JSON object"
        raise Malformed(msg)
    return payload
