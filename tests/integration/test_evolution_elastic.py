"""Tables change while they are carried into Elasticsearch: documents follow by the mode of their entry, read by scroll."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from fix_evolution import Flow

from cdcsync.errors import Fatal

if TYPE_CHECKING:
    from pathlib import Path

    from fix_elastic import Cluster
    from fix_evolution import Life
    from fix_mysql import MysqlDatabase
    from fix_postgres import Database

MODES = ("evolve", "lenient", "ignore")
CHANGES = """
ALTER TABLE {t} ADD c text, DROP a, ALTER n TYPE bigint;
INSERT INTO {t} (id, n, c) VALUES (100, 5, 'c');
UPDATE {t} SET n = n + 1 WHERE id = 2
"""


def sink(cluster: Cluster) -> dict[str, Any]:
    return {"elasticsearch": {"hosts": [cluster.server.url]}}


def made(table: str) -> str:
    values = "(1, 'one', 1), (2, 'two', 2)"
    return f"CREATE TABLE {table} (id int PRIMARY KEY, a varchar(20), n int); INSERT INTO {table} VALUES {values};"


def delivered(life: Life, cluster: Cluster, index: str, key: str, **want: Any) -> dict[str, Any]:
    """Wait until a document has these values; return all of it."""

    def there() -> dict[str, Any]:
        if index not in cluster.ask("GET", "/_alias").get(f"{index}-000001", {"aliases": {}})["aliases"]:
            return {}
        found = cluster.documents(index).get(key, {})
        return found if want.items() <= found.items() else {}

    life.until(there)
    return there()


def test_documents_follow_by_the_mode_of_their_entry(database: Database, cluster: Cluster, tmp_path: Path) -> None:
    for mode in MODES:
        database.execute(made(mode))
    entries = [{"from": f"public.{mode}", "to": mode, "schema_changes": mode} for mode in MODES]
    carries = Flow(tmp_path, database.url, sink(cluster), *entries)
    with carries.running() as life:
        for mode in MODES:
            delivered(life, cluster, mode, "2", n=2)
        for mode in MODES[:2]:
            database.execute(CHANGES.format(t=mode))
        database.execute("ALTER TABLE ignore ADD c text, DROP a; UPDATE ignore SET n = 3, c = 'x' WHERE id = 2")
        evolved = delivered(life, cluster, "evolve", "2", n=3)
        lenient = delivered(life, cluster, "lenient", "2", n=3)
        ignored = delivered(life, cluster, "ignore", "2", n=3)
        refused = carries.asked("check")
    with carries.running() as life:
        for mode in MODES:
            database.execute(f"UPDATE {mode} SET n = 9 WHERE id = 2")
        assert delivered(life, cluster, "evolve", "2", n=9) == evolved | {"n": 9}
        assert delivered(life, cluster, "lenient", "2", n=9) == lenient | {"n": 9}
        assert delivered(life, cluster, "ignore", "2", n=9) == ignored | {"n": 9}

    assert evolved == {"id": 2, "n": 3, "c": None}
    assert lenient == {"id": 2, "n": 3, "c": None, "a": "two"}
    assert ignored == {"id": 2, "n": 3, "a": "two"}
    assert not [each for each in refused if each["severity"] == "error"]


def test_indexes_are_made_renamed_swapped_and_dropped_with_their_tables(
    mysql_database: MysqlDatabase, cluster: Cluster, tmp_path: Path
) -> None:
    drops = {"mode": "evolve", "include": ["add", "rename", "rename_table", "drop_table"]}
    source = mysql_database
    source.execute(made("t") + made("u") + made("gone"))
    carries = Flow(
        tmp_path, source.url, sink(cluster), {"from": f"{source.name}.*", "to": "{1}", "schema_changes": drops}
    )
    with carries.running() as life:
        delivered(life, cluster, "t", "2", a="two")
        source.execute("ALTER TABLE t CHANGE a b varchar(40); UPDATE t SET b = 'renamed' WHERE id = 2")
        assert delivered(life, cluster, "t", "2", b="renamed") == {"id": 2, "b": "renamed", "n": 2}
        source.execute("UPDATE u SET a = 'before' WHERE id = 2; RENAME TABLE u TO v; UPDATE v SET a = 'v' WHERE id = 1")
        source.execute(made("u") + "DROP TABLE gone;" + made("made"))
        source.execute(
            "CREATE TABLE _t_gho LIKE t; ALTER TABLE _t_gho ADD c int; INSERT INTO _t_gho SELECT *, 7 FROM t"
        )
        source.execute("RENAME TABLE t TO _t_del, _t_gho TO t; UPDATE t SET n = 3 WHERE id = 2; TRUNCATE TABLE made")
        source.execute("INSERT INTO made VALUES (3, 'three', 3)")
        delivered(life, cluster, "made", "3", a="three")

    aliases = {alias for index in cluster.ask("GET", "/_alias").values() for alias in index["aliases"]}
    assert aliases >= {"t", "u", "v", "made"}
    assert not aliases & {"gone", "_t_gho", "_t_del"}
    assert {key: each["a"] for key, each in cluster.documents("v").items()} == {"1": "v", "2": "before"}
    assert {key: each["a"] for key, each in cluster.documents("u").items()} == {"1": "one", "2": "two"}
    assert list(cluster.documents("made")) == ["3"]
    assert cluster.documents("t")["2"] == {"id": 2, "b": "renamed", "n": 3, "c": 7}
    assert cluster.documents("t")["1"]["a"] == "one"


def test_another_key_stops_and_is_another_index(database: Database, cluster: Cluster, tmp_path: Path) -> None:
    database.execute(made("t"))
    carries = Flow(tmp_path, database.url, sink(cluster), {"from": "public.t", "to": "t"})
    change = "ALTER TABLE t REPLICA IDENTITY FULL, DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n, id); UPDATE t SET a = 'k' WHERE id = 2"
    with carries.running() as life:
        delivered(life, cluster, "t", "2", a="two")
    said = carries.fails(lambda: database.execute(change))
    assert re.search(r"key of index t is \(n, id\) now(?s:.*)exclude: \[key\](?s:.*)cdcsync rebuild flow t", said)

    carries.tables = [{"from": "public.t", "to": "t", "schema_changes": {"mode": "evolve", "exclude": ["key"]}}]
    with carries.running() as life:
        assert delivered(life, cluster, "t", "2", a="k") == {"id": 2, "a": "k", "n": 2}
        database.execute("UPDATE t SET n = 7 WHERE id = 2; DELETE FROM t WHERE id = 1")
        delivered(life, cluster, "t", "2", n=7)

    assert list(cluster.documents("t")) == ["2"]


def test_stop_stops_and_the_plan_shows_what_a_run_would_do(
    database: Database, cluster: Cluster, tmp_path: Path
) -> None:
    database.execute(made("t"))
    carries = Flow(tmp_path, database.url, sink(cluster), {"from": "public.t", "to": "t"})
    (first,) = carries.asked("plan")
    assert (first["target"], first["reason"]) == ("t", "is created")
    assert first["statement"].startswith('PUT /t {"settings":')
    with carries.running() as life:
        delivered(life, cluster, "t", "2", a="two")
    assert carries.asked("plan") == []
    database.execute("ALTER TABLE t ADD c int, DROP a")
    (change,) = carries.asked("plan")
    assert change["statement"] == 'PUT /t-000001/_mapping {"properties":{"c":{"type":"integer"}}}'

    carries.tables = [{"from": "public.t", "to": "t", "schema_changes": "stop"}]
    with pytest.raises(Fatal, match="field c is missing: PUT /t-000001/_mapping"), carries.running() as life:
        life.until(lambda: False)
