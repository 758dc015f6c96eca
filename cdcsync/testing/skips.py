"""A pytest plugin: a skip that is not listed with its reason fails the run; the others are counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from _pytest.terminal import TerminalReporter


@dataclass(frozen=True, slots=True)
class Allowed:
    """One line of the list: `TEST-PATTERN | REASON`, the reason as the skip gives it."""

    pattern: str
    """A test's id, with `*` for any text."""
    reason: str


@dataclass(eq=False)
class Skips:
    """What was skipped in one run."""

    allowed: tuple[Allowed, ...]
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Test and reason."""

    def unlisted(self) -> list[tuple[str, str]]:
        """Return the skips that no line allows."""
        return [(test, reason) for test, reason in self.seen if not self._allows(test, reason)]

    def _allows(self, test: str, reason: str) -> bool:
        return any(fnmatchcase(test, line.pattern) and line.reason == reason for line in self.allowed)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test; an expected failure is none."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.seen.append((report.nodeid, _reason(report.longrepr)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that skipped itself."""
        if report.skipped:
            self.seen.append((report.nodeid, _reason(report.longrepr)))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that would have passed."""
        if self.unlisted() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Print the count, and what is not listed."""
        unlisted = self.unlisted()
        terminalreporter.write_line(f"skips: {len(self.seen)}, of which {len(unlisted)} not listed")
        for test, reason in unlisted:
            terminalreporter.write_line(f"NOT LISTED in allowed_skips.txt: {test} | {reason}", red=True)


def read_allowed(path: Path) -> tuple[Allowed, ...]:
    """Return the lines of the list; `#` begins a comment."""
    lines: Iterable[str] = path.read_text().splitlines() if path.exists() else ()
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        pattern, bar, reason = (part.strip() for part in text.partition("|"))
        if not (pattern and bar and reason):
            msg = f"{path}:{number}: want `TEST-PATTERN | REASON`"
            raise pytest.UsageError(msg)
        found.append(Allowed(pattern, reason))
    return tuple(found)


def _reason(detail: object) -> str:
    """Return the reason of a skip, which pytest keeps as (file, line, "Skipped: reason")."""
    text = str(detail[2]) if isinstance(detail, tuple) else str(detail)
    return text.removeprefix("Skipped: ")
