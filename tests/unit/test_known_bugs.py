"""The page of known bugs is whole, and the tests that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/known-bugs.md").read_text()
ROWS = re.findall(r"^\| (\d+) \|.*\|.*\| (.+) \|$", PAGE, re.MULTILINE)
NO_TEST = ("no such source yet", "no such sink yet", "cannot happen: ")


def test_each_of_the_81_classes_is_there_once() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 82))


def test_each_class_has_a_test_or_a_reason() -> None:
    bare = [number for number, here in ROWS if "`test_" not in here and not here.startswith(NO_TEST)]

    assert not bare


def test_every_test_that_is_named_exists() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "cdcsync/testing/conformance").glob("*.py")]
    there = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}

    named = set(re.findall(r"`(test_\w+)`", PAGE))

    assert named - there == set()
