"""The target's tables: creates what is missing, and says all that does not fit in what is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mysql.connection import quoted
from cdcsync.mysql.declare import Dialect, create_table, declarations
from cdcsync.mysql.fits import fits
from cdcsync.mysql.server import Flavor
from cdcsync.sql import ColumnThere, TableThere, misfits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdcsync.change import Table
    from cdcsync.mysql.connection import Connection
    from cdcsync.mysql.server import Server

_COLUMNS: Final = """
SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE,
       DATETIME_PRECISION, CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE, COLUMN_DEFAULT, EXTRA
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION
"""
_UNIQUE: Final = """
SELECT INDEX_NAME, COLUMN_NAME, SUB_PART IS NULL FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0 ORDER BY INDEX_NAME, SEQ_IN_INDEX
"""
_KIND: Final = """
SELECT t.TABLE_TYPE, t.ENGINE, e.TRANSACTIONS FROM information_schema.TABLES t
LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE WHERE t.TABLE_SCHEMA = %s AND t.TABLE_NAME = %s
"""
_FINEST: Final = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")
_PADDED: Final = "utf8mb4_bin"
_COLLATIONS: Final = "SELECT COLLATION_NAME FROM information_schema.COLLATIONS WHERE COLLATION_NAME IN (%s, %s)"
_LABEL: Final = re.compile(r"'((?:[^']|'')*)'")
_TEXTS: Final = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
_COMPUTED: Final = re.compile(r"(VIRTUAL|STORED|PERSISTENT)( GENERATED)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """One column of a table at the target."""

    name: str
    data_type: str
    """Its type's bare name in lower case."""
    declared: str
    """Its type in the server's own words."""
    length: int | None
    """In characters, or bytes where it has no character set."""
    precision: int | None
    """Digits of a number."""
    scale: int | None
    fraction: int | None
    """Digits of a second's fraction."""
    charset: str | None
    collation: str | None
    nullable: bool
    defaulted: bool
    generated: bool
    on_update: bool
    """An UPDATE that does not name it sets it to the present time."""
    labels: frozenset[str]
    """Of an enum or a set."""
    length_checked: int | None = None
    """What the writer compares values' lengths with, where the source's may be longer."""

    @property
    def bare(self) -> str:
        """Its type for messages, without an enum's labels."""
        return self.declared if not self.labels else self.data_type

    @property
    def is_text(self) -> bool:
        """Whether it keeps any text as it is."""
        return self.data_type in _TEXTS

    @property
    def unsigned(self) -> bool:
        """Whether a number has no sign."""
        return "unsigned" in self.declared

    @property
    def is_exact(self) -> bool:
        """Whether values that differ are never equal to the server: it has no collation, or one of bytes."""
        return self.collation is None or self.collation in {*_FINEST, "binary"} or self.data_type in {"enum", "set"}


@dataclass(frozen=True, slots=True)
class TargetTable:
    """One table at the target."""

    columns: Mapping[str, TargetColumn]
    unique: Sequence[tuple[tuple[str, ...], bool]]
    """The column names of every unique index, and whether it is over whole columns."""
    refusal: str = ""
    """Why it can be no target, whatever its columns are."""


