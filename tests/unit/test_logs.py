"""Log lines: their form, and what is never in them."""

from __future__ import annotations

import io

import orjson
import pytest
import structlog

from cdcsync import logs


@pytest.fixture
def lines() -> io.StringIO:
    """What is logged as JSON."""
    stream = io.StringIO()
    logs.configure(style="json", stream=stream)
    return stream


def test_a_line_is_json_with_the_event_and_what_is_bound(lines: io.StringIO) -> None:
    structlog.get_logger().bind(pipeline="orders").info("streaming", position="0/1")

    got = orjson.loads(lines.getvalue())
    assert (got["event"], got["level"], got["pipeline"], got["position"]) == ("streaming", "info", "orders", "0/1")


def test_debug_lines_come_only_when_asked_for(lines: io.StringIO) -> None:
    structlog.get_logger().debug("detail")

    assert lines.getvalue() == ""


def test_a_human_line_is_plain_text_without_a_terminal() -> None:
    stream = io.StringIO()
    logs.configure(style="human", stream=stream)

    structlog.get_logger().warning("unready", end="source")

    assert "unready" in stream.getvalue()
    assert "end=source" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    "said",
    [
        "connect to postgres://me:hunter2-hunter2@db/shop",
        "postgres://:hunter2-hunter2@db",
        "host=db password=hunter2-hunter2",
        "password: 'hunter2-hunter2'",
        'api_key="hunter2-hunter2"',
    ],
)
def test_a_secret_in_its_usual_place_is_taken_out(lines: io.StringIO, said: str) -> None:
    structlog.get_logger().warning("unready", fault=said)

    assert "hunter2" not in lines.getvalue()
    assert "***" in lines.getvalue()


def test_a_hidden_secret_is_taken_out_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_HIDDEN", set())
    logs.hide(["correct horse", "short"])

    got = logs.redact("said correct horse in short")

    assert got == "said *** in short"
