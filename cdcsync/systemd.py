"""What systemd is told: ready, alive, stopping, by datagrams to $NOTIFY_SOCKET (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

START_STEP_S: Final = 60
"""How much longer than now the start may take, said again by each turn until ready."""
STATUS_STEP_S: Final = 5.0


class Notifier:
    """Tells systemd; does nothing when not started by it. A datagram that is not taken is no reason to stop."""

    def __init__(
        self, environment: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic
    ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._step_s = _watchdog_s(environment) / 4
        self._clock = clock
        self._told_at = float("-inf")
        self._status_at = float("-inf")
        self._status = ""
        self._ready = False

    def turned(self, *, ready: bool, status: str) -> None:
        """Feed the watchdog; say READY once, and the status when it changed, at most every 5 s."""
        if not self._address:
            return
        now = self._clock()
        if ready and not self._ready:
            self._ready = True
            self._send("READY=1")
        if not self._ready and now - self._told_at >= START_STEP_S / 4:
            self._told_at = now
            self._send(f"EXTEND_TIMEOUT_USEC={START_STEP_S * 1_000_000}")
        elif self._ready and self._step_s and now - self._told_at >= self._step_s:
            self._told_at = now
            self._send("WATCHDOG=1")
        if status != self._status and now - self._status_at >= STATUS_STEP_S:
            self._status, self._status_at = status, now
            self._send(f"STATUS={status}")

    def stopping(self) -> None:
        """Say that the end was asked for."""
        self._send("STOPPING=1")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(line.encode(), self._address)
        except OSError:
            return


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Return the interval in which systemd wants to hear of us; 0 when it does not, or means another process."""
    process = environment.get("WATCHDOG_PID")
    if process is not None and process != str(os.getpid()):
        return 0.0
    interval_us = environment.get("WATCHDOG_USEC", "")
    return int(interval_us) / 1e6 if interval_us.isdecimal() else 0.0
