"""The replication slot: made, looked at, and never stood upon where it would leave a gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.position import format_lsn, parse_lsn

if TYPE_CHECKING:
    from cdcsync.postgres.connection import Connection

FAILOVER_SINCE: Final = 170000
"""The version whose standbys synchronise slots made with `failover`."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A row of pg_replication_slots."""

    name: str
    plugin: str | None
    database: str | None
    active_pid: int | None
    confirmed: int
    """confirmed_flush_lsn: the server sends nothing that committed before it, and says nothing about that."""
    restart: int
    wal_status: str | None
    invalidation: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A slot that was just made."""

    consistent: int
    """LSN from which it streams."""
    snapshot: str | None
    """The snapshot that holds all before; valid until the connection does something else."""


def find(connection: Connection, name: str) -> Slot | None:
    """Return the slot, None when there is none."""
    invalidation = (
        "invalidation_reason" if connection.info.server_version >= FAILOVER_SINCE else "NULL::text"
    )
    query = sql.SQL(
        "SELECT slot_name::text, plugin::text, database::text, active_pid, confirmed_flush_lsn::text, restart_lsn::text,"
        " wal_status, {} FROM pg_catalog.pg_replication_slots WHERE slot_name = {}"
    ).format(sql.SQL(invalidation), name)
    try:
        row = connection.execute(query).fetchone()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, f"looking at slot {name}") from error
    if row is None:
        return None
    slot, plugin, database, pid, confirmed, restart, status, invalid = row
    return Slot(slot, plugin, database, pid, _lsn(confirmed), _lsn(restart), status, invalid)


def _lsn(text: str | None) -> int:
    return parse_lsn(text) if text else 0


def require(connection: Connection, name: str, lsn: int, pipeline: str) -> Slot:
    """Return the slot from which everything after `lsn` can be had.

    Raises Fatal when it is gone, lost its WAL, is another's, or would leave a gap; Transient while it is taken.
    """
    slot = find(connection, name)
    anew = f"`cdcsync drop {pipeline}`, empty the targets, and run it again: everything is copied anew"
    if slot is None:
        msg = f"slot {name} is gone, and with it what was written since {format_lsn(lsn)}"
        raise Fatal(msg, hint=f"on a promoted standby make sure that slots are kept there; else {anew}")
    if slot.plugin != "pgoutput" or slot.database != connection.info.dbname:
        msg = f"slot {name} is not ours: plugin {slot.plugin}, database {slot.database}"
        raise Fatal(msg, hint="set another `slot:` in the source", status=ExitStatus.CONFIG)
    if slot.wal_status == "lost" or slot.invalidation:
        reason = slot.invalidation or "max_slot_wal_keep_size was exceeded"
        msg = f"slot {name} was invalidated ({reason}): the server has removed WAL that it needs"
        raise Fatal(msg, hint=f"{anew}; then raise max_slot_wal_keep_size on the server")
    if slot.confirmed > lsn:
        msg = (
            f"slot {name} is confirmed up to {format_lsn(slot.confirmed)}, past the stored position {format_lsn(lsn)}: "
            "what lies between would be missing"
        )
        raise Fatal(msg, hint=f"did another reader use the slot? {anew}")
    refuse_taken(slot)
    return slot


def refuse_taken(slot: Slot) -> None:
    """Raise Transient while another process streams from the slot."""
    if slot.active_pid is not None:
        msg = f"slot {slot.name} is in use by server process {slot.active_pid}; is the pipeline running elsewhere?"
        raise Transient(End.SOURCE, msg)


def refuse_orphan(connection: Connection, name: str, pipeline: str) -> None:
    """Raise Fatal when the slot exists although no position is stored: what it stands for is not known."""
    slot = find(connection, name)
    if slot is None:
        return
    msg = f"no position is stored for pipeline {pipeline}, yet its slot {name} exists, at {format_lsn(slot.confirmed)}"
    raise Fatal(
        msg,
        hint="bring the position store back; or remove the slot with "
        f"`cdcsync drop {pipeline}` and copy everything into an empty target",
    )


def create(replication: Connection, name: str, *, failover: bool, temporary: bool = False, export: bool = False) -> Made:
    """Make the slot over a replication connection; with `export` its snapshot can be copied from."""
    version = replication.info.server_version
    options = [sql.SQL("SNAPSHOT 'export'" if export else "SNAPSHOT 'nothing'")]
    if failover and version >= FAILOVER_SINCE and not temporary:
        options.append(sql.SQL("FAILOVER"))
    query = sql.SQL("CREATE_REPLICATION_SLOT {} {} LOGICAL pgoutput ({})").format(
        sql.Identifier(name), sql.SQL("TEMPORARY" if temporary else ""), sql.SQL(", ").join(options)
    )
    try:
        row = replication.execute(query).fetchone()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, f"making slot {name}") from error
    if row is None:
        msg = f"making slot {name}: the server gave nothing"
        raise Transient(End.SOURCE, msg)
    return Made(parse_lsn(row[1]), row[2])


def drop(connection: Connection, name: str) -> bool:
    """Drop the slot over an ordinary connection; return whether there was one. Raises Transient while it is taken."""
    slot = find(connection, name)
    if slot is None:
        return False
    refuse_taken(slot)
    try:
        connection.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", [name])
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, f"dropping slot {name}") from error
    return True
