"""Reads what slots still hold of the log, beside the pipeline: from temporary copies of them."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from cdcsync.connectors import Reach
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.postgres import publication, retain
from cdcsync.postgres import slot as slots
from cdcsync.postgres.connection import connect
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.identity import check_history, identify
from cdcsync.postgres.position import PostgresPosition, format_lsn, parse_lsn
from cdcsync.postgres.source import PostgresWal

if TYPE_CHECKING:
    from cdcsync.change import Position
    from cdcsync.ports import SourceContext
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection
    from cdcsync.postgres.slot import Slot
    from cdcsync.postgres.source import Session

_PLACE: Final = re.compile(r"(?:\d+:)?([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})")
"""An LSN, or a transaction's id as `tail` shows it: what begins with that transaction."""


class BesideWal(PostgresWal):
    """Opens at any position that one of the pipeline's slots still holds, and moves none of them."""

    def __init__(self, config: PostgresSource, context: SourceContext) -> None:
        update = {"retain": None, "start": "now", "on_lost_position": "stop"}
        super().__init__(config.model_copy(update=update), context)
        self._slot = f"cdcsync_log_{os.getpid()}_{secrets.token_hex(4)}"

    def _publish(self, plain: Connection, *, fresh: bool) -> publication.Publications:  # noqa: ARG002  it is read only
        return publication.existing(plain, self._config, self._context)

    def _begin_beside(self, session: Session, place: PostgresPosition) -> None:
        """What a copy has left to read is the pipeline's."""

    def _check_slot(self, session: Session, place: PostgresPosition, *, promoted: bool) -> None:  # noqa: ARG002  as its base
        held = _holding(session.plain, self._config, self._context.pipeline, place.lsn)
        copy(session.replication, held.name, self._slot, temporary=True)
        made = slots.find(session.plain, self._slot)
        if made is not None:
            slots.check_gap(made, held.name, place.lsn)


def reach(config: PostgresSource, context: SourceContext) -> Reach:
    """Return how far the pipeline's slots hold the log. Raises Fatal when there are none."""
    name = f"cdcsync {context.pipeline}"
    with connect(config, application_name=name, replication=True) as replication:
        now = identify(replication)
    with connect(config, application_name=name) as connection:
        held = _held(connection, config, context.pipeline)
    if not held:
        raise _nothing(config, context.pipeline)
    lsn, slot = min((each.confirmed_lsn or 0, each.name) for each in held)
    main = config.slot_of(context.pipeline)
    first = PostgresPosition(0, now.system, now.timeline, lsn, main)
    words = f"slot {slot} keeps the log from {format_lsn(lsn)} on"
    return Reach(first.encode(), first.at(now.flush_lsn).encode(), words)


def place(config: PostgresSource, context: SourceContext, word: str) -> str:
    """Turn an LSN, a transaction's id, or what `positions show` prints into a position that a slot still holds.

    What `positions show` prints has an epoch, which a failover since then raises.
    """
    given = PostgresPosition.decode(word) if word.startswith("{") else None
    matched = _PLACE.fullmatch(format_lsn(given.lsn) if given is not None else word)
    if matched is None:
        msg = f"not a place in PostgreSQL's log: {word!r}"
        hint = "write an LSN as 16/B374D848, a time as 2026-11-24T10:00:00Z, or what `cdcsync positions show` prints"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    lsn, name, epoch = parse_lsn(matched[1]), config.slot_of(context.pipeline), 0
    application = f"cdcsync {context.pipeline}"
    with connect(config, application_name=application, replication=True) as replication:
        now = identify(replication)
        if given is not None:
            check_history(replication, now, given.system, given.timeline, given.lsn)
            epoch = given.epoch + (given.timeline != now.timeline)
    with connect(config, application_name=application) as connection:
        _holding(connection, config, context.pipeline, lsn)
    if lsn > now.flush_lsn:
        msg = f"position {format_lsn(lsn)} lies in the future: the server has not written it yet"
        raise Fatal(msg, hint="see where it is with SELECT pg_current_wal_flush_lsn()", status=ExitStatus.CONFIG)
    position = PostgresPosition(epoch, now.system, now.timeline, lsn, name)
    if given is not None:
        position = replace(position, within=given.within, reads=given.reads, pending=given.pending)
    return position.encode()


