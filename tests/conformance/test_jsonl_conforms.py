"""A jsonl file passes the suites: replayed from its first line to its committed end, it gives the rows of the source."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cdcsync.change import UNCHANGED, Change, Operation
from cdcsync.jsonl.sink import FileSink
from cdcsync.jsonl.store import FileStore
from cdcsync.lines import decode_row
from cdcsync.ports import SinkContext
from cdcsync.testing.conformance.samples import batch
from cdcsync.testing.conformance.sinks import ExactlyOnceSuite, Target
from cdcsync.testing.conformance.stores import StoreSuite
from cdcsync.testing.memory import MemoryDatabase, MemorySink
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cdcsync.change import Row, Table
    from cdcsync.ports import PositionStore, Sink

PIPELINE = "p"


def members(text: str, at: int) -> tuple[dict[str, str], int]:
    """Return the raw text of each member of the object that begins there, and where it ends."""
    found: dict[str, str] = {}
    scan = json.JSONDecoder().raw_decode
    while text[at] != "}":
        if text[at + 1] == "}":
            return found, at + 2
        name, colon = scan(text, at + 1)
        _, at = scan(text, colon + 1)
        found[name] = text[colon + 1 : at]
    return found, at + 1


def row(table: Table, raw: str) -> Row | None:
    """Return the row of a line, a JSON column as the text that stands there."""
    if raw == "null":
        return None
    texts = members(raw, 0)[0]
    json_columns = {column.name for column in table.columns if column.type.kind is Kind.JSON}
    plain = {name: json.loads(text) for name, text in texts.items() if name not in json_columns}
    values = dict(zip(table.at, decode_row(table, json.dumps(plain)), strict=True))
    for name in json_columns & texts.keys():
        values[name] = None if texts[name] == "null" else texts[name]
    return tuple(values.values())


def change(table: Table, line: str) -> Change | None:
    """Return the change of a line; None where it is of another table, or not of a row."""
    fields: dict[str, Any] = members(line, 0)[0]
    operation = json.loads(fields["operation"])
    if json.loads(fields["table"]) != table.qualified or operation == "copy":
        return None
    after = row(table, fields["after"])
    if after is not None:
        assert [column.name for column, value in zip(table.columns, after, strict=True) if value is UNCHANGED] == (
            json.loads(fields["unchanged"])
        )
    return Change(table, Operation(operation), row(table, fields["before"]), after)


class TestJsonlFile(ExactlyOnceSuite):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        path = tmp_path / "out.jsonl"

        def make(state: Path, tables: Sequence[Table]) -> tuple[Sink, PositionStore]:
            sink = FileSink(path, SinkContext(PIPELINE, state, tuple(tables), "memory:1"))
            return sink, sink.positions()

        def rows(table: Table) -> list[Row]:
            mark = json.loads(path.with_name("out.jsonl.position").read_text())
            lines = path.read_bytes()[: mark["length"]].decode().splitlines()
            changes = [each for line in lines if (each := change(table, line)) is not None]
            database = MemoryDatabase()
            replayed = MemorySink(database)
            replayed.positions().open("")
            replayed.write(batch(0, *changes))
            return [*database.rows.get(table.qualified, {}).values(), *database.appended.get(table.qualified, [])]

        return Target(make, rows, path.with_name("out.jsonl.lock").unlink)


class TestJsonlStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Callable[[Path], PositionStore]:
        return lambda _state: FileStore(tmp_path / "out.jsonl", PIPELINE)
