"""Log lines on standard error: for people on a terminal, JSON otherwise, never with a secret in them."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

SECRET_MIN: Final = 8
"""Shorter secrets are taken out only where their place gives them away: they would cut ordinary words."""
_KEYS: Final = "password|passwd|secret|token|api_key"
_IN_PLACE: Final = (
    (re.compile(r"(\w://[^\s:/@]*):[^\s@]*@"), r"\1:***@"),
    (re.compile(rf"(?i)\b({_KEYS})(\"?\s*=\s*)('[^']*'|\"[^\"]*\"|[^\s,;&`'\"$*]+)"), r"\1\2***"),
    (re.compile(rf"(?i)\b({_KEYS})(\"?\s*:\s*)('[^']*'|\"[^\"]*\")"), r"\1\2***"),
)
_HIDDEN: set[str] = set()


def configure(*, style: str = "auto", debug: bool = False, stream: TextIO | None = None) -> None:
    """Set up structlog for this process; `style` is human, json, or auto (human on a terminal)."""
    stream = stream or sys.stderr
    human = style == "human" or (style == "auto" and stream.isatty())
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human, key="time"),
        structlog.processors.format_exc_info,
        _redacted,
        _human(stream) if human else structlog.processors.JSONRenderer(serializer=_dumps),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )


def hide(secrets: Iterable[str]) -> None:
    """Take these out of every line and message from now on."""
    _HIDDEN.update(secret for secret in secrets if len(secret) >= SECRET_MIN)


def redact(text: str) -> str:
    """Return the text without hidden secrets, passwords in URLs and `password=` pairs: the last resort."""
    for secret in _HIDDEN:
        text = text.replace(secret, "***")
    for pattern, replacement in _IN_PLACE:
        text = pattern.sub(replacement, text)
    return text


def _redacted(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {name: redact(value) if isinstance(value, str) else value for name, value in event.items()}


def _human(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), timestamp_key="time", pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )


def _dumps(event: EventDict, **_options: Any) -> str:
    first = {name: event.pop(name) for name in ("time", "level", "event") if name in event}
    return orjson.dumps({**first, **event}, default=str).decode()
