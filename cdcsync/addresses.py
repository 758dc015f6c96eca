"""Where a server is and how it is verified: what every system's section says in the same words."""

from __future__ import annotations

import enum
import ipaddress
import re
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator


class TlsMode(enum.StrEnum):
    """How much is asked of the server's TLS; libpq's words, without `allow`."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class Host(NamedTuple):
    """One server's address; `name` is a directory for a unix socket."""

    name: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written in a file."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether nothing leaves this machine."""
        if self.name.startswith(("/", "@")) or self.name == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.name).is_loopback
        except ValueError:
            return False


class Tls(BaseModel):
    """How the connection is encrypted and the server verified."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: TlsMode | None = None
    """Absent: verify-full; prefer where every host is on this machine."""
    ca: Path | None = None
    """PEM file of the authorities to trust; absent: the system's."""
    cert: Path | None = None
    """PEM file of our own certificate, where the server asks for one; with `key`."""
    key: Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> Tls:
        if self.mode is TlsMode.VERIFY_CA and self.ca is None:
            msg = "mode verify-ca needs `ca`"
            raise ValueError(msg)
        if (self.cert is None) != (self.key is None):
            msg = "`cert` and `key` go together"
            raise ValueError(msg)
        return self


def parse_host(text: str, port: int) -> Host:
    """Take `name`, `name:port`, `[v6]:port`, a bare v6 address, and a socket's directory."""
    if text.startswith(("/", "@")):
        return Host(text, port)
    matched = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?|([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)", text)
    if matched is None:
        msg = f"not a host: {text!r}; write name, name:port or [address]:port"
        raise ValueError(msg)
    name = matched[1] or matched[3] or matched[5]
    return Host(name, int(matched[2] or matched[4] or port))
