"""The entry point of the jsonl system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from cdcsync.connectors import Connector, Finding, Severity, SinkSpec, StoreSpec
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.jsonl.config import JsonlConfig
from cdcsync.jsonl.sink import FileSink, StreamSink
from cdcsync.jsonl.store import FileStore
from cdcsync.ports import Guarantee

if TYPE_CHECKING:
    from cdcsync.change import Position
    from cdcsync.ports import Sink, SinkContext, Stored


def _make(config: JsonlConfig, context: SinkContext) -> Sink:
    return StreamSink(config.path) if config.is_stream else FileSink(config.path, context)


def _guarantee(config: JsonlConfig) -> Guarantee:
    return Guarantee.AT_LEAST_ONCE if config.is_stream else Guarantee.EXACTLY_ONCE


def _identity(config: JsonlConfig) -> str:
    return f"jsonl:{config.path if config.is_stream else config.path.resolve()}"


def _check(config: JsonlConfig, context: SinkContext) -> list[Finding]:  # noqa: ARG001  the signature of SinkSpec
    folder = config.path.parent
    if config.is_stream or folder.is_dir():
        return [Finding(Severity.OK, "jsonl", f"lines go to {config.path}, {_guarantee(config).value}")]
    return [Finding(Severity.ERROR, "jsonl", f"folder {folder} does not exist", f"mkdir -p {folder}")]


def _store(config: JsonlConfig, context: SinkContext) -> FileStore:
    if config.is_stream:
        msg = f"jsonl to {config.path} keeps no position"
        raise Fatal(msg, hint="name another store under `positions:`", status=ExitStatus.CONFIG)
    return FileStore(config.path, context.pipeline, context.source)


def _clear(config: JsonlConfig, context: SinkContext) -> bool:
    return _store(config, context).clear()


def _look(config: JsonlConfig, context: SinkContext) -> Stored | None:
    return _store(config, context).load()


def _put(config: JsonlConfig, context: SinkContext, position: Position) -> None:
    _store(config, context).put(position)


def from_url(url: str) -> dict[str, Any]:
    """Return the section for `jsonl:PATH`, `jsonl:///PATH`, or `stdout:`."""
    scheme, _, rest = url.partition(":")
    if scheme == "stdout":
        return {"path": "-"}
    path = unquote(rest.removeprefix("//"))
    return {"path": str(Path(path)) if path else "-"}


CONNECTOR = Connector(
    name="jsonl",
    schemes=("jsonl", "stdout"),
    from_url=from_url,
    sink=SinkSpec(
        config=JsonlConfig,
        make=_make,
        guarantee=_guarantee,
        identity=_identity,
        check=_check,
        lone=True,
        places=True,
        again="the lines of these changes are written again, after those that are there",
    ),
    store=StoreSpec(config=JsonlConfig, make=_store, clear=_clear, put=_put, look=_look),
)
