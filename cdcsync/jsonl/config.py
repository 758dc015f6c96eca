"""The `jsonl:` section of a pipeline's file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class JsonlConfig(BaseModel):
    """Where the lines go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(default=Path("-"), description="A file; `-` is standard output. Pipes and devices behave as it.")

    @property
    def is_stream(self) -> bool:
        """Whether nothing can be cut back there: standard output, a pipe, a device."""
        if str(self.path) == "-":
            return True
        try:
            return not stat.S_ISREG(os.stat(self.path).st_mode)  # noqa: PTH116  a missing file is no error here
        except OSError:
            return False
