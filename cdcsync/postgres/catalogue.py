"""Reads the catalogue: tables with what the log does not carry, their types, their partitions and keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, LiteralString

import psycopg
from psycopg import sql

from cdcsync.errors import End
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.types import decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from cdcsync.change import Value
    from cdcsync.postgres.connection import Connection
    from cdcsync.types import Type


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column, or a field of a composite type."""

    name: str
    type: int
    """OID."""
    modifier: int = -1
    nullable: bool = True
    generated: str = ""
    """"s" stored, "v" virtual, "" not generated (pg_attribute.attgenerated)."""
    identity: str = ""
    """"a" always, "d" by default, "" neither (pg_attribute.attidentity)."""
    missing: str | None = None
    """The text of what rows have that were there before the column (pg_attribute.attmissingval)."""

    def initial(self, kind: Type) -> Value:
        """Return what such rows have."""
        return None if self.missing is None else decoder(kind)(self.missing.encode())


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """A type as pg_type describes it."""

    oid: int
    schema: str
    name: str
    kind: str
    """b base, c composite, d domain, e enum, p pseudo, r range, m multirange (pg_type.typtype)."""
    element: int = 0
    """OID of a true array's elements."""
    base: int = 0
    """OID of what a domain is over."""
    base_modifier: int = -1
    delimiter: str = ","
    """Between the elements of an array of this type."""
    labels: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    subtype: int = 0
    """OID of what a range or multirange is over."""

    @property
    def qualified(self) -> str:
        """The bare name where it is built in."""
        return self.name if self.schema == "pg_catalog" else f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table as the catalogue has it now."""

    oid: int
    schema: str
    name: str
    kind: str
    """r table, p partitioned (pg_class.relkind)."""
    persistence: str
    """p permanent, u unlogged (pg_class.relpersistence)."""
    identity: str
    """d default, f full, i index, n nothing (pg_class.relreplident)."""
    columns: tuple[Attribute, ...]
    primary_key: tuple[str, ...] = ()
    identity_columns: tuple[str, ...] = ()
    """What the log carries of the row before: empty when nothing."""
    unique_keys: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Index name and columns of every other index that REPLICA IDENTITY USING INDEX would take."""
    leaves: tuple[TableInfo, ...] = field(default=(), compare=False)
    """The partitions of a partitioned table that hold rows."""
    ancestors: tuple[int, ...] = ()
    """OIDs of the partitioned tables above, the nearest first."""

    @property
    def qualified(self) -> str:
        """`schema.name`."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """Quoted, for SQL."""
        return sql.Identifier(self.schema, self.name)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that tell rows apart: the replica identity's index, else the primary key."""
        return self.identity_columns if self.identity == "i" else self.primary_key

    @property
    def has_identity(self) -> bool:
        """Whether the application may update it while it is published."""
        return self.identity == "f" or bool(self.identity_columns)

    @property
    def is_partition(self) -> bool:
        """Whether it belongs to a partitioned table."""
        return bool(self.ancestors)


