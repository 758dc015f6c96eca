"""The target's tables: creates what is missing, and says all that does not fit in what is there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.postgres.types import declare, is_built_in_name
from cdcsync.sql import ColumnThere, TableThere, create_table, misfits, quote
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Column, Table
    from cdcsync.postgres.connection import Connection
    from cdcsync.types import Type

_COLUMNS: Final = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), pg_catalog.format_type(a.atttypid, -1),
       NOT a.attnotnull, a.atthasdef OR a.attidentity <> '', a.attgenerated <> '', a.attidentity = 'a',
       coalesce(b.typcategory, t.typcategory) = 'A' OR t.typdelim <> ',',
       pg_catalog.format_type(coalesce(b.oid, t.oid), CASE WHEN b.oid IS NULL THEN a.atttypmod ELSE t.typtypmod END),
       EXISTS (SELECT FROM pg_catalog.pg_enum e WHERE e.enumtypid IN (t.oid, t.typelem, b.oid))
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype AND t.typtype = 'd'
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEYS: Final = """
SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
             WHERE k.place <= i.indnkeyatts)
FROM pg_catalog.pg_index i WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indimmediate
    AND i.indpred IS NULL AND i.indexprs IS NULL
"""
_RANGES: Final = {"smallint": 15, "integer": 31, "bigint": 63, "oid": 32}
_DIGITS: Final = {8: 3, 16: 5, 24: 8, 32: 10, 64: 20}


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """One column of a table at the target."""

    name: str
    declared: str
    bare: str
    """Its type without limits, as SQL takes it."""
    nullable: bool
    defaulted: bool
    generated: bool
    always: bool
    """GENERATED ALWAYS AS IDENTITY: an insert overrides it."""
    whole: bool
    """An array, or of a type whose arrays PostgreSQL does not separate by commas: it travels as text."""
    base: str
    """What a domain is over, else `declared`."""
    labelled: bool
    """An enum, or an array of one."""


class Target:
    """What the catalogue of the target says; asked once per table."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def name(self, table: Table) -> str:
        """Return the quoted, qualified name at the target."""
        return f"{quote(table.schema or self._schema)}.{quote(table.name)}"

    def columns(self, table: Table) -> dict[str, TargetColumn]:
        """Return the columns; empty when there is no such table."""
        rows = self._connection.execute(_COLUMNS, [self.name(table)]).fetchall()
        return {row[0]: TargetColumn(*row) for row in rows}

    def misfits(self, table: Table, columns: Mapping[str, TargetColumn]) -> list[str]:
        """Return all that keeps the rows out of the table, each with the SQL that mends it."""
        keys = [row[0] for row in self._connection.execute(_KEYS, [self.name(table)]).fetchall()]
        there = TableThere(
            {
                name: ColumnThere(
                    name, each.base, each.nullable, each.defaulted, each.generated and not self._computes(table, name)
                )
                for name, each in columns.items()
            },
            keys,
        )
        return [f"{line}{self._remedy(table, line)}" for line in misfits(table, there, fits)]

    def _computes(self, table: Table, name: str) -> bool:
        return name in table.at and table.columns[table.at[name]].generated

    def _remedy(self, table: Table, line: str) -> str:
        name = self.name(table)
        if line.startswith("no primary key"):
            return f": ALTER TABLE {name} ADD UNIQUE ({', '.join(map(quote, table.key))})"
        for column in table.columns:
            if not line.startswith(f"column {column.name}"):
                continue
            if line.endswith("is missing"):
                return f": ALTER TABLE {name} ADD COLUMN {quote(column.name)} {self.declare(column.type)}"
            if line.endswith("NOT NULL at the target"):
                return f": ALTER TABLE {name} ALTER COLUMN {quote(column.name)} DROP NOT NULL"
            if line.startswith(f"column {column.name}: "):
                return f": ALTER TABLE {name} ALTER COLUMN {quote(column.name)} TYPE {self.declare(column.type)}"
        return ""

    def declare(self, column: Type) -> str:
        """Return the type for a column: PostgreSQL's own where the target knows it, else by `creatable`."""
        own = declare(column)
        if is_built_in_name(column) or self._knows(own):
            return own
        return own if creatable(column) else declare(column, own=False)

    def _knows(self, name: str) -> bool:
        row = self._connection.execute("SELECT to_regtype(%s) IS NOT NULL", [name]).fetchone()
        return row is not None and bool(row[0])

    def statements(self, table: Table) -> list[str]:
        """Return what creates the table, and before it the schema and the enums that it needs."""
        schema = table.schema or self._schema
        wanted: list[str] = []
        if not self._connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone():
            wanted.append(f"CREATE SCHEMA {quote(schema)}")
        for column in table.columns:
            wanted += self.types(column)
        wanted.append(create_table(table, self.declare, name=self.name(table)))
        return list(dict.fromkeys(wanted))

    def types(self, column: Column) -> list[str]:
        """Return what creates the enum of a column, where it has one of the source's that is not there."""
        enum = column.type.element if column.type.kind is Kind.ARRAY and column.type.element else column.type
        if not creatable(enum) or self._knows(enum.name):
            return []
        own_schema = enum.name.rpartition(".")[0]
        labels = ", ".join("'" + label.replace("'", "''") + "'" for label in enum.labels)
        schema = [f"CREATE SCHEMA IF NOT EXISTS {own_schema}"] if own_schema else []
        return [*schema, f"CREATE TYPE {enum.name} AS ENUM ({labels})"]

    def prepare(self, table: Table, *, create: bool) -> tuple[dict[str, TargetColumn], list[str]]:
        """Return the table's columns and its misfits, creating it first where it is missing and `create` says so."""
        columns = self.columns(table)
        if not columns:
            wanted = self.statements(table)
            if not create:
                return {}, [f"is missing: {'; '.join(wanted)}"]
            for statement in wanted:
                self._connection.execute(statement.encode())
            columns = self.columns(table)
        return columns, self.misfits(table, columns)


