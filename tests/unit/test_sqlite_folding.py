"""What SQLite holds after a folded batch is what the source holds, also where rows are written one by one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from unit.test_folding import T, histories

from cdcsync.folding import Group, fold
from cdcsync.ports import SinkContext
from cdcsync.sqlite.config import SqliteConfig, Synchronous
from cdcsync.sqlite.sink import SqliteSink
from cdcsync.sqlite.writer import Writer
from cdcsync.testing.conformance.samples import batch, insert


@pytest.mark.parametrize("singly", [False, True])
@settings(max_examples=60, deadline=None)
@given(histories())
def test_a_folded_batch_leaves_the_rows_of_the_source(
    singly: bool, history: tuple[dict[int, Any], list[Any], dict[int, Any]]
) -> None:
    start, items, want = history
    with tempfile.TemporaryDirectory() as folder:
        config = SqliteConfig(path=Path(folder) / "t.db", synchronous=Synchronous.NORMAL)
        sink = SqliteSink(config, SinkContext("p", Path(folder), (T,)))
        sink.positions().open("")
        sink.open()
        sink.write(batch(0, *[insert(T, *row) for row in start.values()]))

        if singly:
            for group in fold(batch(1, *items)):
                assert isinstance(group, Group)
                assert Writer(sink.positions().connection).write_singly(group, sink._plans) == {}
        else:
            sink.write(batch(1, *items))
        got = sink.positions().connection.execute("SELECT * FROM t").fetchall()
        sink.close()

    assert sorted(got) == sorted(want.values())
