"""As which replica we read a server's log: numbers that nobody else there has."""

from __future__ import annotations

import hashlib
import os
import socket
from typing import TYPE_CHECKING, Final

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql.errors import MysqlError, Verdict, rule_of, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.mysql.config import MysqlSource
    from cdcsync.mysql.connection import Connection
    from cdcsync.ports import SourceContext

TRIES_MAX: Final = 16
NAME_MAX: Final = 60
"""A server shows no more of a reader's name."""
STREAM: Final = "stream"
"""The purpose of the pipeline's own reading; others are searching, replaying, following."""


def name_of(context: SourceContext, purpose: str = STREAM) -> str:
    """Return what a server shows of us in its list of readers, another on another machine.

    The pipeline's own reading has the same after a restart: the server ends what is left of the one before. Others may
    run several at once, so each process has a name of its own.
    """
    whose = purpose if purpose == STREAM else f"{purpose} {os.getpid()}"
    digest = hashlib.sha256(f"{socket.gethostname()}\0{context.state}\0{whose}".encode()).hexdigest()[:8]
    return f"cdcsync {context.pipeline}"[: NAME_MAX - 9] + f" {digest}"


def choose(connection: Connection, config: MysqlSource, context: SourceContext, purpose: str = STREAM) -> int:
    """Return a server id that no other reader has, nor the server itself: two with one id throw each other out for ever.

    The same at each start, unless it is taken. The pipeline's own is `server_id` where it is set; other connections
    never have that one. Raises Transient, and Fatal when the configured one is taken.
    """
    name = name_of(context, purpose)
    taken = {number: reader for number, reader in readers(connection).items() if reader != name}
    taken[connection.server.server_id] = f"the server itself ({connection.server.uuid})"
    if config.server_id is not None and purpose == STREAM:
        if config.server_id in taken:
            msg = f"server_id {config.server_id} is taken by {taken[config.server_id]}"
            hint = "give another `server_id` in the section, or none: one is chosen then"
            raise Fatal(msg, hint=hint, status=ExitStatus.OWNERSHIP)
        return config.server_id
    for attempt in range(TRIES_MAX):
        number = _number(f"{context.pipeline}\0{name}\0{attempt}")
        if number not in taken and number != config.server_id:
            return number
    msg = f"no server id is free for {name!r}"
    raise Fatal(msg, hint="give a `server_id` in the section", status=ExitStatus.CONFIG)


def readers(connection: Connection) -> Mapping[int, str]:
    """Return the names of those who read the server's log by their server ids; none where we may not look."""
    try:
        rows = connection.execute(connection.server.readers_query)
    except MysqlError as error:
        if rule_of(error).verdict is Verdict.PERMISSION:
            return {}
        raise verdict(error, connection.end, "looking at who reads the log") from error
    return {int(row[0]): row[1] or "a replica" for row in rows}


def _number(text: str) -> int:
    """Return a number of the upper half: people give small ones."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") | 1 << 31
