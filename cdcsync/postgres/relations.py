"""Turns Relation messages into tables, with the hints that only the catalogue has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdcsync.change import Column, Table
from cdcsync.errors import Fatal
from cdcsync.postgres.types import column_type, is_built_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdcsync.ports import Selection
    from cdcsync.postgres.catalogue import Catalogue, TableInfo
    from cdcsync.postgres.pgoutput import Relation


class Relations:
    """Describes the relations of one stream. The layout is the log's; the catalogue may be of a later time."""

    def __init__(self, catalogue: Catalogue, selection: Selection, tables: Iterable[TableInfo]) -> None:
        self._catalogue = catalogue
        self._selection = selection
        self._names = {table.oid: table.qualified for table in tables}
        """Of the tables that the mapping wants, by whatever name they were last seen."""

    def describe(self, relation: Relation) -> tuple[Table, bool]:
        """Return the table and whether the mapping wants its changes. Raises Transient and Fatal."""
        wanted = self._selection.wants(relation.schema, relation.name) is not None
        self._look_at_name(relation, wanted=wanted)
        info = self._catalogue.table(relation.oid)
        types = self._catalogue.types(column.type for column in relation.columns if not is_built_in(column.type))
        hints = {attribute.name: attribute for attribute in info.columns} if info is not None else {}
        columns = []
        for column in relation.columns:
            hint = hints.get(column.name)
            kind = column_type(column.type, column.modifier, types)
            nullable = hint is None or hint.nullable
            generated = hint is not None and bool(hint.generated)
            initial = hint.initial(kind) if hint is not None else None
            columns.append(Column(column.name, kind, nullable, generated, initial))
        return Table(relation.schema, relation.name, tuple(columns), key_of(relation, info)), wanted

    def _look_at_name(self, relation: Relation, *, wanted: bool) -> None:
        """Stop at changes of a wanted table under a name that the mapping does not want: it was renamed."""
        known, name = self._names.get(relation.oid), f"{relation.schema}.{relation.name}"
        if known is not None and not wanted:
            msg = f"table {known} of the mapping has changes in the log under its other name {name}"
            hint = f"it was renamed: name {name} in the mapping too, or rename it back"
            raise Fatal(msg, hint=hint)
        if wanted:
            self._names[relation.oid] = name


def key_of(relation: Relation, info: TableInfo | None) -> tuple[str, ...]:
    """Return the key's columns, in the key's order.

    What the replica identity logs of the row before tells rows apart; FULL and NOTHING say no key, so that the
    primary key of the catalogue is taken where the log has all its columns.
    """
    hinted = info.key if info is not None else ()
    if relation.identity in "di":
        logged = tuple(column.name for column in relation.columns if column.is_key)
        return hinted if set(hinted) == set(logged) else logged
    names = {column.name for column in relation.columns}
    primary = info.primary_key if info is not None else ()
    return primary if names.issuperset(primary) else ()
