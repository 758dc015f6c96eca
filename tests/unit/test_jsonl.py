"""The jsonl sinks: a file is exactly what its position says, whatever ended the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from cdcsync.change import Batch, Change, Column, CopyStart, Item, Operation, Table, Transaction
from cdcsync.errors import ExitStatus, Fatal, Transient
from cdcsync.jsonl.connector import CONNECTOR, from_url
from cdcsync.jsonl.sink import FileSink, StreamSink
from cdcsync.ports import SinkContext, Stored
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

TABLE = Table("shop", "t", (Column("id", Type(Kind.INTEGER, bits=32)),), ("id",))


def batch(number: int, *items: Item) -> Batch:
    position = MemoryPosition(1, number)
    transaction = Transaction(str(number), 0, position, number, items, range(len(items)))
    return Batch((transaction,), position, len(items), 1)


def insert(number: int) -> Change:
    return Change(TABLE, Operation.INSERT, None, (number,))


def opened(path: Path, pipeline: str = "orders") -> FileSink:
    sink = FileSink(path, SinkContext(pipeline, path.parent))
    sink.positions().open("")
    sink.open()
    return sink


def closed(sink: FileSink) -> None:
    sink.close()
    sink.positions().close()


def ids(path: Path) -> list[int]:
    return [orjson.loads(line)["key"]["id"] for line in path.read_bytes().splitlines()]


def test_what_was_not_committed_is_cut_off_at_open(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = opened(path)
    assert sink.write(batch(1, insert(1))) == MemoryPosition(1, 1)
    closed(sink)
    with path.open("ab") as file:
        file.write(b'{"torn')

    sink = opened(path)

    assert sink.positions().load() == Stored("1:1:0", 1)
    sink.write(batch(2, insert(2)))
    assert ids(path) == [1, 2]
    closed(sink)


@pytest.mark.parametrize("older", [b"", b'{"key": {"id": 0}}\n'])
def test_what_the_first_batch_left_when_it_was_killed_is_cut_off(tmp_path: Path, older: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(older)
    closed(opened(path))
    with path.open("ab") as file:
        file.write(b'{"torn')

    sink = opened(path)
    sink.write(batch(1, insert(1)))
    closed(sink)

    assert ids(path) == ([0, 1] if older else [1])


def test_a_batch_written_twice_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = opened(path)
    for number in (1, 2, 1, 2):
        sink.write(batch(number, insert(number)))
    closed(sink)
    sink = opened(path)
    sink.write(batch(2, insert(2)))
    closed(sink)

    assert ids(path) == [1, 2]


def test_an_interrupted_copy_that_begins_again_clears_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = opened(path)
    sink.write(batch(1, CopyStart(TABLE, again=False)))
    sink.write(batch(2, insert(1)))
    sink.write(batch(0, CopyStart(TABLE, again=True)))
    sink.write(batch(1, insert(7)))
    closed(sink)

    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]

    assert [line["operation"] for line in lines] == ["copy", "insert"]


def test_a_first_copy_into_a_file_that_holds_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("{}\n")
    sink = opened(path)

    with pytest.raises(Fatal, match="not empty"):
        sink.write(batch(1, CopyStart(TABLE, again=False)))
    closed(sink)


def test_a_file_shorter_than_its_position_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = opened(path)
    sink.write(batch(1, insert(1)))
    closed(sink)
    path.write_bytes(b"")

    with pytest.raises(Fatal, match="lines were lost"):
        opened(path)


def test_a_second_process_and_another_pipeline_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = opened(path)
    sink.write(batch(1, insert(1)))

    with pytest.raises(Fatal) as held:
        opened(path)
    closed(sink)
    with pytest.raises(Fatal) as owned:
        opened(path, "another")

    assert held.value.status is owned.value.status is ExitStatus.OWNERSHIP


def test_a_fence_taken_meanwhile_stops_the_sink(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = opened(path)
    sink.write(batch(1, insert(1)))
    sidecar = tmp_path / "out.jsonl.position"
    mark = orjson.loads(sidecar.read_bytes())
    sidecar.write_bytes(orjson.dumps({**mark, "fence": mark["fence"] + 1}))

    with pytest.raises(Fatal) as lost:
        sink.write(batch(2, insert(2)))

    assert lost.value.status is ExitStatus.OWNERSHIP
    closed(sink)


def test_a_full_disk_is_transient() -> None:
    sink = StreamSink(Path("/dev/full"))
    sink.open()

    with pytest.raises(Transient):
        sink.write(batch(1, insert(1)))
    sink.close()


def test_a_reader_that_goes_away_ends_the_process_quietly() -> None:
    program = (
        "from cdcsync.jsonl.sink import StreamSink; from pathlib import Path; import test_jsonl as t\n"
        "s = StreamSink(Path('-')); s.open()\n"
        "while True: s.write(t.batch(1, *[t.insert(1)] * 1000))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parent
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    assert process.wait(20) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_urls_and_devices_choose_the_guarantee(tmp_path: Path) -> None:
    spec = CONNECTOR.sink
    assert spec is not None

    def guarantee(url: str) -> str:
        return spec.guarantee(spec.config.model_validate(from_url(url))).value

    assert from_url("stdout:") == {"path": "-"}
    assert guarantee("jsonl:/dev/null") == guarantee("stdout:") == "at-least-once"
    assert guarantee(f"jsonl:{tmp_path}/x.jsonl") == "exactly-once"