def creatable(column: Type) -> bool:
    """Return whether a type of the source's can be made at the target: an enum whose labels are known."""
    return column.kind is Kind.ENUM and column.system == "postgres" and bool(column.labels) and bool(column.name)


def fits(wanted: Type, there: ColumnThere) -> str | None:
    """Return why a column cannot hold every value of the type; None when it can, or when only values will tell."""
    declared = there.declared
    bare, _, limits = declared.partition("(")
    numbers = [int(each) for each in limits.partition(")")[0].split(",") if each.strip().isdigit()]
    if declared in {"text", "character varying", "bpchar", "citext"} or declared == declare(wanted):
        return None
    return _CHECKS.get(wanted.kind, _any)(wanted, bare.strip(), numbers, declared)


def _integer(wanted: Type, bare: str, numbers: Sequence[int], declared: str) -> str | None:
    if bare in _RANGES:
        bits = wanted.bits if wanted.unsigned else wanted.bits - 1
        return None if bits <= _RANGES[bare] else f"{declared} is narrower than {declare(wanted)}"
    if bare == "numeric":
        digits = numbers[0] - (numbers[1] if len(numbers) > 1 else 0) if numbers else 99
        return None if digits >= _DIGITS.get(wanted.bits, 20) else f"{declared} is narrower than {declare(wanted)}"
    return f"{declared} cannot hold {declare(wanted)}"


def _decimal(wanted: Type, bare: str, numbers: Sequence[int], declared: str) -> str | None:
    if bare != "numeric":
        return f"{declared} cannot hold {declare(wanted)}"
    if not numbers:
        return None
    precision, scale = numbers[0], numbers[1] if len(numbers) > 1 else 0
    if wanted.precision is None or (wanted.scale or 0) > scale:
        return f"{declared} is narrower than {declare(wanted)}"
    whole = wanted.precision - (wanted.scale or 0)
    return None if whole <= precision - scale else f"{declared} is narrower than {declare(wanted)}"


def _text(wanted: Type, bare: str, numbers: Sequence[int], declared: str) -> str | None:
    if bare not in {"character varying", "character"}:
        return f"{declared} cannot hold {declare(wanted, own=False)}"
    if numbers and (wanted.length is None or wanted.length > numbers[0]):
        return f"{declared} is narrower than {declare(wanted)}"
    return None


def _float(wanted: Type, bare: str, _numbers: Sequence[int], declared: str) -> str | None:
    if bare == "double precision" or (bare == "real" and wanted.bits == 32):  # noqa: PLR2004  IEEE single
        return None
    return f"{declared} cannot hold {declare(wanted)} exactly"


def _bit(wanted: Type, bare: str, numbers: Sequence[int], declared: str) -> str | None:
    if bare == "bit varying" and (not numbers or (wanted.length is not None and wanted.length <= numbers[0])):
        return None
    return f"{declared} cannot hold {declare(wanted)}"


def _one_of(*names: str) -> Callable[[Type, str, Sequence[int], str], str | None]:
    return partial(_named, names)


def _named(names: Sequence[str], wanted: Type, bare: str, numbers: Sequence[int], declared: str) -> str | None:
    plain = " ".join(word for word in declared.replace("(", " (").split() if not word.startswith("("))
    if plain not in names and bare not in names:
        return f"{declared} cannot hold {declare(wanted)}"
    if numbers and (wanted.precision is None or wanted.precision > numbers[0]):
        return f"{declared} is narrower than {declare(wanted)}"
    return None


def _any(wanted: Type, bare: str, _numbers: Sequence[int], declared: str) -> str | None:
    """Enums, arrays and a system's own types: another name of a type may still take the text."""
    if bare in {*_RANGES, "boolean", "date", "double precision", "real", "bytea", "uuid"}:
        return f"{declared} cannot hold {declare(wanted)}"
    return None


_CHECKS: Final[dict[Kind, Callable[[Type, str, Sequence[int], str], str | None]]] = {
    Kind.BOOLEAN: _one_of("boolean"),
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.DECIMAL: _decimal,
    Kind.TEXT: _text,
    Kind.BYTES: _one_of("bytea"),
    Kind.GEOMETRY: _any,
    Kind.DATE: _one_of("date", "timestamp without time zone"),
    Kind.TIME: _one_of("time without time zone"),
    Kind.TIMETZ: _one_of("time with time zone"),
    Kind.TIMESTAMP: _one_of("timestamp without time zone"),
    Kind.TIMESTAMPTZ: _one_of("timestamp with time zone"),
    Kind.INTERVAL: _one_of("interval"),
    Kind.UUID: _one_of("uuid"),
    Kind.JSON: _one_of("json", "jsonb"),
    Kind.BIT: _bit,
}


def refuse_misfits(found: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Raise Fatal with all misfits of all tables; return when there are none."""
    lines = [f"target table {name}: {line}" for name, each in found for line in each]
    if lines:
        hint = "run the SQL given, map to another table with `to`, or drop it and let it be created"
        raise Fatal("\n".join(lines), hint=hint, status=ExitStatus.CONFIG)
