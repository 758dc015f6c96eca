"""The replication slot: made, found, judged, waited for, dropped."""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg import sql

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.position import format_lsn, parse_lsn

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.postgres.connection import Connection

PLUGIN: Final = "pgoutput"
FAILOVER_VERSION: Final = 170000
CREATE_MAX_S: Final = 60
"""A slot waits for all transactions that run when it is made."""
LINGER_S: Final = 60.0
"""How long the server may keep the session of a reader that was killed, where wal_sender_timeout is off."""

LOST_HINT: Final = (
    "what happened since then cannot be read any more: `cdcsync drop` removes what is left, "
    "then the next run copies everything again into empty targets"
)


class Lost(Fatal):
    """What follows the stored position is not in the log any more."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A row of pg_replication_slots."""

    name: str
    plugin: str | None
    type: str
    database: str | None
    temporary: bool
    active_pid: int | None
    restart_lsn: int | None
    confirmed_lsn: int | None
    """All that committed before it was acknowledged; None before the slot is ready."""
    wal_status: str | None
    invalid: str | None
    """Why it was invalidated, None when it was not."""
    failover: bool
    reader: str
    """Who reads it: application and address."""
    reply_time: float | None
    """When that reader last said something, in the server's seconds since 1970."""


class Created(NamedTuple):
    """A new slot."""

    consistent_lsn: int
    """The log is complete from here, and the snapshot is of here."""
    snapshot: str | None


_FIND: Final = """
SELECT s.slot_name, s.plugin, s.slot_type, s.database, s.temporary, s.active_pid, s.restart_lsn::text,
       s.confirmed_flush_lsn::text, s.wal_status, to_jsonb(s)->>'invalidation_reason',
       coalesce((to_jsonb(s)->>'conflicting')::bool, false), coalesce((to_jsonb(s)->>'failover')::bool, false),
       coalesce(a.application_name, '') || coalesce(' from ' || host(a.client_addr), ''),
       extract(epoch FROM r.reply_time)::float8
FROM pg_catalog.pg_replication_slots s
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = s.active_pid
WHERE s.slot_name = %s
"""


def find(connection: Connection, name: str) -> Slot | None:
    """Return the slot, None when there is none."""
    row = _one(connection, _FIND, [name], "looking at the slot")
    if row is None:
        return None
    wal_status, reason, conflicting = row[8:11]
    invalid = reason or ("conflict with recovery" if conflicting else None)
    if invalid is None and wal_status == "lost":
        invalid = "wal_removed"
    return Slot(
        name=row[0],
        plugin=row[1],
        type=row[2],
        database=row[3],
        temporary=row[4],
        active_pid=row[5],
        restart_lsn=_lsn(row[6]),
        confirmed_lsn=_lsn(row[7]),
        wal_status=wal_status,
        invalid=invalid,
        failover=row[11],
        reader=row[12],
        reply_time=row[13],
    )


def check_form(slot: Slot, database: str) -> None:
    """Raise Fatal unless the slot is one that pgoutput can be read from, in this database, and still whole."""
    if slot.type != "logical" or slot.plugin != PLUGIN:
        what = slot.plugin or slot.type
        msg = f"slot {slot.name} is of {what}, not of {PLUGIN}: it belongs to another program"
        raise Fatal(msg, hint="choose another name with `slot:`", status=ExitStatus.CONFIG)
    if slot.database != database:
        msg = f"slot {slot.name} is of database {slot.database}, not of {database}"
        raise Fatal(msg, hint="choose another name with `slot:`, or check `database`", status=ExitStatus.CONFIG)
    if slot.invalid is not None:
        msg = f"slot {slot.name} was invalidated by the server ({slot.invalid}): WAL that it needs was removed"
        hint = f"{LOST_HINT}. To prevent it raise max_slot_wal_keep_size, or keep the pipeline from standing still"
        raise Lost(msg, hint=hint)


def check_position(slot: Slot | None, name: str, lsn: int, *, promoted: bool = False) -> Slot:
    """Return the slot from which the log can be read on from `lsn`, without a gap. Raises Lost."""
    if slot is None:
        where = " on this server, which was promoted" if promoted else ""
        msg = f"slot {name} does not exist{where}, though the pipeline has a position ({format_lsn(lsn)})"
        raise Lost(msg, hint=f"{LOST_HINT}; a slot made anew would leave a gap")
    if slot.temporary:
        msg = f"slot {name} is temporary: its synchronisation from the old primary was never finished"
        raise Lost(msg, hint=LOST_HINT)
    check_gap(slot, name, lsn)
    return slot


def check_gap(slot: Slot, name: str, lsn: int) -> None:
    """Raise Lost when the slot has passed `lsn`."""
    if slot.confirmed_lsn is None or slot.confirmed_lsn > lsn:
        at = format_lsn(slot.confirmed_lsn) if slot.confirmed_lsn is not None else "no place yet"
        msg = f"slot {name} stands at {at}, past the pipeline's position {format_lsn(lsn)}: what lies between is lost"
        raise Lost(msg, hint=LOST_HINT)


