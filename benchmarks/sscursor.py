"""Reads one table by PyMySQL's SSCursor, every row dropped: `sscursor.py PORT`."""

from __future__ import annotations

import os
import sys
from collections import deque

import pymysql
from pymysql.cursors import SSCursor


def main(port: int) -> None:
    """Read all rows as PyMySQL gives them."""
    password = os.environ["BENCH_PASSWORD"]
    with (
        pymysql.connect(host="127.0.0.1", port=port, user="root", password=password, database="bench") as connection,
        connection.cursor(SSCursor) as cursor,
    ):
        cursor.execute("SELECT * FROM bench")
        deque(cursor, maxlen=0)


main(int(sys.argv[1]))
