"""One pipeline's file: found, read, checked as a whole, and turned into what the daemon builds from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from cdcsync import document, folders, sections
from cdcsync.credentials import Resolver, resolve
from cdcsync.document import Document, Mark, Problem
from cdcsync.mapping import loading
from cdcsync.sections import Role, Section
from cdcsync.units import Duration, Size
from cdcsync.validation import Checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdcsync.mapping.model import Rule

NAME: Final = r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$"
"""A pipeline's name is part of file names, slot names and a unit's instance."""


class Control(BaseModel):
    """How `status`, `pause` and `resume` reach the running pipeline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    socket: Path | None = None
    """A unix socket; absent: `/run/cdcsync/NAME.sock` for a service, else in the state directory."""


class BatchLimits(BaseModel):
    """Bounds of what is handed to the sink at once, and of what waits for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    changes_max: int = Field(default=6000, ge=1)
    """Changes handed to the sink at once; a transaction of more comes in parts."""
    bytes_max: Size = Field(default=Size(8 << 20), ge=1)
    """In the log's own size."""


class PipelineFile(BaseModel):
    """A pipeline's file. The sections of the systems are checked by the connectors' own models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", pattern=NAME)
    """Absent: the file's name. Slot, publication and stored position go by it."""
    source: str | dict[str, Any]
    """`SYSTEM: {...}`, or a URL."""
    sink: str | dict[str, Any]
    """`SYSTEM: {...}`, or a URL."""
    mappings: tuple[str, ...] = ()
    """Mapping files, relative to this one."""
    tables: tuple[Any, ...] = ()
    """Mapping entries in place; see the mapping reference."""
    functions: tuple[str, ...] = ()
    """Python functions that the entries in place may call, each `module:name`; typed by annotation."""
    secrets: dict[str, SecretStr] = Field(default_factory=dict)
    """What expressions take by `secret('name')`: keys of keyed hashes."""
    positions: str | dict[str, Any] | None = None
    """Where the position is stored; absent: in the sink where it can, else SQLite in the state directory."""
    on_rejected: Literal["stop", "dead_letter", "skip"] = "stop"
    """What happens to a change that mapping or sink will never take."""
    reread: Literal["on", "off"] = "on"
    """Whether a row is read again at the source that neither the log nor the target has whole; `off`: it is rejected."""
    control: Control = Control()
    heartbeat: Duration = Field(timedelta(seconds=10), gt=timedelta(0))
    """How long after the last save a position without changes is stored."""
    batch: BatchLimits = BatchLimits()
    state: Path | None = None
    """The state directory; absent: $STATE_DIRECTORY, else `/var/lib/cdcsync/NAME` for root and
    `~/.local/state/cdcsync/NAME` for others."""


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """A pipeline's file, checked."""

    name: str
    source: Section
    sink: Section
    positions: Section | None
    """None: in the sink where it can, else SQLite in `state`."""
    rules: tuple[Rule, ...]
    """The mapping's entries; `Mapping(rules, secrets)`."""
    on_rejected: Literal["stop", "dead_letter", "skip"]
    reread: Literal["on", "off"]
    heartbeat_s: float
    batch: BatchLimits
    state: Path
    socket: Path
    path: Path | None = None
    """The file; None when it came from the command line or from code."""
    warnings: tuple[str, ...] = ()
    """To be shown once by whoever loads it."""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """By the name that expressions take them by."""
    written: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the file says, references unresolved; for `dump`."""


def find(name_or_path: str | Path) -> Path:
    """Return the file that a name or a path means; it need not exist.

    A word without a slash and without `.yaml` is a name.
    """
    text = str(name_or_path)
    if "/" in text or text.endswith((".yaml", ".yml")):
        return Path(text).expanduser()
    system = folders.SYSTEM_CONFIG / f"{text}.yaml"
    return system if system.exists() else Path("~/.config/cdcsync").expanduser() / f"{text}.yaml"


def load(name_or_path: str | Path, *, environ: Mapping[str, str] = os.environ) -> PipelineConfig:
    """Read and check a pipeline's file. Raises one Fatal with CONFIG that lists every mistake with its place."""
    path = find(name_or_path)
    return _Loading(document.read(path), environ, path).config()


def from_urls(
    source: str,
    sink: str,
    tables: Sequence[str],
    *,
    name: str = "cdcsync",
    environ: Mapping[str, str] = os.environ,
) -> PipelineConfig:
    """Return the config of `run --source URL --sink URL --table T`; raises as `load` does."""
    value = {"name": name, "source": source, "sink": sink, "tables": list(tables)}
    given = Document("command line", value, values={(): Mark("command line", 1, 1)})
    return _Loading(given, environ, None).config()


