"""The PostgreSQL position store on its own, for a sink that keeps none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.ports import SinkContext, Stored
from cdcsync.postgres.config import PostgresStore as Config
from cdcsync.postgres.config import from_url
from cdcsync.postgres.store import PostgresStore, clear, put
from cdcsync.testing.memory import MemoryPosition

if TYPE_CHECKING:
    from fix_postgres import Database

CONTEXT = SinkContext("shop", Path("/nowhere"))


def config(database: Database) -> Config:
    """Return the section."""
    return Config.model_validate(from_url(database.url))


def opened(database: Database) -> PostgresStore:
    """Return an open store."""
    store = PostgresStore(config(database), CONTEXT)
    store.open("")
    return store


def test_a_saved_position_is_there_after_a_restart(database: Database) -> None:
    first = opened(database)
    first.save(MemoryPosition(3, 7))
    first.close()

    second = opened(database)

    assert second.load() == Stored("3:7:0", 3)
    assert second.fence == first.fence + 1
    second.close()


def test_opening_again_keeps_the_fence(database: Database) -> None:
    store = opened(database)
    fence = store.fence

    store.open("")

    assert store.fence == fence
    store.close()


def test_our_own_process_that_the_network_cut_off_does_not_hold_us_up(database: Database) -> None:
    store = opened(database)
    cut_off, store._connection = store._connection, None

    store.open("")

    assert store.load() is None
    store.close()
    assert cut_off is not None
    cut_off.close()


def test_a_position_set_by_an_operator_fences_the_one_that_runs(database: Database) -> None:
    store = opened(database)
    with pytest.raises(Fatal, match="held by process") as caught:
        put(config(database), CONTEXT, MemoryPosition(2, 1))
    assert caught.value.status is ExitStatus.OWNERSHIP
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdcsync shop'")

    put(config(database), CONTEXT, MemoryPosition(2, 1))

    with pytest.raises(Transient):
        store.save(MemoryPosition(1, 1))
    with pytest.raises(Fatal, match="taken over"):
        store.open("")


def test_clear_forgets_the_position_and_says_whether_there_was_one(database: Database) -> None:
    assert not clear(config(database), CONTEXT)
    put(config(database), CONTEXT, MemoryPosition(2, 1))

    assert clear(config(database), CONTEXT)

    store = opened(database)
    assert store.load() is None
    store.close()