_NAMES: Final = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       CASE WHEN c.relispartition
            THEN ARRAY(SELECT a.relid::oid::int8 FROM pg_catalog.pg_partition_ancestors(c.oid)
                       WITH ORDINALITY a(relid, place) WHERE a.relid <> c.oid ORDER BY place)
            ELSE '{}'::int8[] END
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname !~ '^pg_toast' AND (%(oids)s::int8[] IS NULL OR c.oid = ANY(%(oids)s::int8[]::oid[]))
ORDER BY 2, 3
"""

_COLUMNS: Final = """
SELECT a.attrelid::int8, a.attname, a.atttypid::int8, a.atttypmod, NOT a.attnotnull, a.attgenerated::text,
       a.attidentity::text, CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = ANY(%(oids)s::int8[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""

_INDEXES: Final = """
SELECT i.indrelid::int8, c.relname, i.indisprimary, i.indisreplident,
       i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL,
       ARRAY(SELECT a.attname FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
             WHERE k.place <= i.indnkeyatts ORDER BY k.place)::text[],
       NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) k(number)
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
                   WHERE NOT a.attnotnull)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY(%(oids)s::int8[]::oid[]) AND i.indisvalid AND i.indislive AND i.indisunique
ORDER BY i.indrelid, c.relname
"""

_TYPES: Final = """
WITH RECURSIVE needed(oid) AS (
  SELECT unnest(%(oids)s::int8[]::oid[])
  UNION
  SELECT x.oid FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid, LATERAL (
    SELECT t.typbasetype WHERE t.typtype = 'd'
    UNION ALL SELECT t.typelem WHERE t.typoutput = 'pg_catalog.array_out'::regproc
    UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
              WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
  ) x(oid)
)
SELECT t.oid::int8, n.nspname, t.typname, t.typtype::text,
       CASE WHEN t.typoutput = 'pg_catalog.array_out'::regproc THEN t.typelem::int8 ELSE 0 END,
       t.typbasetype::int8, t.typtypmod, t.typdelim::text,
       ARRAY(SELECT e.enumlabel FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)::text[],
       coalesce((SELECT r.rngsubtype::int8 FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)), 0),
       CASE WHEN t.typtype = 'c' THEN t.typrelid::int8 ELSE 0 END
FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
"""

_LEAVES: Final = """
SELECT p.oid::int8, t.relid::oid::int8
FROM unnest(%(oids)s::int8[]::oid[]) p(oid), LATERAL pg_catalog.pg_partition_tree(p.oid) t
JOIN pg_catalog.pg_class c ON c.oid = t.relid WHERE t.isleaf AND c.relkind = 'r'
"""


class Catalogue:
    """Questions to one database's catalogue. Raises Transient and Fatal as the source's own errors."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def names(self) -> list[TableInfo]:
        """Return every table that could be in the log, by name, without columns and keys."""
        return [_named(row) for row in self._rows(_NAMES, {"oids": None})]

    def tables(self, oids: Iterable[int]) -> list[TableInfo]:
        """Return these tables in full, by name; those that are gone are left out."""
        wanted = sorted(set(oids))
        if not wanted:
            return []
        named = [_named(row) for row in self._rows(_NAMES, {"oids": wanted})]
        below: dict[int, list[int]] = {}
        for root, leaf in self._rows(_LEAVES, {"oids": [table.oid for table in named if table.kind == "p"]}):
            below.setdefault(root, []).append(leaf)
        leaves = {leaf.oid: leaf for leaf in self.tables({oid for oids in below.values() for oid in oids})}
        columns = self._columns([table.oid for table in named])
        indexes: dict[int, list[tuple[Any, ...]]] = {}
        for row in self._rows(_INDEXES, {"oids": [table.oid for table in named]}):
            indexes.setdefault(row[0], []).append(row)
        return [
            _whole(
                table,
                columns.get(table.oid, ()),
                indexes.get(table.oid, []),
                tuple(leaves[oid] for oid in below.get(table.oid, ()) if oid in leaves),
            )
            for table in named
        ]

    def table(self, oid: int) -> TableInfo | None:
        """Return one table in full; None when it is gone."""
        found = self.tables([oid])
        return found[0] if found else None

    def types(self, oids: Iterable[int]) -> dict[int, TypeInfo]:
        """Return these types and all that they are made of; those that are gone are left out."""
        rows = self._rows(_TYPES, {"oids": sorted(set(oids))})
        fields = self._columns([row[10] for row in rows if row[10]])
        return {
            row[0]: TypeInfo(
                oid=row[0],
                schema=row[1],
                name=row[2],
                kind=row[3],
                element=row[4],
                base=row[5],
                base_modifier=row[6],
                delimiter=row[7],
                labels=tuple(row[8]),
                subtype=row[9],
                attributes=fields.get(row[10], ()),
            )
            for row in rows
        }

    def _columns(self, oids: Sequence[int]) -> dict[int, tuple[Attribute, ...]]:
        found: dict[int, list[Attribute]] = {}
        for oid, *attribute in self._rows(_COLUMNS, {"oids": list(oids)}):
            found.setdefault(oid, []).append(Attribute(*attribute))
        return {oid: tuple(attributes) for oid, attributes in found.items()}

    def _rows(self, query: LiteralString, params: dict[str, object]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, params).fetchall()
        except psycopg.Error as error:
            raise verdict(error, End.SOURCE, "reading the catalogue") from error


def _named(row: tuple[Any, ...]) -> TableInfo:
    oid, schema, name, kind, persistence, identity, ancestors = row
    return TableInfo(oid, schema, name, kind, persistence, identity, (), ancestors=tuple(ancestors))


def _whole(
    table: TableInfo,
    columns: tuple[Attribute, ...],
    indexes: list[tuple[Any, ...]],
    leaves: tuple[TableInfo, ...],
) -> TableInfo:
    primary: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    unique: list[tuple[str, tuple[str, ...]]] = []
    for _, name, is_primary, is_identity, is_plain, key, is_not_null in indexes:
        names = tuple(key)
        if is_primary:
            primary = names
        elif is_plain and is_not_null:
            unique.append((name, names))
        if is_identity and table.identity == "i":
            identity = names
    if table.identity == "d":
        identity = primary
    elif table.identity == "f":
        identity = tuple(column.name for column in columns)
    return TableInfo(
        oid=table.oid,
        schema=table.schema,
        name=table.name,
        kind=table.kind,
        persistence=table.persistence,
        identity=table.identity,
        columns=columns,
        primary_key=primary,
        identity_columns=identity,
        unique_keys=tuple(unique),
        leaves=leaves,
        ancestors=table.ancestors,
    )
