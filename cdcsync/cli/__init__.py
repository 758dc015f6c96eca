"""The command `cdcsync`: one file per command, each imported only when it is asked for."""

from __future__ import annotations

import difflib
import gc
import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMANDS: Final = (
    "run",
    "check",
    "plan",
    "test",
    "preview",
    "status",
    "pause",
    "resume",
    "snapshot",
    "rebuild",
    "positions",
    "rejected",
    "verify",
    "tail",
    "replay",
    "drop",
    "connectors",
    "demo",
)
COLLECT_AT: Final = 50_000
"""Objects between two searches for cycles. Importing makes many objects and no garbage: a tenth of the start-up."""


class Commands(click.Group):
    """Imports a command's module when the command is named, all of them only for the help page."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names in the order in which a reader meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        """Return the command, None when there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"cdcsync.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does, but name the nearest command when there is none."""
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(_COMMANDS)}"
            ctx.fail(f"no command is named {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--log",
    "style",
    type=click.Choice(["auto", "human", "json"]),
    default="auto",
    help="Form of the log lines on standard error; auto: human on a terminal.",
)
@click.option("--debug", is_flag=True, help="Log details too.")
@click.version_option(package_name="cdcsync")
def commands(style: str, *, debug: bool) -> None:
    """Keep other systems in step with a database.

    A PIPELINE is a file, or a name: NAME means /etc/cdcsync/NAME.yaml, else ~/.config/cdcsync/NAME.yaml.

    \b
    See it work:             cdcsync demo
    Look at changes live:    cdcsync tail postgres://me@db/shop
    Copy and keep in step:   cdcsync run --source postgres://me@db/shop --sink sqlite:shop.db --table 'public.*'
    """  # noqa: D301  \b is click's
    with _without_rich():
        from cdcsync import logs  # noqa: PLC0415  help needs no log

    logs.configure(style=style, debug=debug)


@contextmanager
def _without_rich() -> Iterator[None]:
    """Let structlog do without rich, which draws tracebacks that we never show: an eighth of the start-up.

    None in the table of modules tells an import that there is none.
    """
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["rich"]


def main() -> None:
    """Run the command and end the process with its status."""
    from cdcsync.daemon import guarded  # noqa: PLC0415  nothing above the group is slow to import

    gc.set_threshold(COLLECT_AT)
    sys.exit(guarded(commands))
