"""`cdcsync connectors`: what is installed."""

from __future__ import annotations

import click


@click.command(short_help="List the systems that can be connected.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def command(*, as_json: bool) -> None:
    """List every connector, built in or from another package, what it can be, and its URLs.

    \b
    cdcsync connectors
    """  # noqa: D301  \b is click's
    from cdcsync import connectors  # noqa: PLC0415  help needs none of it
    from cdcsync.cli.asking import echo_json  # noqa: PLC0415
    from cdcsync.errors import Fatal  # noqa: PLC0415

    rows = []
    for name, point in connectors.names().items():
        row = {"name": name, "roles": [], "urls": [], "package": point.dist.name if point.dist else "", "fault": ""}
        try:
            connector = connectors.load(name)
        except Fatal as fatal:
            row["fault"] = str(fatal)
        else:
            row["roles"] = [role for role in ("source", "sink", "store") if getattr(connector, role) is not None]
            row["urls"] = list(connector.schemes)
        rows.append(row)
    if as_json:
        echo_json(rows)
        return
    for row in rows:
        urls = " ".join(f"{scheme}:" for scheme in row["urls"])
        click.echo(f"{row['name']:<14} {', '.join(row['roles']) or row['fault']:<22} {urls}")
