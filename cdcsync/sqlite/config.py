"""What a pipeline's file says about SQLite: as a sink and as a store of positions."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from cdcsync.errors import ExitStatus, Fatal


class Synchronous(enum.StrEnum):
    """When SQLite waits for the disk."""

    FULL = "full"
    """At every commit: what is committed survives a power cut."""
    NORMAL = "normal"
    """At checkpoints: a power cut may take the last commits back, rows and position together."""


class SqliteConfig(BaseModel):
    """A SQLite database, in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="the database file; made when it is missing")
    synchronous: Synchronous = Field(
        default=Synchronous.FULL,
        description="full: commits survive a power cut; normal: the last ones may be lost as a whole",
    )
    busy_timeout_s: float = Field(default=5.0, ge=0, le=3600, description="how long to wait for another writer's lock")


def from_url(url: str) -> dict[str, Any]:
    """Return the section of `sqlite:path`, `sqlite:///relative/path` or `sqlite:////absolute/path`."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if url.startswith(f"{parts.scheme}://"):
        path = path[1:]
    if parts.netloc or not path or parts.query or parts.fragment:
        msg = f"not the URL of a SQLite file: {url}"
        hint = "sqlite:///relative/path.db or sqlite:////absolute/path.db"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    return {"path": path}
