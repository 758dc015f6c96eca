"""The rule that a skip is listed with its reason, shown on runs of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["pytester"]

CONFTEST = """
from pathlib import Path
from cdcsync.testing.skips import Skips, read_allowed
def pytest_configure(config):
    config.pluginmanager.register(Skips(read_allowed(Path(__file__).with_name("allowed.txt"))))
"""
TESTS = """
import pytest
def test_that_runs(): pass
def test_that_does_not(): pytest.skip("no moon")
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_it=TESTS)
    return pytester


def _allow(folder: Path, line: str) -> None:
    (folder / "allowed.txt").write_text(f"# a comment\n{line}\n")


def test_a_skip_that_is_not_listed_fails_the_run(run: pytest.Pytester) -> None:
    got = run.runpytest_inprocess()

    assert got.ret == pytest.ExitCode.TESTS_FAILED
    got.stdout.fnmatch_lines(["skips: 1, of which 1 not listed", "NOT LISTED*test_that_does_not | no moon"])


def test_a_listed_skip_is_counted_and_passes(run: pytest.Pytester) -> None:
    _allow(run.path, "test_it.py::test_that_* | no moon")

    got = run.runpytest_inprocess()

    assert got.ret == pytest.ExitCode.OK
    got.stdout.fnmatch_lines(["skips: 1, of which 0 not listed"])


def test_a_skip_for_another_reason_than_listed_fails_the_run(run: pytest.Pytester) -> None:
    _allow(run.path, "test_it.py::* | no sun")

    got = run.runpytest_inprocess()

    assert got.ret == pytest.ExitCode.TESTS_FAILED


def test_a_file_that_skips_itself_is_seen_too(run: pytest.Pytester) -> None:
    run.makepyfile(test_whole='import pytest\npytest.skip("no sea", allow_module_level=True)')

    got = run.runpytest_inprocess("test_whole.py")

    assert got.ret != pytest.ExitCode.OK
    got.stdout.fnmatch_lines(["NOT LISTED*test_whole.py | no sea"])


def test_an_expected_failure_is_no_skip(run: pytest.Pytester) -> None:
    run.makepyfile(test_it="import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(): assert False")

    got = run.runpytest_inprocess()

    assert got.ret == pytest.ExitCode.OK
    got.stdout.fnmatch_lines(["skips: 0, of which 0 not listed"])


def test_a_line_without_a_reason_is_refused(run: pytest.Pytester) -> None:
    _allow(run.path, "test_it.py::*")

    got = run.runpytest_inprocess()

    assert got.ret == pytest.ExitCode.USAGE_ERROR
    got.stderr.fnmatch_lines(["*allowed.txt:2: want*"])