class Target:
    """What the catalogue of the target says; asked once per table."""

    def __init__(self, connection: Connection, database: str) -> None:
        self._connection = connection
        self._database = database
        self.dialect = dialect_of(connection)

    def place(self, table: Table) -> tuple[str, str]:
        """Return database and name of a table at the target."""
        return table.schema or self._database, table.name

    def name(self, table: Table) -> str:
        """Return the quoted, qualified name at the target."""
        return quoted(*self.place(table))

    def there(self, table: Table) -> TargetTable | None:
        """Return the table as it is at the target; None when there is none."""
        place = self.place(table)
        kind = self._connection.execute(_KIND, place)
        if not kind:
            return None
        rows = self._connection.execute(_COLUMNS, place)
        indexes: dict[str, tuple[tuple[str, ...], bool]] = {}
        for index, column, whole in self._connection.execute(_UNIQUE, place):
            names, all_whole = indexes.get(index, ((), True))
            indexes[index] = (*names, column or ""), all_whole and bool(int(whole)) and column is not None
        columns = [_column(row) for row in rows]
        return TargetTable({each.name: each for each in columns}, list(indexes.values()), _refusal(*kind[0]))

    def misfits(self, table: Table, there: TargetTable) -> list[str]:
        """Return all that keeps the rows out of the table, each with the SQL that mends it."""
        if there.refusal:
            return [
                there.refusal + (f": ALTER TABLE {self.name(table)} ENGINE = InnoDB" if "ENG" in there.refusal else "")
            ]
        found = misfits(
            table,
            TableThere(
                {
                    name: ColumnThere(
                        name,
                        each.declared,
                        each.nullable,
                        each.defaulted,
                        each.generated and not _computes(table, name),
                    )
                    for name, each in there.columns.items()
                },
                [names for names, whole in there.unique if whole],
            ),
            lambda kind, column: fits(kind, there.columns[column.name], is_key=column.name in table.key),
        )
        found += [
            f"column {name} is part of the key and may be NULL at the target"
            for name in table.key
            if name in there.columns and there.columns[name].nullable
        ]
        return [f"{line}{self._remedy(table, line)}" for line in found]

    def _remedy(self, table: Table, line: str) -> str:
        name = self.name(table)
        if line.startswith("no primary key"):
            return f": ALTER TABLE {name} ADD UNIQUE ({', '.join(map(quoted, table.key))})"
        declared = declarations(table, self.dialect)
        for column in table.columns:
            if not line.startswith(f"column {column.name} ") and not line.startswith(f"column {column.name}: "):
                continue
            given = f"{quoted(column.name)} {declared[column.name]}"
            if line.endswith("is missing"):
                return f": ALTER TABLE {name} ADD COLUMN {given}"
            if line.endswith("NOT NULL at the target"):
                return f": ALTER TABLE {name} MODIFY COLUMN {given} NULL"
            if line.endswith("may be NULL at the target"):
                return f": ALTER TABLE {name} MODIFY COLUMN {given} NOT NULL"
            if line.startswith(f"column {column.name}: "):
                return f": ALTER TABLE {name} MODIFY COLUMN {given}"
        return ""

    def statements(self, table: Table) -> list[str]:
        """Return what creates the table, and before it the database that it needs."""
        database, _ = self.place(table)
        query = "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
        wanted = [] if self._connection.execute(query, [database]) else [f"CREATE DATABASE {quoted(database)}"]
        return [*wanted, create_table(table, self.dialect, name=self.name(table), quote=quoted)]

    def prepare(self, table: Table, *, create: bool) -> tuple[TargetTable | None, list[str]]:
        """Return the table and its misfits, creating it first where it is missing and `create` says so."""
        there = self.there(table)
        if there is None:
            wanted = self.statements(table)
            if not create:
                return None, [f"is missing: {'; '.join(wanted)}"]
            for statement in wanted:
                self._connection.execute(statement)
            there = self.there(table)
            assert there is not None  # noqa: S101  just created
        return there, self.misfits(table, there)


def dialect_of(connection: Connection) -> Dialect:
    """Ask the server what it knows."""
    server = connection.server
    found = {str(name) for (name,) in connection.execute(_COLLATIONS, _FINEST)}
    collation = next((name for name in _FINEST if name in found), _PADDED)
    return Dialect(collation, _own_types(server), json_is_text=server.flavor is Flavor.MARIADB)


def _own_types(server: Server) -> frozenset[str]:
    """Return the types that came to MariaDB one by one."""
    if server.flavor is not Flavor.MARIADB:
        return frozenset()
    since = {"inet6": (10, 5, 0), "uuid": (10, 7, 0), "inet4": (10, 10, 0)}
    return frozenset(name for name, version in since.items() if server.version >= version)


def _column(row: Sequence[Any]) -> TargetColumn:
    name, data_type, declared, length, precision, scale, fraction, charset, collation, nullable, default, extra = row
    extra = str(extra or "")
    labelled = str(data_type) in {"enum", "set"}
    generated = bool(_COMPUTED.search(extra.replace("DEFAULT_GENERATED", "")))
    return TargetColumn(
        str(name),
        str(data_type).lower(),
        _text(declared),
        _number(length),
        _number(precision),
        _number(scale),
        _number(fraction),
        charset,
        collation,
        nullable == "YES",
        default is not None or "auto_increment" in extra or generated,
        generated,
        "on update" in extra.lower(),
        frozenset(each.replace("''", "'") for each in _LABEL.findall(_text(declared))) if labelled else frozenset(),
    )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _number(value: object) -> int | None:
    return None if value is None else int(str(value))


def _refusal(kind: str, engine: str | None, transactions: str | None) -> str:
    """Return why this can be no target: what is not undone with its transaction."""
    if kind != "BASE TABLE" and "VERSIONED" not in kind:
        return f"is no table but a {kind.lower()}"
    if transactions != "YES":
        return f"ENGINE = {engine} has no transactions: rows and position could not be committed together"
    return ""


def _computes(table: Table, name: str) -> bool:
    return name in table.at and table.columns[table.at[name]].generated


def refuse_misfits(found: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Raise Fatal with all misfits of all tables; return when there are none."""
    lines = [f"target table {name}: {line}" for name, each in found for line in each]
    if lines:
        hint = "run the SQL given, map to another table with `to`, or drop it and let it be created"
        raise Fatal("\n".join(lines), hint=hint, status=ExitStatus.CONFIG)
