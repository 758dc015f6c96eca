"""A connector in a package of its own passes the suites that are shipped for third parties."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cdcsync.ports import SinkContext
from cdcsync.testing.conformance.sinks import Target, TransactionalSuite
from cdcsync.testing.conformance.stores import StoreSuite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.change import Row, Table
    from cdcsync.ports import PositionStore, Sink

HERE = Path(__file__).parent
sys.path.append(str(HERE))
import shelved_connector as shelved  # type: ignore[import-not-found]  # noqa: E402  a package of its own, not installed for the suites


class TestShelvedSink(TransactionalSuite):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        config = shelved.ShelvedConfig(path=tmp_path / "target.shelf")

        def make(state: Path, tables: Sequence[Table]) -> tuple[Sink, PositionStore]:
            sink = shelved.ShelvedSink(config, SinkContext("p", state, tuple(tables)))
            return sink, sink.positions()

        def rows(table: Table) -> list[Row]:
            content = shelved.read(config.path)
            return [*content.rows.get(table.qualified, {}).values(), *content.appended.get(table.qualified, [])]

        return Target(make, rows)


class TestShelvedStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Callable[[Path], PositionStore]:
        config = shelved.ShelvedConfig(path=tmp_path / "positions.shelf")
        return lambda state: shelved.ShelvedStore(config, SinkContext("p", state))


def test_a_connector_outside_the_tree_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """Its metadata is all that an installation adds."""
    info = tmp_path / "shelved_connector-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelved-connector\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[cdcsync.connectors]\nshelved = shelved_connector:CONNECTOR\n")
    program = "from cdcsync import connectors; print(connectors.load('shelved').name)"

    paths = f"import sys; sys.path += [{str(tmp_path)!r}, {str(HERE)!r}]; "
    got = subprocess.run(
        [sys.executable, "-c", paths + program], capture_output=True, text=True, check=True, timeout=60
    )

    assert got.stdout == "shelved\n"
