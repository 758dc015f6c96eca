"""The statements of gh-ost and pt-online-schema-change, in their order, while rows are written: the target follows the swap."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from fix_evolution import Flow
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_postgres import Database

    from cdcsync.testing.mysql_servers import MysqlServer

START = "CREATE TABLE t (id int PRIMARY KEY, a varchar(20)); INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')"
WRITES = "UPDATE t SET a = concat(a, '!') WHERE id = 2; INSERT INTO t (id, a) VALUES ({n}, 'new'); DELETE FROM t WHERE id = {n} - 100"

GH_OST = (
    (
        "CREATE /* gh-ost */ TABLE _t_ghc (id bigint AUTO_INCREMENT PRIMARY KEY, last_update timestamp NOT NULL DEFAULT "
        "CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, hint varchar(64) CHARACTER SET ascii NOT NULL, value varchar(4096) "
        "CHARACTER SET ascii NOT NULL, UNIQUE KEY hint_uidx (hint)) AUTO_INCREMENT = 256"
    ),
    "CREATE /* gh-ost */ TABLE _t_gho LIKE t",
    "ALTER /* gh-ost */ TABLE _t_gho ADD COLUMN c int NOT NULL DEFAULT 7, DROP COLUMN a, ADD COLUMN a varchar(30)",
    (
        "INSERT /* gh-ost */ INTO _t_ghc (id, hint, value) VALUES (NULLIF(2, 0), 'state', 'Migrated') "
        "ON DUPLICATE KEY UPDATE last_update = NOW(), value = VALUES(value)"
    ),
    (
        "INSERT /* gh-ost */ IGNORE INTO _t_gho (id, a) (SELECT id, a FROM t FORCE INDEX (PRIMARY) WHERE id >= 1 "
        "LOCK IN SHARE MODE)"
    ),
    "REPLACE /* gh-ost */ INTO _t_gho (id, a) VALUES (2, 'two')",
    "DELETE /* gh-ost */ FROM _t_gho WHERE id = 999",
    "CREATE /* gh-ost */ TABLE _t_del (id int AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB COMMENT='ghost-cut-over-sentry'",
    "DROP /* gh-ost */ TABLE IF EXISTS _t_del",
    "RENAME /* gh-ost */ TABLE t TO _t_del, _t_gho TO t",
    "DROP /* gh-ost */ TABLE IF EXISTS _t_ghc",
    "DROP /* gh-ost */ TABLE IF EXISTS _t_del",
)
TWO_STEP = (
    *GH_OST[:7],
    "ALTER /* gh-ost */ TABLE t RENAME _t_del",
    "ALTER /* gh-ost */ TABLE _t_gho RENAME t",
    *GH_OST[10:],
)
COPY = (
    "CREATE TABLE _t_new (id int PRIMARY KEY, a varchar(20))",
    "ALTER TABLE _t_new ADD COLUMN c int NOT NULL DEFAULT 7, MODIFY a varchar(30)",
    "CREATE TRIGGER pt_osc_t_del AFTER DELETE ON t FOR EACH ROW DELETE IGNORE FROM _t_new WHERE _t_new.id <=> OLD.id",
    "CREATE TRIGGER pt_osc_t_upd AFTER UPDATE ON t FOR EACH ROW REPLACE INTO _t_new (id, a) VALUES (NEW.id, NEW.a)",
    "CREATE TRIGGER pt_osc_t_ins AFTER INSERT ON t FOR EACH ROW REPLACE INTO _t_new (id, a) VALUES (NEW.id, NEW.a)",
    (
        "INSERT LOW_PRIORITY IGNORE INTO _t_new (id, a) SELECT id, a FROM t FORCE INDEX (PRIMARY) WHERE id >= 1 "
        "LOCK IN SHARE MODE /*pt-online-schema-change 1 copy nibble*/"
    ),
    "UPDATE t SET a = 'other' WHERE id = 3; REPLACE INTO t (id, a) VALUES (50, 'new'); DELETE FROM t WHERE id = 50",
    "ANALYZE TABLE _t_new /* pt-online-schema-change */",
)
TRIGGERS = tuple(f"DROP TRIGGER IF EXISTS pt_osc_t_{name}" for name in ("del", "upd", "ins"))
PT_OSC = (*COPY, "RENAME TABLE t TO _t_old, _t_new TO t", "DROP TABLE IF EXISTS _t_old", *TRIGGERS)
DROP_SWAP = (*COPY, "SET foreign_key_checks = 0; DROP TABLE IF EXISTS t; RENAME TABLE _t_new TO t", *TRIGGERS)
TOOLS = {"gh-ost": GH_OST, "gh-ost, two-step": TWO_STEP, "pt-osc": PT_OSC, "pt-osc, drop_swap": DROP_SWAP}


@pytest.fixture(params=["mysql8", "mariadb10"] if os.environ.get("CDCSYNC_FULL") else ["mysql8"])
def source(request: pytest.FixtureRequest) -> Iterator[MysqlDatabase]:
    """A database of either server."""
    server: MysqlServer = request.getfixturevalue(request.param)
    made = make_mysql_database(server)
    yield made
    drop_mysql_database(made)


def test_the_target_follows_a_table_that_a_tool_put_in_its_place(
    source: MysqlDatabase, database: Database, tmp_path: Path
) -> None:
    source.execute(START)
    carries = Flow(tmp_path, source.url, database.url, {"from": f"{source.name}.*", "to": "{1}"})
    with carries.running() as life:
        life.until(lambda: _rows(database, "id, a") == source.query("SELECT id, a FROM t ORDER BY id"))
        for number, (tool, statements) in enumerate(TOOLS.items()):
            for statement in statements:
                source.execute(statement)
                if not statement.startswith(("RENAME", "ALTER /* gh-ost */ TABLE t ")):
                    source.execute(f"UPDATE t SET a = concat('{number}', right(a, 9)) WHERE id = 2")
            source.execute(WRITES.format(n=1000 + number))
            life.until(lambda: _rows(database, "id, a, c") == source.query("SELECT id, a, c FROM t ORDER BY id"))
            assert (
                database.query(
                    "SELECT 1 FROM information_schema.tables WHERE table_schema = 'public' AND table_name ~ '^_'"
                )
                == []
            ), tool
            source.execute(f"ALTER TABLE t DROP c; UPDATE t SET a = 'again {number}' WHERE id = 1")
            life.until(lambda: _rows(database, "c") is None)


def _rows(database: Database, names: str) -> list[tuple[Any, ...]] | None:
    """Return the target's rows; None while it has not all of these columns."""
    if database.query("SELECT to_regclass('t') IS NULL")[0][0]:
        return None
    found = [row for (row,) in database.query("SELECT to_jsonb(t) FROM t ORDER BY id")]
    if any(name not in row for row in found for name in names.split(", ")):
        return None
    return [tuple(row[name] for name in names.split(", ")) for row in found]
