"""What every test may use: one family of fixtures per `fix_*.py`, and the rules about skips and second tries."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cdcsync.testing.skips import Skips, read_allowed

pytest_plugins = [
    "fix_command",
    "fix_elastic",
    "fix_kafka",
    "fix_mysql",
    "fix_mysql_log",
    "fix_mysql_source",
    "fix_postgres",
    "fix_postgres_source",
    "fix_replay",
]


settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A machine that runs other tests beside is slow now and then, which says nothing of the code."""


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("shared")
    config.pluginmanager.register(Skips(read_allowed(Path(__file__).with_name("allowed_skips.txt"))), "skips")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `--reruns` pass over what may never fail once: unit tests, and faults, where a rare loss shows."""
    for item in items:
        if {"unit", "faults"} & set(item.path.parts):
            item.add_marker(pytest.mark.flaky(reruns=0))
