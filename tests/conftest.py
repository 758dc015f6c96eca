"""What every test may use: one family of fixtures per `fix_*.py`, and the rule about skips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cdcsync.testing.skips import Skips, read_allowed

if TYPE_CHECKING:
    import pytest

pytest_plugins = [
    "fix_command",
    "fix_mysql",
    "fix_mysql_source",
    "fix_postgres",
    "fix_postgres_source",
    "fix_replay",
]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Skips(read_allowed(Path(__file__).with_name("allowed_skips.txt"))), "skips")
