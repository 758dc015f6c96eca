"""Several requests under way at once, by channels of the `_id`: what concerns one document is never out of order."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.elastic.bulk import Action
    from cdcsync.elastic.config import Bulk as Bounds
    from cdcsync.folding import Ref

ACTIONS_MIN: Final = 250
"""Fewer are not worth a request of their own."""


class Channels:
    """A channel has one request under way and one that is filled. One thread fills them."""

    def __init__(self, send: Callable[[list[Action]], dict[Ref, str]], bounds: Bounds) -> None:
        self._send = send
        self._bounds = bounds
        self._pool = ThreadPoolExecutor(bounds.in_flight, thread_name_prefix="bulk")
        self._channels = [_Channel() for _ in range(bounds.in_flight)]
        self._count = 1
        self._reasons: dict[Ref, str] = {}

    def begin(self, actions: int) -> None:
        """Say how many actions come until `finish`."""
        self._count = max(1, min(len(self._channels), actions // ACTIONS_MIN))

    def put(self, document_id: str, action: Action) -> None:
        """Add an action, sending what is full. Raises what sending raised."""
        at = crc32(document_id.encode()) % self._count if self._count > 1 else 0
        channel = self._channels[at]
        channel.actions.append(action)
        channel.size_bytes += len(action.text)
        if len(channel.actions) >= self._bounds.actions_max or channel.size_bytes >= self._bounds.bytes_max:
            self._launch(channel)

    def finish(self) -> dict[Ref, str]:
        """Send all and wait; return why some were refused. Raises what sending raised, when nothing is under way."""
        busy = [channel for channel in self._channels if channel.actions]
        if len(busy) == 1 and not any(channel.running for channel in self._channels):
            (only,) = busy
            self._reasons.update(self._send(only.taken()))
        for channel in self._channels:
            if channel.actions:
                self._launch(channel)
        for channel in self._channels:
            self._await(channel)
        reasons, self._reasons = self._reasons, {}
        return reasons

    def abandon(self) -> None:
        """Forget what is filled, and wait for what is under way."""
        self._reasons = {}
        for channel in self._channels:
            channel.taken()
            if channel.running is not None:
                channel.running.exception()
                channel.running = None

    def close(self) -> None:
        """Wait for what is under way; nothing is sent any more."""
        self._pool.shutdown()

    def _launch(self, channel: _Channel) -> None:
        self._await(channel)
        channel.running = self._pool.submit(self._send, channel.taken())

    def _await(self, channel: _Channel) -> None:
        if channel.running is not None:
            running, channel.running = channel.running, None
            self._reasons.update(running.result())


class _Channel:
    """One of them."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.size_bytes = 0
        self.running: Future[dict[Ref, str]] | None = None

    def taken(self) -> list[Action]:
        """Return what is filled, and begin anew."""
        actions, self.actions, self.size_bytes = self.actions, [], 0
        return actions
