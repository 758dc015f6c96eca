"""What `check` finds at a cluster; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from cdcsync.connectors import Finding, Severity
from cdcsync.elastic.alter import as_written
from cdcsync.elastic.client import Client
from cdcsync.elastic.target import Target, property_of, refuse_names
from cdcsync.errors import End
from cdcsync.evolution import Alteration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdcsync.change import Table
    from cdcsync.elastic.config import ElasticServerConfig, ElasticSinkConfig
    from cdcsync.elastic.target import Index
    from cdcsync.ports import SinkContext


def check(config: ElasticSinkConfig, context: SinkContext) -> list[Finding]:
    """Look at the cluster and at every index. Raises Transient and Fatal."""
    client = Client(config, End.SINK)
    try:
        return [*_cluster(client), *_indexes(client, config, context)]
    finally:
        client.close()


def identity(config: ElasticServerConfig) -> str:
    """Return `elasticsearch:UUID` of the cluster; servers without `GET /` tell it in their state."""
    client = Client(config, End.SINK)
    try:
        state = client.ask("GET", "/_cluster/state/version?filter_path=cluster_uuid", doing="asking the cluster's name")
        return f"elasticsearch:{state['cluster_uuid']}"
    finally:
        client.close()


def _cluster(client: Client) -> Iterator[Finding]:
    health = client.ask("GET", "/_cluster/health", doing="asking the cluster's health")
    subject = f"cluster {health['cluster_name']}"
    if health["status"] == "red":
        remedy = "GET /_cluster/allocation/explain says why a shard is away"
        yield Finding(Severity.WARNING, subject, "is red: an index that is away takes no documents", remedy)
    else:
        yield Finding(Severity.OK, subject, f"is {health['status']}")


def _indexes(client: Client, config: ElasticSinkConfig, context: SinkContext) -> Iterator[Finding]:
    refuse_names(context.tables)
    target = Target(client, config)
    for table in context.tables:
        subject = f"index {table.name}"
        index = target.look(table.name)
        if index is None:
            if config.create_indexes:
                yield Finding(Severity.OK, subject, "will be made, behind an alias of this name")
            else:
                remedy = f"PUT /{table.name} {orjson.dumps(target.wanted(table)).decode()}"
                yield Finding(Severity.ERROR, subject, "is missing, and `create_indexes` is off", remedy)
            continue
        follows = context.follows(table)
        ours = index.mark is not None and index.by_alias
        found = (
            [] if ours and follows.takes(Alteration.ADD) else target.misfits(as_written(table, index, follows), index)
        )
        narrow = target.narrow(table, index)
        if ours and follows.takes(Alteration.TYPE):
            anew = f"cdcsync rebuild {context.pipeline} {table.name}"
            yield from (Finding(Severity.WARNING, subject, line, anew) for line in narrow)
        else:
            found = [*found, *narrow]
        for misfit in found:
            text, _, remedy = misfit.partition(": PUT ")
            anew = f"cdcsync rebuild {context.pipeline} {table.name}, or map to another index with `to`"
            yield Finding(Severity.ERROR, subject, text, f"PUT {remedy}" if remedy else anew)
        yield from _otherwise(config, context, table, index)
        if index.mark is not None and index.mark.pipeline != context.pipeline:
            remedy = "give this pipeline an index of its own with `to`"
            yield Finding(Severity.ERROR, subject, f"belongs to pipeline {index.mark.pipeline}", remedy)
        elif not found:
            yield Finding(
                Severity.OK, subject, f"fits (UNCHANGED values come from {'it' if index.whole else 'the source'})"
            )


def _otherwise(config: ElasticSinkConfig, context: SinkContext, table: Table, index: Index) -> Iterator[Finding]:
    """Say which fields the section wants otherwise than they are."""
    wanted = config.index(table.name).properties
    other = [name for name, each in wanted.items() if (property_of(index.properties, name) or each) != each]
    if other:
        remedy = f"cdcsync rebuild {context.pipeline} {table.name}"
        said = f"has other fields than `properties` wants: {', '.join(other)}; another index has to be filled"
        yield Finding(Severity.WARNING, f"index {table.name}", said, remedy)