def sink_of(word: str, *, environ: Mapping[str, str] = os.environ) -> Section:
    """Return the sink that a URL means, or that of another pipeline's file; raises as `load` does."""
    if not sections.SCHEME.match(word):
        return load(word, environ=environ).sink
    given = Document("command line", {"sink": word}, values={(): Mark("command line", 1, 1)})
    resolved = resolve(given, Resolver(Path(), environ), (("sink",),))
    problems = [*given.problems, *resolved.problems]
    reading = sections.Reading(Checked(given, resolved.replaced, problems), environ, None, [])
    section = reading.section(Role.SINK, resolved.value["sink"]) if isinstance(resolved.value, dict) else None
    if problems or section is None:
        raise document.fatal(problems)
    return section


def dump(config: PipelineConfig) -> str:
    """Return the file that makes this config again: references stay references, plain secrets stay plain.

    Store it with `save`, which lets nobody else read it.
    """
    from io import StringIO  # noqa: PLC0415  only `--save` writes YAML

    from ruamel.yaml import YAML  # noqa: PLC0415

    text = StringIO()
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(dict(config.written), text)
    return text.getvalue()


def save(config: PipelineConfig, path: Path) -> None:
    """Write `dump` to a new file of mode 0600. Raises FileExistsError, OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(dump(config))
        file.flush()
        os.fsync(file.fileno())


class _Loading:
    """One file on its way to a config; gathers every mistake."""

    def __init__(self, given: Document, environ: Mapping[str, str], path: Path | None) -> None:
        self._given = given
        self._environ = environ
        self._path = path
        self._folder = path.parent if path else Path()
        self._problems = list(given.problems)
        self._warnings: list[str] = []

    def config(self) -> PipelineConfig:
        """Check everything; raise one Fatal when anything is wrong."""
        resolved = resolve(self._given, Resolver(self._folder, self._environ), (("source",), ("sink",), ("positions",)))
        self._problems += resolved.problems
        checked = Checked(self._given, resolved.replaced, self._problems)
        if not isinstance(resolved.value, dict):
            at = self._given.value_mark(())
            raise document.fatal([*self._problems, Problem(at, "a pipeline's file has keys: name, source, sink, ...")])
        file = checked.model(PipelineFile, resolved.value, ())
        ends = self._ends(checked, resolved.value)
        if file is not None:
            sections.Reading(checked, self._environ, self._path, self._warnings).look_at_secrets(file, ())
        rules = tuple(self._rules(checked, resolved.value))
        self._problems += loading.misplaced(rules, ends.get(Role.SINK))
        if self._problems or file is None:
            raise document.fatal(self._problems)
        return self._made(file, ends, rules)

    def _ends(self, checked: Checked, value: dict[str, Any]) -> dict[Role, Section]:
        reading = sections.Reading(checked, self._environ, self._path, self._warnings)
        found = ((role, reading.section(role, value[role.value])) for role in Role if value.get(role.value) is not None)
        return {role: section for role, section in found if section is not None}

    def _rules(self, checked: Checked, value: dict[str, Any]) -> Iterator[Rule]:
        """Yield the entries, those in place first; note when there are none."""
        tables, files = value.get("tables"), value.get("mappings")
        if not tables and not files:
            root = self._given.value_mark(())
            self._problems.append(
                Problem(root, "no tables: name some under `tables`, or mapping files under `mappings`")
            )
        if isinstance(tables, list):
            yield from loading.entries(checked, tables, value.get("functions"))
        if isinstance(files, list):
            for at, name in enumerate(files):
                if isinstance(name, str):
                    path = self._folder / Path(name).expanduser()
                    if path.is_file():
                        yield from loading.rules_of(path, self._problems)
                    else:
                        mark = self._given.value_mark(("mappings", at))
                        self._problems.append(Problem(mark, f"there is no file {path}"))

    def _made(self, file: PipelineFile, ends: dict[Role, Section], rules: tuple[Rule, ...]) -> PipelineConfig:
        name = file.name or (self._path.stem if self._path else "cdcsync")
        state = folders.state(name, self._environ, file.state)
        return PipelineConfig(
            name=name,
            source=ends[Role.SOURCE],
            sink=ends[Role.SINK],
            positions=ends.get(Role.POSITIONS),
            rules=rules,
            on_rejected=file.on_rejected,
            reread=file.reread,
            heartbeat_s=file.heartbeat.total_seconds(),
            batch=file.batch,
            state=state,
            socket=file.control.socket or folders.socket(name, self._environ, self._path, state),
            path=self._path,
            warnings=tuple(self._warnings),
            secrets={key: secret.get_secret_value().encode() for key, secret in file.secrets.items()},
            written=self._given.value,
        )
