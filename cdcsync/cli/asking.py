"""What several commands share: asking a running pipeline, and JSON on standard output."""

from __future__ import annotations

from typing import Any

import click
import orjson

from cdcsync import config, control
from cdcsync.errors import ExitStatus, Fatal


def ask(pipeline: str, command: str, **words: object) -> dict[str, Any]:
    """Return the running pipeline's answer. Raises NotRunning."""
    loaded = config.load(pipeline)
    try:
        return control.ask(loaded.socket, command, **words)
    except control.NotRunning as error:
        msg = f"pipeline {loaded.name} does not run: {error}\n  -> `cdcsync run {pipeline}` starts it"
        raise control.NotRunning(msg) from error


def refuse_running(loaded: config.PipelineConfig, instead: str) -> None:
    """Raise Fatal when the pipeline runs; `instead` says what would happen to it."""
    try:
        control.ask(loaded.socket, "status")
    except control.NotRunning:
        return
    msg = f"pipeline {loaded.name} runs: {instead}"
    raise Fatal(msg, hint="stop it first", status=ExitStatus.OWNERSHIP)


def echo_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode())
