"""A process that writes a jsonl file is killed again and again: every line is there once, and whole."""

from __future__ import annotations

import random
import sys
import time
from textwrap import dedent
from typing import TYPE_CHECKING

import orjson

from cdcsync.jsonl.sink import FileSink
from cdcsync.ports import SinkContext
from cdcsync.testing.faults import Victim

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 12
WRITER = """
    import sys
    from pathlib import Path

    from cdcsync.change import Batch, Change, Column, Operation, Table, Transaction
    from cdcsync.jsonl.sink import FileSink
    from cdcsync.ports import SinkContext
    from cdcsync.testing.memory import MemoryPosition
    from cdcsync.types import Kind, Type

    TABLE = Table("shop", "t", (Column("id", Type(Kind.INTEGER, bits=32)), Column("note", Type(Kind.TEXT))), ("id",))
    path = Path(sys.argv[1])
    sink = FileSink(path, SinkContext("orders", path.parent))
    store = sink.positions()
    store.open("")
    sink.open()
    stored = store.load()
    number = int(stored.position.split(":")[1]) if stored else 0
    while True:
        number += 1
        changes = [Change(TABLE, Operation.INSERT, None, (number * 100 + at, "x" * 500)) for at in range(100)]
        position = MemoryPosition(1, number)
        transaction = Transaction(str(number), 0, position, number, changes, range(100))
        durable = sink.write(Batch((transaction,), position, 100, 1))
        if durable is not None:
            store.save(durable)
"""


def test_a_writer_killed_at_random_leaves_no_double_and_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    length = 0
    with Victim([sys.executable, "-c", dedent(WRITER), str(path)], tmp_path / "log", {}) as writer:
        for _ in range(KILLS):
            writer.start()
            _await_growth(writer, path, length)
            writer.rest(dice.uniform(0, 0.1))
            writer.kill()
            length = path.stat().st_size
        writer.start()
        _await_growth(writer, path, length)
        writer.kill()

    got = [orjson.loads(line)["key"]["id"] for line in _committed(tmp_path, path).splitlines()]

    assert len(got) > KILLS * 100
    assert got == list(range(100, 100 + len(got)))


def _await_growth(writer: Victim, path: Path, length: int) -> None:
    """Return once the file is longer than it was at the last kill: this life has cut it and has written."""
    deadline = time.monotonic() + 30
    while not path.exists() or path.stat().st_size <= length:
        assert time.monotonic() < deadline, "the writer writes nothing"
        writer.rest(0.01)


def _committed(folder: Path, path: Path) -> bytes:
    """Open the file once more, as the next process would: what was not committed is cut off."""

    sink = FileSink(path, SinkContext("orders", folder))
    sink.positions().open("")
    sink.open()
    sink.close()
    sink.positions().close()
    return path.read_bytes()