def check_absent(slot: Slot | None, pipeline: str) -> None:
    """Raise Fatal when there is a slot though no position is stored: nobody knows what was delivered."""
    if slot is None:
        return
    at = format_lsn(slot.confirmed_lsn) if slot.confirmed_lsn is not None else "no place yet"
    msg = f"slot {slot.name} exists (at {at}), but no position of pipeline {pipeline} is stored"
    hint = (
        f"if the target was replaced: `cdcsync drop {pipeline}`, then run again to copy everything; if the target holds "
        f"all up to the slot: `cdcsync positions set {pipeline} {at}`; if another pipeline reads it: choose another `slot:`"
    )
    raise Fatal(msg, hint=hint)


class Claim:
    """Tells the session of a reader that was killed, which ends by itself, from one that lives.

    One for a source's whole life; `judge` is called each time before the slot is read.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._reply_time: float | None = None

    def judge(self, slot: Slot, linger_s: float = LINGER_S) -> None:
        """Return when the slot is free. Raises Transient for a while, then Fatal with OWNERSHIP naming the holder."""
        if slot.active_pid is None:
            self._since = self._reply_time = None
            return
        if self._since is None:
            self._since, self._reply_time = self._clock(), slot.reply_time
        spoke = slot.reply_time is not None and self._reply_time is not None and slot.reply_time > self._reply_time
        msg = f"slot {slot.name} is being read by process {slot.active_pid} ({slot.reader or 'unknown'})"
        if spoke or self._clock() - self._since > linger_s:
            hint = (
                "another daemon runs this pipeline: stop it; if nothing does, end that session with "
                f"SELECT pg_terminate_backend({slot.active_pid})"
            )
            raise Fatal(msg, hint=hint, status=ExitStatus.OWNERSHIP)
        raise Transient(End.SOURCE, msg)


def create(replication: Connection, name: str, *, failover: bool = False, snapshot: bool = False) -> Created:
    """Make the slot on a replication connection; its snapshot is good until that connection's next command.

    Raises Transient when transactions that were running do not end within `CREATE_MAX_S`, else Fatal.
    """
    options = ["SNAPSHOT 'export'" if snapshot else "SNAPSHOT 'nothing'"]
    if failover and replication.info.server_version >= FAILOVER_VERSION:
        options.append("FAILOVER true")
    command = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput ({})").format(
        sql.Identifier(name), sql.SQL(", ".join(options))
    )
    try:
        replication.execute(sql.SQL("SET lock_timeout = {}").format(f"{CREATE_MAX_S}s"))
        row = replication.execute(command).fetchone()
    except psycopg.errors.LockNotAvailable as error:
        msg = f"slot {name} waits for transactions that were open before it; see pg_stat_activity.xact_start"
        raise Transient(End.SOURCE, msg) from error
    except psycopg.Error as error:
        raise _refused(error, name) from error
    if row is None:
        msg = f"slot {name} was not made"
        raise Fatal(msg, hint="see the server's log")
    return Created(parse_lsn(str(row[1])), row[2])


def create_temporary(replication: Connection, name: str) -> int:
    """Make a slot that ends with the connection; return where it stands."""
    try:
        row = replication.execute(
            f"CREATE_REPLICATION_SLOT \"{name}\" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')".encode()
        ).fetchone()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "making a temporary slot") from error
    if row is None:
        raise Fatal("no temporary slot was made", hint="see the server's log")
    return parse_lsn(str(row[1]))


def drop(connection: Connection, name: str) -> bool:
    """Drop the slot; return whether there was one. Raises Fatal with OWNERSHIP while somebody reads it."""
    slot = find(connection, name)
    if slot is None:
        return False
    if slot.active_pid is not None:
        msg = f"slot {name} is being read by process {slot.active_pid} ({slot.reader or 'unknown'})"
        raise Fatal(msg, hint="stop the pipeline first", status=ExitStatus.OWNERSHIP)
    _one(connection, "SELECT pg_catalog.pg_drop_replication_slot(%s)::text", [name], f"dropping slot {name}")
    return True


def sender_timeout_s(connection: Connection) -> float:
    """Return the server's wal_sender_timeout; 0: off."""
    try:
        row = connection.execute(
            "SELECT setting::float8 / 1000 FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'"
        ).fetchone()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "reading wal_sender_timeout") from error
    return float(row[0]) if row else 0.0


def drop_soon(connection: Connection, name: str) -> None:
    """Drop the slot once the session that was closed just now has let go of it."""
    until = time.monotonic() + LINGER_S
    while True:
        try:
            drop(connection, name)
        except Fatal:
            if time.monotonic() > until:
                raise
            select.select([], [], [], 0.05)
        else:
            return


def _refused(error: psycopg.Error, name: str) -> Transient | Fatal:
    doing = f"making slot {name}"
    if isinstance(error, psycopg.errors.ObjectNotInPrerequisiteState):
        hint = "ALTER SYSTEM SET wal_level = logical; then restart the server"
        return Fatal(f"{doing}: {error.diag.message_primary}", hint=hint, status=ExitStatus.CONFIG)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        hint = "ALTER ROLE ... REPLICATION for this user; `cdcsync check` prints it"
        return Fatal(f"{doing}: {error.diag.message_primary}", hint=hint, status=ExitStatus.PERMISSION)
    return verdict(error, End.SOURCE, doing)


def _one(connection: Connection, query: str, params: list[object], doing: str) -> tuple[Any, ...] | None:
    try:
        return connection.execute(query.encode(), params).fetchone()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, doing) from error


def _lsn(text: str | None) -> int | None:
    return parse_lsn(text) if text is not None else None
