"""Tables change under sysbench's traffic, the daemon dies between a mapping's update and the rows: documents equal rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fix_schema_traffic import FULL, SOURCES, changed_under_traffic, database_of, flow, rows

from cdcsync.testing.faults import Proxy

if TYPE_CHECKING:
    from pathlib import Path

    from fix_elastic import Cluster


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SOURCES if FULL else ["mariadb10"])
def test_documents_equal_rows(name: str, request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> None:
    server = cluster.server
    with database_of(request, name) as source, Proxy(server.host, server.port) as proxy:
        carries = flow(tmp_path, source, {"elasticsearch": {"hosts": [f"http://{proxy.host}:{proxy.port}"]}})

        def done(table: str) -> bool:
            want = {str(row["id"]): row | ({"f": str(row["f"])} if "f" in row else {}) for row in rows(source, table)}
            return cluster.documents(table) == want

        def ready() -> bool:
            return "sbtest3-000001" in cluster.ask("GET", "/_alias") and bool(cluster.documents("sbtest3"))

        with carries.victim() as killed:
            changed_under_traffic(source, killed, ready=ready, done=done, proxy=(proxy, b'"acknowledged":true'))
