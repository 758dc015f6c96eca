"""cdcsync keeps other systems in step with a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdcsync.carrying import each
    from cdcsync.following import stream
    from cdcsync.pipeline import Pipeline

__all__ = ["Pipeline", "each", "stream"]


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is asked for: the command starts without it."""
    if name == "Pipeline":
        from cdcsync.pipeline import Pipeline  # noqa: PLC0415

        return Pipeline
    if name == "each":
        from cdcsync.carrying import each  # noqa: PLC0415

        return each
    if name == "stream":
        from cdcsync.following import stream  # noqa: PLC0415

        return stream
    msg = f"module 'cdcsync' has no attribute {name!r}"
    raise AttributeError(msg)
