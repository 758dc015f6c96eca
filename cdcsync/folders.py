"""Where a pipeline's files, state and socket lie, by systemd's variables where there are any."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_CONFIG: Final = Path("/etc/cdcsync")
SYSTEM_STATE: Final = Path("/var/lib/cdcsync")
SYSTEM_RUN: Final = Path("/run/cdcsync")


def state(name: str, environ: Mapping[str, str], chosen: Path | None) -> Path:
    """Return the state directory; it need not exist."""
    if chosen is not None:
        return chosen
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return SYSTEM_STATE / name
    home = environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(home) / "cdcsync" / name


def socket(name: str, environ: Mapping[str, str], config: Path | None, state: Path) -> Path:
    """Return the control socket's path, the same for the daemon and for whoever asks it."""
    given = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given) / f"{name}.sock"
    if config is not None and config.parent == SYSTEM_CONFIG:
        return SYSTEM_RUN / f"{name}.sock"
    return state / "control.sock"
