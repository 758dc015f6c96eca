"""What information_schema says of tables: hints for what the log shows, and tables as the log will show them."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Final

from cdcsync.mysql import table_map as log
from cdcsync.mysql.connection import quoted
from cdcsync.mysql.server import Flavor
from cdcsync.mysql.table_map import Layout
from cdcsync.mysql.types import ColumnHint, Hints, described, table_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdcsync.change import Table
    from cdcsync.mysql.connection import Answer, Connection
    from cdcsync.ports import Selection

SYSTEM: Final = frozenset({"mysql", "sys", "information_schema", "performance_schema"})
"""Databases that a mapping never means."""
_TABLES: Final = (
    "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES "
    "WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1, 2"
)
_COLUMNS: Final = (
    "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, IS_NULLABLE, EXTRA, DATA_TYPE, "
    "CHARACTER_OCTET_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, COLUMN_DEFAULT FROM information_schema.COLUMNS "
    "WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN %s ORDER BY TABLE_NAME, ORDINAL_POSITION"
)
_KEYS: Final = (
    "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN %s "
    "AND INDEX_NAME = 'PRIMARY' ORDER BY TABLE_NAME, SEQ_IN_INDEX"
)
_CHECKS: Final = (
    "SELECT TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS "
    "WHERE CONSTRAINT_SCHEMA = %s AND TABLE_NAME IN %s"
)
_VERSIONED: Final = (
    "SELECT TABLE_NAME FROM information_schema.TABLES "
    "WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN %s AND TABLE_TYPE = 'SYSTEM VERSIONED'"
)
_NUMBER: Final = re.compile(r"-?[0-9.]+(?:e[-+]?\d+)?")
_GENERATED: Final = re.compile(r"\b(VIRTUAL|STORED|PERSISTENT)\b")
_JSON_CHECK: Final = re.compile(r"json_valid\(`((?:[^`]|``)+)`\)", re.IGNORECASE)
_DECLARED, _OCTETS, _PRECISION, _SCALE, _FRACTION, _DEFAULT = 2, 7, 8, 9, 10, 11
"""Places in a row of `_COLUMNS`."""


def hints(connection: Connection, schema: str, name: str) -> Hints | None:
    """Return what the catalogue says of a table now, None when it has none of that name. Raises Transient and Fatal."""
    found = _look(connection, schema, [name])
    return found[name][0] if name in found else None


def table(connection: Connection, schema: str, name: str) -> Table | None:
    """Return a table as the log would show it now, None when there is none of that name. Raises Transient and Fatal."""
    found = _look(connection, schema, [name])
    return _table(schema, name, *found[name]) if name in found else None


def unique_key(connection: Connection, schema: str, name: str) -> tuple[str, ...]:
    """Return the columns of the index that the server takes for the key of a table without a primary one.

    It is the first unique one of whole columns that are never null; the log describes the table by it, too.
    """
    rows = connection.named(f"looking at the keys of {schema}.{name}", f"SHOW INDEX FROM {quoted(schema, name)}")
    for _, members in groupby(rows, lambda row: row["Key_name"]):
        columns = list(members)
        if not any(
            int(each["Non_unique"]) or each["Sub_part"] or each["Null"] == "YES" or not each["Column_name"]
            for each in columns
        ):
            return tuple([str(each["Column_name"]) for each in columns])
    return ()


def tables(connection: Connection, selection: Selection) -> list[Table]:
    """Return the wanted tables as the log will show them. Raises Transient and Fatal."""
    rows = connection.ask("looking at the tables", _TABLES)
    wanted = [row for row in rows if row[0] not in SYSTEM and selection.wants(row[0], row[1]) is not None]
    found = []
    for schema, members in groupby(wanted, lambda row: str(row[0])):
        seen = _look(connection, schema, [row[1] for row in members])
        found += [_table(schema, name, hint, columns) for name, (hint, columns) in seen.items()]
    return found


def _look(connection: Connection, schema: str, names: Sequence[str]) -> dict[str, tuple[Hints, list[Answer]]]:
    """Return hints and columns of some tables of one database."""
    doing, values = f"looking at the columns of {schema}", [schema, list(names)]
    columns = connection.ask(doing, _COLUMNS, values)
    keys = _by_table(connection.ask(doing, _KEYS, values))
    checked: dict[str, list[Answer]] = {}
    versioned: set[str] = set()
    if connection.server.flavor is Flavor.MARIADB:
        versioned = {str(name) for (name,) in connection.ask(doing, _VERSIONED, values)}
        checked = _by_table(connection.ask(doing, _CHECKS, values))
    found = {}
    for name, rows in _by_table(columns).items():
        jsons = {
            match[1].replace("``", "`") for row in checked.get(name, ()) if (match := _JSON_CHECK.fullmatch(row[1]))
        }
        mariadb = connection.server.flavor is Flavor.MARIADB
        hint = tuple([_hint(row, jsons, quoted=mariadb) for row in rows])
        key = tuple([row[1] for row in keys.get(name, ())]) or unique_key(connection, schema, name)
        found[name] = Hints(hint, key, name in versioned), rows
    return found


def _by_table(rows: Iterable[Answer]) -> dict[str, list[Answer]]:
    return {str(name): list(each) for name, each in groupby(rows, lambda row: row[0])}


def _hint(row: Answer, jsons: set[str], *, quoted: bool) -> ColumnHint:
    _, name, declared, charset, nullable, extra = row[:6]
    if name in jsons and declared == "longtext":
        declared = "json"
    said = str(extra).upper()
    default = _default(row[_DEFAULT], said, quoted=quoted)
    if default is None and row[_DEFAULT] is None and nullable != "YES" and "AUTO_INCREMENT" not in said:
        default = ""
    generated = bool(_GENERATED.search(said.replace("DEFAULT_GENERATED", "")))
    return ColumnHint(name, declared, charset or "", nullable == "YES", generated, default)


def _default(text: object, extra: str, *, quoted: bool) -> str | None:
    """Return the value of a constant default; MariaDB writes texts in quotes, and expressions without."""
    if text is None or "DEFAULT_GENERATED" in extra:
        return None
    said = text.decode() if isinstance(text, bytes) else str(text)
    if quoted:
        if len(said) > 1 and said[0] == said[-1] == "'":
            return said[1:-1].replace("''", "'").replace("\\\\", "\\")
        return said if _NUMBER.fullmatch(said) else None
    return None if said.upper().startswith("CURRENT_TIMESTAMP") else said


def _table(schema: str, name: str, hint: Hints, columns: Sequence[Answer]) -> Table:
    """Return the table of a layout such as the server will log."""
    laid = [_laid(row) for row in columns]
    layout = Layout(
        0, schema, name, bytes([code for code, _ in laid]), tuple([meta for _, meta in laid]), (True,) * len(laid)
    )
    return table_of(described(layout, hint))


_SIMPLE: Final = {
    "tinyint": log.TINY, "smallint": log.SHORT, "mediumint": log.INT24, "int": log.LONG, "bigint": log.LONGLONG,
    "year": log.YEAR, "date": log.DATE,
}  # fmt: skip
_TIMES: Final = {"time": log.TIME2, "datetime": log.DATETIME2, "timestamp": log.TIMESTAMP2}
_BLOBS: Final = {
    word: size
    for size, words in enumerate(
        (("tinyblob", "tinytext"), ("blob", "text"), ("mediumblob", "mediumtext"), ("longblob", "longtext")), 1
    )
    for word in words
}
_SIZED: Final = {"char": log.STRING, "binary": log.STRING, "varchar": log.VARCHAR, "varbinary": log.VARCHAR}
_FIXED: Final = {"uuid": 16, "inet6": 16, "inet4": 4}
_PLAIN: Final = {
    "float": (log.FLOAT, 4), "double": (log.DOUBLE, 8), "json": (log.JSON, 4), "enum": (log.ENUM, 2),
    "set": (log.SET, 8), "vector": (log.VECTOR, 4),
}  # fmt: skip


def _laid(row: Answer) -> tuple[int, int]:
    """Return a column's type code and metadata as a table map has them."""
    word = str(row[6]).lower()
    if word in _SIMPLE:
        return _SIMPLE[word], 0
    if word in _TIMES:
        return _TIMES[word], int(row[_FRACTION] or 0)
    if word in _BLOBS:
        return log.BLOB, _BLOBS[word]
    if word in _SIZED:
        return _SIZED[word], int(row[_OCTETS])
    if word in _FIXED:
        return log.STRING, _FIXED[word]
    if word == "decimal":
        return log.DECIMAL, int(row[_PRECISION]) | int(row[_SCALE]) << 8
    if word == "bit":
        return log.BIT, int(row[_PRECISION]) // 8 << 8 | int(row[_PRECISION]) % 8
    return _PLAIN.get(word, (log.GEOMETRY, 4))
