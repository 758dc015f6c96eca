"""Certificates of the harness's own authority, for servers on loopback."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("localhost", "127.0.0.1", "::1")
"""Host names that a certificate is good for unless others are asked for."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM."""

    chain: Path
    key: Path
    """Mode 0600."""
    authority: Path
    """The root that a client verifies against."""


@functools.cache
def authority() -> trustme.CA:
    """Return the authority of this process, which signs for all its servers."""
    return trustme.CA(organization_name="cdcsync tests")


def issue(
    directory: Path,
    *names: str,
    owner: tuple[int, int] | None = None,
    key_type: trustme.KeyType = trustme.KeyType.ECDSA,
) -> Certificate:
    """Write `server.crt`, `server.key` and `ca.crt` into `directory`, owned by (uid, gid) when given."""
    leaf = authority().issue_cert(*(names or NAMES), key_type=key_type)
    made = Certificate(directory / "server.crt", directory / "server.key", directory / "ca.crt")
    made.chain.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    made.key.touch(mode=0o600)
    made.key.write_bytes(leaf.private_key_pem.bytes())
    made.authority.write_bytes(authority().cert_pem.bytes())
    if owner is not None:
        for file in (made.chain, made.key, made.authority):
            os.chown(file, *owner)
    return made
