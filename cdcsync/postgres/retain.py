"""Keeps a second slot behind on purpose, so that there is something of the log to replay."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

import psycopg
import structlog

from cdcsync.errors import Transient
from cdcsync.postgres import slot as slots
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import describe
from cdcsync.postgres.position import format_lsn

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.postgres.config import PostgresSource, Retain

SUFFIX: Final = "_retain"
EVERY_S: Final = 30.0
MARKS_MAX: Final = 512
ADVANCE_MAX: Final = "10s"
"""Advancing decodes the log on the way; what is not done then is done by the next turn."""


def slot_of(config: PostgresSource, pipeline: str) -> str:
    """Return the second slot's name."""
    return config.slot_of(pipeline) + SUFFIX


class Retained:
    """The places passed in the last while, and the slot that follows the oldest of them.

    After a restart the slot stays where it is until the limit in bytes, or the time since then, is reached.
    """

    def __init__(self, policy: Retain, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()
        self._apart_s = policy.time.total_seconds() / MARKS_MAX if policy.time else 0.0

    def target(self, lsn: int) -> int:
        """Return the LSN up to which nothing is to be kept, when the stream is durable up to `lsn`."""
        now = self._clock()
        if not self._marks or now - self._marks[-1][0] >= self._apart_s:
            self._marks.append((now, lsn))
        limits = [0]
        if self._policy.time is not None:
            oldest = now - self._policy.time.total_seconds()
            while len(self._marks) > 1 and self._marks[1][0] <= oldest:
                self._marks.popleft()
            if self._marks[0][0] <= oldest:
                limits.append(self._marks[0][1])
        if self._policy.bytes is not None:
            limits.append(lsn - int(self._policy.bytes))
        return max(limits)


class Retainer:
    """Advances the second slot, from a connection of its own; called between polls, and cheap when it is not time."""

    def __init__(
        self, config: PostgresSource, pipeline: str, policy: Retain, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._name = slot_of(config, pipeline)
        self._retained = Retained(policy, clock)
        self._clock = clock
        self._due = clock()
        self._log = structlog.get_logger().bind(slot=self._name)

    def turn(self, lsn: int) -> None:
        """Advance when it is time. Only logs when the server is away: the stream itself will say so too."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + EVERY_S
        try:
            self._advance(lsn)
        except Transient as fault:
            self._log.warning("retained log not advanced", fault=str(fault))

    def _advance(self, lsn: int) -> None:
        target = self._retained.target(lsn)
        with connect(self._config, application_name=self._name, read_write=True) as connection:
            slot = slots.find(connection, self._name)
            if slot is None:
                failover = self._config.failover is not False
                with connect(self._config, application_name=self._name, replication=True, read_write=True) as making:
                    slots.create(making, self._name, failover=failover)
                return
            if slot.invalid is not None:
                self._log.warning("retained log lost", reason=slot.invalid)
                slots.drop(connection, self._name)
                self._due = self._clock()
                return
            if slot.confirmed_lsn is None or target <= slot.confirmed_lsn:
                return
            try:
                connection.execute(f"SET statement_timeout = '{ADVANCE_MAX}'".encode())
                connection.execute(
                    "SELECT pg_catalog.pg_replication_slot_advance(%s, %s::pg_lsn)", [self._name, format_lsn(target)]
                )
            except psycopg.Error as error:
                self._log.warning("retained log not advanced", fault=describe(error))
