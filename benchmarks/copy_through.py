"""Passes one table's COPY from one PostgreSQL to another by psycopg: `copy_through.py SOURCE TARGET`."""

from __future__ import annotations

import sys

import psycopg


def main(source_url: str, target_url: str) -> None:
    """Pass the blocks on as they come."""
    with psycopg.connect(source_url) as source, psycopg.connect(target_url) as target:
        reading = source.cursor().copy("COPY (SELECT * FROM bench) TO STDOUT")
        writing = target.cursor().copy("COPY bench FROM STDIN")
        with reading as blocks, writing as out:
            for block in blocks:
                out.write(block)


main(*sys.argv[1:])
