"""Builds indexes anew beside those that are there: an alias leads to the one, and at once to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdcsync.change import Step
from cdcsync.elastic.client import Client, named
from cdcsync.elastic.target import Target
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.rebuilding import NEW, OLD, beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.change import Table
    from cdcsync.elastic.config import ElasticSinkConfig
    from cdcsync.elastic.target import Index
    from cdcsync.ports import SinkContext


def take(client: Client, target: Target, step: Step, tables: Sequence[Table]) -> None:
    """Take a step for all tables; one that was taken already changes nothing. Raises Transient and Fatal."""
    steps = _Steps(client, target)
    if step is Step.BEGIN:
        steps.begin(tables)
    elif step is Step.SWAP:
        steps.swap(tables)
    elif step is Step.BACK:
        steps.back(tables)
    else:
        steps.end(tables)


class _Steps:
    def __init__(self, client: Client, target: Target) -> None:
        self._client = client
        self._target = target

    def begin(self, tables: Sequence[Table]) -> None:
        """Make an empty index for each, after the mapping as it is configured now."""
        self.end(tables)
        for table in tables:
            self._target.make(beside(table, NEW))

    def swap(self, tables: Sequence[Table]) -> None:
        """Let the alias of each lead to the new index, of all at once; the one before gets another alias."""
        actions: list[dict[str, Any]] = []
        for table in tables:
            there, new = self._target.look(table.name), self._target.look(table.name + NEW)
            if new is None or there is None:
                continue
            refresh = f"/{named(new.concrete)}/_refresh"
            self._client.ask("POST", refresh, doing=f"making the documents of index {new.concrete} searchable")
            self._drop(table.name + OLD)
            actions += [
                _remove(new, table.name + NEW),
                _remove(there, table.name),
                _add(new, table.name),
                _add(there, table.name + OLD),
            ]
        self._change(actions)

    def back(self, tables: Sequence[Table]) -> None:
        """Let the alias of each lead to the index that was there before; drop the other."""
        actions: list[dict[str, Any]] = []
        failed: list[Index] = []
        for table in tables:
            there, old = self._target.look(table.name), self._target.look(table.name + OLD)
            if old is None or there is None:
                continue
            refresh = f"/{named(old.concrete)}/_refresh"
            self._client.ask("POST", refresh, doing=f"making the documents of index {old.concrete} searchable")
            actions += [_remove(there, table.name), _remove(old, table.name + OLD), _add(old, table.name)]
            failed.append(there)
        self._change(actions)
        for index in failed:
            self._delete(index)
        self.end(tables)

    def end(self, tables: Sequence[Table]) -> None:
        """Drop what stands beside."""
        for table in tables:
            self._drop(table.name + NEW)
            self._drop(table.name + OLD)

    def _drop(self, name: str) -> None:
        index = self._target.look(name)
        if index is not None:
            self._delete(index)

    def _delete(self, index: Index) -> None:
        self._client.ask("DELETE", f"/{named(index.concrete)}", doing=f"dropping index {index.concrete}", missing=True)

    def _change(self, actions: list[dict[str, Any]]) -> None:
        if actions:
            self._client.ask("POST", "/_aliases", {"actions": actions}, doing="switching aliases")


def _remove(index: Index, alias: str) -> dict[str, Any]:
    return {"remove": {"index": index.concrete, "alias": alias, "must_exist": True}}


def _add(index: Index, alias: str) -> dict[str, Any]:
    return {"add": {"index": index.concrete, "alias": alias}}


def obstacles(config: ElasticSinkConfig, context: SinkContext, tables: Sequence[Table]) -> list[str]:  # noqa: ARG001  the signature of SinkSpec
    """Return why these indexes cannot change places with others, a line each."""
    client = Client(config, End.SINK)
    try:
        target = Target(client, config)
        return [line for table in tables for line in _obstacles(target, table)]
    finally:
        client.close()


def _obstacles(target: Target, table: Table) -> list[str]:
    index = target.look(table.name)
    if index is None:
        msg = f"index {table.name} is not there"
        raise Fatal(msg, hint="start the pipeline again: it makes what is missing", status=ExitStatus.CONFIG)
    if index.by_alias:
        return []
    return [f"{table.name} is an index itself, not an alias that could lead to another: reindex it behind an alias"]
