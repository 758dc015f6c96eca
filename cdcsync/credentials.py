"""Secrets from outside the file: `${env:NAME}`, `${file:PATH}`, `${credential:NAME}` in any text of it."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from cdcsync.document import Document, KeyPath, Problem, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REFERENCE: Final = re.compile(r"\$?\$\{([^}]*)\}")
SOURCES: Final = ("env", "file", "credential")


class Missing(ValueError):  # noqa: N818  says what is wrong with a reference
    """A reference that does not resolve; the message says why and never holds a value."""


@dataclass(slots=True)
class Resolver:
    """Resolves references by the environment, and relative files by `folder`."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def text(self, text: str, *, in_url: bool = False) -> str:
        """Return the text with every reference replaced; `$${` stands for `${`. Raises Missing.

        In a URL the replacement is percent-encoded, so that any password fits.
        """

        def replace(match: re.Match[str]) -> str:
            if match[0].startswith("$$"):
                return match[0][1:]
            value = self._one(match[1])
            return quote(value, safe="") if in_url else value

        return REFERENCE.sub(replace, text)

    def _one(self, reference: str) -> str:
        source, colon, name = reference.partition(":")
        if not colon or source not in SOURCES:
            msg = f"${{{source}:...}} is not known{nearest(source, SOURCES)}"
            raise Missing(msg)
        ways: dict[str, Callable[[str], str]] = {
            "env": self._environment,
            "file": self._file,
            "credential": self._credential,
        }
        return ways[source](name)

    def _environment(self, name: str) -> str:
        if name not in self.environ:
            msg = f"the environment has no variable {name}"
            raise Missing(msg)
        return self.environ[name]

    def _file(self, name: str) -> str:
        return _first_line(self.folder / Path(name).expanduser())

    def _credential(self, name: str) -> str:
        folder = self.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            msg = f"no credential {name}: $CREDENTIALS_DIRECTORY is not set (systemd sets it by LoadCredential={name}:)"
            raise Missing(msg)
        if "/" in name or name in ("", ".", ".."):
            msg = "a credential's name is one word without a slash"
            raise Missing(msg)
        return _first_line(Path(folder) / name)


def _first_line(path: Path) -> str:
    """Return a file's text without the newline at its end."""
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        msg = f"{path} is not UTF-8"
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
    raise Missing(msg)


@dataclass(slots=True)
class Resolved:
    """A document's value with its references replaced."""

    value: Any
    replaced: set[KeyPath] = field(default_factory=set)
    """Texts that held a reference: what they hold now is not to be shown."""
    problems: list[Problem] = field(default_factory=list)


def resolve(document: Document, resolver: Resolver, urls: tuple[KeyPath, ...] = ()) -> Resolved:
    """Replace every reference in a document; texts at `urls` are URLs."""
    resolved = Resolved(None)

    def walk(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, at)) for at, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        resolved.replaced.add(path)
        try:
            return resolver.text(value, in_url=path in urls)
        except Missing as missing:
            resolved.problems.append(Problem(document.value_mark(path), str(missing)))
            return value

    resolved.value = walk(document.value, ())
    return resolved


def is_private(path: Path) -> bool:
    """Return whether nobody but its owner may read or write the file."""
    return not stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)


def is_supervised(environ: Mapping[str, str]) -> bool:
    """Return whether systemd runs this process as a unit."""
    return "NOTIFY_SOCKET" in environ or environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
