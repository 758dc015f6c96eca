"""The style that no linter knows: lengths, heads, names, and what the core must not touch."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
FUNCTION_LINES_P95 = 30
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
HEAD_CHARACTERS_MAX = 160
BANNED_NAMES = frozenset(
    {"utils", "util", "common", "base", "manager", "managers", "helpers", "helper", "misc", "core"}
)
BANNED_SUFFIXES = ("Impl", "Manager", "Helper", "Utils")
CLOCKS = frozenset(
    {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}
)
READS_CLOCK = {
    "cdcsync/daemon.py": "where the clock and the dice of a pipeline come from",
    "cdcsync/postgres/replication.py": "a status message carries the time of day (protocol-replication); nothing reads it",
    "cdcsync/beside.py": "a row that was read has no commit time; that of the reading stands for it",
    "cdcsync/mysql/first.py": "a row that was copied has no commit time; that of the copy stands for it",
    "cdcsync/postgres/first.py": "a row that was copied has no commit time; that of the copy stands for it",
    "cdcsync/kafka/writing.py": "`ts_ms` of Debezium's envelope is when the change was written; readers measure delays by it",
    "cdcsync/positions.py": "`updated_at` is for people; nothing reads it",
}
"""Modules that read them, and why; all else has them passed in."""


def _python(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


PACKAGE = _python("cdcsync")
TESTS = _python("tests")
EVERYTHING = [*PACKAGE, *TESTS, *_python("benchmarks")]
LOGIC = [path for path in PACKAGE if not {"cli", "demo", "testing"} & set(path.relative_to(ROOT).parts)]


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines from `def` to the end, without the docstring, which says the contract."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def _where(path: Path, node: ast.stmt | ast.expr | ast.excepthandler) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def test_a_function_is_short() -> None:
    lengths = {
        f"{_where(path, function)} {function.name}": _lines(function)
        for path in PACKAGE
        for function in _functions(path)
    }

    got = sorted(lengths.values())[int(len(lengths) * 0.95)]

    longest = sorted(lengths, key=lambda name: -lengths[name])[:40]
    told = "\n".join(f"{lengths[name]} {name}" for name in longest)
    assert got <= FUNCTION_LINES_P95, f"p95 is {got} lines; the longest:\n{told}"
    assert lengths[longest[0]] <= FUNCTION_LINES_MAX, f"the longest:\n{told}"


def test_a_file_is_short() -> None:
    got = [
        f"{path.relative_to(ROOT)}: {count}"
        for path in EVERYTHING
        if (count := len(path.read_text().splitlines())) > FILE_LINES_MAX
    ]

    assert got == []


def test_a_module_begins_with_one_sentence() -> None:
    got = []
    for path in EVERYTHING:
        head = (ast.get_docstring(_tree(path)) or "").split("\n\n")[0].replace("\n", " ")
        if not 0 < len(head) <= HEAD_CHARACTERS_MAX or not head.endswith("."):
            got.append(f"{path.relative_to(ROOT)}: {head!r}")

    assert got == []


def test_a_module_is_named_for_what_it_holds() -> None:
    got = [str(path.relative_to(ROOT)) for path in EVERYTHING if BANNED_NAMES & {path.stem, path.parent.name}]

    assert got == []


def test_a_class_is_named_without_a_suffix() -> None:
    got = [
        f"{_where(path, node)} {node.name}"
        for path in PACKAGE
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ClassDef) and (node.name.endswith(BANNED_SUFFIXES) or node.name.startswith("Abstract"))
    ]

    assert got == []


def test_only_the_daemon_catches_everything() -> None:
    got = [
        _where(path, node)
        for path in PACKAGE
        if path != ROOT / "cdcsync" / "daemon.py"
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _raises_on(node)
    ]

    assert got == []


def _raises_on(handler: ast.ExceptHandler) -> bool:
    """Return whether the handler only tidies up: its last statement raises the same again."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(part) for part in caught.elts)
    return caught is None or (isinstance(caught, ast.Name) and caught.id in {"Exception", "BaseException"})


def test_the_logic_has_its_clock_and_its_dice_passed_in() -> None:
    got = [
        _where(path, node)
        for path in LOGIC
        if str(path.relative_to(ROOT)) not in READS_CLOCK
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and _reads_clock_or_dice(node.func)
    ]

    assert got == []


def _reads_clock_or_dice(called: ast.expr) -> bool:
    if not (isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)):
        return False
    owner = called.value.id
    return (owner, called.attr) in CLOCKS or (owner == "random" and called.attr not in {"Random", "SystemRandom"})


def test_nothing_sleeps_in_the_logic() -> None:
    got = [
        _where(path, node)
        for path in LOGIC
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}
    ]

    assert got == []


@pytest.mark.parametrize("path", [path for path in TESTS if path.stem.startswith("test_")], ids=lambda path: path.stem)
def test_a_test_is_named_as_a_claim(path: Path) -> None:
    got = [
        f"{_where(path, function)} {function.name}"
        for function in _functions(path)
        if function.name.startswith("test_") and (function.name.count("_") < 3 or function.name[-1].isdigit())
    ]

    assert got == []


def test_every_ignore_of_the_linter_has_a_reason() -> None:
    lines = (
        (ROOT / "pyproject.toml")
        .read_text()
        .split("[tool.ruff.lint]")[1]
        .split("[tool.ruff.lint.pydocstyle]")[0]
        .splitlines()
    )

    got = [line for line in lines if line.strip().startswith('"') and line.rstrip().endswith(",")]

    assert got == []
