"""mysql-replication as a contender, in a process of its own: reads a server's whole log, keeps the last rows."""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import orjson
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import WriteRowsEvent

PROVED = 1000


def main(port: int, out: Path) -> None:
    """Read all that is there."""
    end = {"host": "127.0.0.1", "port": port, "user": "root", "passwd": os.environ["BENCH_PASSWORD"]}
    stream = BinLogStreamReader(
        connection_settings={**end, "ssl_disabled": True},
        server_id=5402,
        log_file="binlog.000001",
        log_pos=4,
        resume_stream=True,
        only_schemas=["bench"],
        only_tables=["bench"],
        only_events=[WriteRowsEvent],
    )
    last: deque[dict[str, Any]] = deque(maxlen=PROVED)
    for event in stream:
        for row in event.rows:
            last.append(row["values"])
    stream.close()
    out.write_bytes(b"\n".join(orjson.dumps(row, default=str) for row in last))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
