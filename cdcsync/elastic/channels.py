"""Several requests under way at once, by channels of the `_id`: what concerns one document is never out of order."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.elastic.addressed import Action
    from cdcsync.elastic.config import Bulk as Bounds
    from cdcsync.folding import Ref

ACTIONS_MIN: Final = 250
"""Fewer are not worth a request of their own."""
AHEAD: Final = 2
"""How many requests of each channel there may be, the one under way among them."""
LOOK_S: Final = 0.2


class Outcome(NamedTuple):
    """What is known of the batches that were put."""

    done: int
    """All batches up to this number are answered for."""
    reasons: dict[int, dict[Ref, str]]
    """Why changes were refused, by batch."""


class Channels:
    """Each channel sends what is put for it, in that order, as much at once as has come.

    One thread puts. What sending raises is raised to it; then nothing more is sent until `clear`.
    """

    def __init__(self, send: Callable[[list[Action]], dict[Ref, str]], bounds: Bounds) -> None:
        self._send = send
        self._bounds = bounds
        self._pool = ThreadPoolExecutor(bounds.in_flight, thread_name_prefix="bulk")
        self._lock = threading.Condition()
        self._channels = [_Channel() for _ in range(bounds.in_flight)]
        self._count = 1
        """How many of them are used; another number only when nothing is under way."""
        self._batch = 0
        self._alone = False
        self._failure: BaseException | None = None
        self._reasons: dict[int, dict[Ref, str]] = {}

    def turn(self, batch: int) -> None:
        """Say which batch comes now; it may have no action."""
        self._batch = batch

    def begin(self, actions: int, *, alone: bool) -> None:
        """Say how many actions come now, about. Raises what sending raised.

        `alone`: its requests have no other batch's actions, of which one for the same document may have its version.
        """
        count = max(1, min(len(self._channels), actions // ACTIONS_MIN))
        if count > self._count or (count < self._count and not self._busy()):
            self._wait()
            self._count = count
        self._alone = alone

    def put(self, document_id: str, action: Action) -> None:
        """Add an action, sending what is full. Raises what sending raised."""
        at = hash(document_id) % self._count if self._count > 1 else 0
        channel = self._channels[at]
        channel.filled.append(action)
        channel.filled_bytes += len(action.text)
        if len(channel.filled) >= self._bounds.actions_max or channel.filled_bytes >= self._bounds.bytes_max:
            self._launch(channel)

    def launch(self) -> None:
        """Hand all that was put over to be sent. Raises what sending raised."""
        for channel in self._channels:
            if channel.filled:
                self._launch(channel)

    def drain(self) -> Outcome:
        """Wait until all is answered for. Raises what sending raised."""
        self.launch()
        self._wait()
        return self.outcome()

    def outcome(self) -> Outcome:
        """Return what is known now; reasons are told once. Raises what sending raised."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            oldest = min((each.oldest for each in self._channels if each.oldest), default=self._batch + 1)
            reasons, self._reasons = self._reasons, {}
            return Outcome(oldest - 1, reasons)

    def clear(self) -> None:
        """Forget all that was put, once nothing is under way any more."""
        with self._lock:
            for channel in self._channels:
                channel.filled, channel.filled_bytes = [], 0
                channel.waiting.clear()
            while self._busy():
                self._lock.wait(LOOK_S)
            self._failure = None
            self._reasons = {}

    def close(self) -> None:
        """Wait for what is under way; nothing is sent any more."""
        self.clear()
        self._pool.shutdown()

    def _wait(self) -> None:
        with self._lock:
            while self._failure is None and self._busy():
                self._lock.wait(LOOK_S)
            if self._failure is not None:
                raise self._failure

    def _busy(self) -> bool:
        return any(channel.oldest for channel in self._channels)

    def _launch(self, channel: _Channel) -> None:
        with self._lock:
            while self._failure is None and not self._joined(channel):
                if len(channel.waiting) < AHEAD - bool(channel.sending):
                    channel.waiting.append(_Request(self._batch, channel.filled, channel.filled_bytes))
                    break
                self._lock.wait(LOOK_S)
            if self._failure is not None:
                raise self._failure
            channel.filled, channel.filled_bytes = [], 0
            if not channel.sending:
                self._start(channel)

    def _joined(self, channel: _Channel) -> bool:
        """Add what is filled to a request that waits, where both together are not too large."""
        last = channel.waiting[-1] if channel.waiting else None
        if last is None or (self._alone and last.batch != self._batch):
            return False
        actions, size_bytes = len(last.actions) + len(channel.filled), last.size_bytes + channel.filled_bytes
        if actions > self._bounds.actions_max or size_bytes > self._bounds.bytes_max:
            return False
        last.actions += channel.filled
        last.size_bytes = size_bytes
        return True

    def _start(self, channel: _Channel) -> None:
        request = channel.waiting.popleft()
        channel.sending = request.batch
        self._pool.submit(self._send, request.actions).add_done_callback(partial(self._end, channel, request))

    def _end(self, channel: _Channel, request: _Request, sent: Future[dict[Ref, str]]) -> None:
        """Take what a request came to; on the thread that sent it."""
        with self._lock:
            channel.sending = 0
            failure = sent.exception()
            if failure is not None:
                self._failure = self._failure or failure
                channel.waiting.clear()
            elif sent.result():
                self._reasons.setdefault(request.batch, {}).update(sent.result())
            if channel.waiting and self._failure is None:
                self._start(channel)
            self._lock.notify_all()


class _Request:
    """Actions of one or several batches."""

    def __init__(self, batch: int, actions: list[Action], size_bytes: int) -> None:
        self.batch = batch
        """The first of them."""
        self.actions = actions
        self.size_bytes = size_bytes


class _Channel:
    """One of them."""

    def __init__(self) -> None:
        self.filled: list[Action] = []
        self.filled_bytes = 0
        self.waiting: deque[_Request] = deque()
        self.sending = 0
        """The first batch of the request that is under way; 0: none is."""

    @property
    def oldest(self) -> int:
        """The first batch that is not answered for; 0 when all are."""
        return self.sending or (self.waiting[0].batch if self.waiting else 0)
