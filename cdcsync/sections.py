"""The sections of a file that name a system: `postgres: {...}`, or a URL, or the system's name alone."""

from __future__ import annotations

import difflib
import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cdcsync import connectors
from cdcsync.credentials import is_private, is_supervised
from cdcsync.document import KeyPath, Problem, nearest
from cdcsync.errors import Fatal
from cdcsync.validation import secrets_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import BaseModel

    from cdcsync.connectors import Connector
    from cdcsync.validation import Checked

SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):")


class Role(enum.StrEnum):
    """What a system is to a pipeline; the value is the key in the file."""

    SOURCE = "source"
    SINK = "sink"
    POSITIONS = "positions"

    def of(self, connector: Connector) -> type[BaseModel] | None:
        """Return the model of a connector's section in this role, None when it has no such role."""
        specs = {Role.SOURCE: connector.source, Role.SINK: connector.sink, Role.POSITIONS: connector.store}
        spec = specs[self]
        return spec.config if spec else None


@dataclass(frozen=True, slots=True)
class Section:
    """One system, chosen and configured."""

    connector: Connector
    config: BaseModel
    """An instance of the connector's model for this role."""

    @property
    def system(self) -> str:
        """The connector's name."""
        return self.connector.name


@dataclass(frozen=True, slots=True)
class Reading:
    """Checks the sections of one file."""

    checked: Checked
    environ: Mapping[str, str]
    path: Path | None
    """The file; None when the sections come from the command line."""
    warnings: list[str]

    def section(self, role: Role, value: Any) -> Section | None:
        """Return the checked section, or None with its mistakes noted; a wrong shape is noted by the file's model."""
        if isinstance(value, str):
            return self._url(role, value)
        if not isinstance(value, dict):
            return None
        if len(value) != 1:
            self._wrong((role.value,), f"{role}: name one system{nearest('', connectors.names())}")
            return None
        ((system, inner),) = value.items()
        path = (role.value, system)
        connector = self._connector(system, path)
        return self._made(role, connector, {} if inner is None else inner, path) if connector else None

    def _url(self, role: Role, text: str) -> Section | None:
        path = (role.value,)
        scheme = SCHEME.match(text)
        if scheme is None:
            connector = self._connector(text, path)
            return self._made(role, connector, {}, path) if connector else None
        connector = by_scheme(scheme[1])
        if connector is None or connector.from_url is None:
            self._wrong(
                path, f"no system has URLs that begin with {scheme[1]}:{nearest(scheme[1], connectors.names())}"
            )
            return None
        try:
            inner = connector.from_url(text)
        except Fatal as error:
            self._wrong(path, f"{error.args[0]}; {error.hint}")
        except ValueError:
            self._wrong(path, f"not a URL that {connector.name} takes")
        else:
            return self._made(role, connector, inner, path, strict=False)
        return None

    def _connector(self, system: str, path: KeyPath) -> Connector | None:
        known = connectors.names()
        if system not in known:
            self._wrong(path, f"no system is named {system}{nearest(system, known)}")
            return None
        try:
            return connectors.load(system)
        except Fatal as error:
            self._wrong(path, f"{error.args[0]}; {error.hint}")
            return None

    def _made(
        self, role: Role, connector: Connector, inner: Any, path: KeyPath, *, strict: bool = True
    ) -> Section | None:
        kind = role.of(connector)
        if kind is None:
            self._wrong(
                path, f"{connector.name} cannot be a {'store of positions' if role is Role.POSITIONS else role}"
            )
            return None
        config = self.checked.model(kind, inner, path, strict=strict)
        if config is None:
            return None
        self.look_at_secrets(config, path)
        return Section(connector, config)

    def look_at_secrets(self, config: BaseModel, path: KeyPath) -> None:
        """A plain secret is taken with a warning where nobody else reads it, and never under systemd."""
        for place in secrets_in(config, path):
            if place in self.checked.secret or path in self.checked.secret:
                continue
            mark = self.checked.document.value_mark(place)
            said = f"{place[-1]}: a plain secret"
            better = "write ${credential:NAME}, ${file:PATH} or ${env:NAME}"
            if is_supervised(self.environ):
                self._wrong(place, f"{said} is not taken under systemd; {better}")
            elif self.path is None:
                self.warnings.append(f"{said} on the command line can be seen by others; {better}")
            elif not is_private(self.path):
                self._wrong(place, f"{said} in a file that others may read; {better}, or chmod 600 {self.path}")
            else:
                self.warnings.append(f"{mark}: {said}; {better}")

    def _wrong(self, path: KeyPath, message: str) -> None:
        self.checked.problems.append(Problem(self.checked.document.key_mark(path), message))


def by_scheme(scheme: str) -> Connector | None:
    """Return the connector of a URL's scheme, trying the likeliest names first so that few are imported."""
    known = connectors.names()
    for name in sorted(known, key=lambda name: -difflib.SequenceMatcher(None, name, scheme).ratio()):
        try:
            connector = connectors.load(name)
        except Fatal:
            if name == scheme:
                raise
            continue
        if scheme in connector.schemes:
            return connector
    return None