def go_back(config: PostgresSource, context: SourceContext, position: Position) -> list[str]:
    """Replace the pipeline's slot by a copy of the retained one, where it has passed the position.

    Cut short in between, the pipeline has no slot and the retained one is as it was: to be done again.
    """
    assert isinstance(position, PostgresPosition)  # noqa: S101  this system's own
    name, application = config.slot_of(context.pipeline), f"cdcsync {context.pipeline}"
    with connect(config, application_name=application, read_write=True) as connection:
        held = _holding(connection, config, context.pipeline, position.lsn)
        if held.name == name:
            return []
        slots.drop(connection, name)
        copy(connection, held.name, name, temporary=False)
    if held.failover:
        with connect(config, application_name=application, replication=True, read_write=True) as replication:
            _synchronise(replication, name)
    return [f"slot {name} was replaced by a copy of {held.name}, which stands at {format_lsn(held.confirmed_lsn or 0)}"]


def copy(connection: Connection, name: str, to: str, *, temporary: bool) -> None:
    """Copy a slot; a temporary copy ends with the connection, which alone can read it. Raises Transient, Fatal."""
    call = sql.SQL("SELECT pg_catalog.pg_copy_logical_replication_slot({}, {}, {})::text")
    try:
        connection.execute(call.format(name, to, temporary))
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, f"copying slot {name}") from error


def _synchronise(replication: Connection, name: str) -> None:
    """Let standbys keep the slot too: a copy does not inherit it (pg_copy_logical_replication_slot, from 17 on)."""
    try:
        replication.execute(sql.SQL("ALTER_REPLICATION_SLOT {} (FAILOVER true)").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, f"setting failover of slot {name}") from error


def _held(connection: Connection, config: PostgresSource, pipeline: str) -> list[Slot]:
    """Return those of the pipeline's two slots that can be read."""
    names = (config.slot_of(pipeline), retain.slot_of(config, pipeline))
    found = [slot for name in names if (slot := slots.find(connection, name)) is not None]
    for slot in found:
        slots.check_form(slot, config.database)
    return [slot for slot in found if slot.confirmed_lsn is not None and not slot.temporary]


def _holding(connection: Connection, config: PostgresSource, pipeline: str, lsn: int) -> Slot:
    """Return the slot that holds all from `lsn` on, the one with less to read before it. Raises Fatal."""
    held = _held(connection, config, pipeline)
    if not held:
        raise _nothing(config, pipeline)
    whole = [slot for slot in held if (slot.confirmed_lsn or 0) <= lsn]
    if whole:
        return max(whole, key=lambda slot: slot.confirmed_lsn or 0)
    first = min(held, key=lambda slot: slot.confirmed_lsn or 0)
    msg = (
        f"the log is no longer there from {format_lsn(lsn)} on: slot {first.name} stands at "
        f"{format_lsn(first.confirmed_lsn or 0)}, past it, and no other slot of the pipeline holds what lies between"
    )
    raise Fatal(
        msg, hint="begin later (`earliest` is as far as it goes); `retain` in the source keeps more from now on"
    )


def _nothing(config: PostgresSource, pipeline: str) -> Fatal:
    name = config.slot_of(pipeline)
    msg = f"no slot holds the log: neither {name} nor {name}{retain.SUFFIX} exists"
    return Fatal(
        msg,
        hint="PostgreSQL keeps its log for slots alone: name the pipeline that has one (in a URL: ?slot=NAME); "
        "`retain` in its source keeps a stretch of the log to be read again",
        status=ExitStatus.CONFIG,
    )
