"""Neutral types as columns of MySQL and MariaDB: by their own name where they come from there, else as what keeps every value.

Rules for what has no like here (docs/guides/targets.md has them for users): a decimal without precision, an array, a
set from elsewhere and a type that has no neutral form are text; json from elsewhere is text too, since a JSON column
of MySQL changes numbers and the order of members; a timestamp with time zone is a DATETIME in UTC, since TIMESTAMP ends
in 2038. Text has a binary collation, so that keys which differ by case or accents stay two rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdcsync.change import Column, Table

SYSTEM: Final = "mysql"
KEY_CHARACTERS: Final = 512
"""Of a text without a length that is part of the key, which needs one."""
KEY_BYTES_MAX: Final = 3072
"""Of all columns of an InnoDB key (row format DYNAMIC)."""
ROW_BYTES_MAX: Final = 65_535
"""Of all columns of a row but TEXT and BLOB, which count little."""
DECIMAL_DIGITS: Final = 65
DECIMAL_SCALE: Final = 30
BIT_MAX: Final = 64
_CHAR_MAX: Final = 255
_VARCHAR_MAX: Final = 16_383
"""Characters of up to 4 bytes in a row that has nothing else."""
_SET_MAX: Final = 64
_ENUM_MAX: Final = 65_535
_LABEL_MAX: Final = 255
_LONG: Final = frozenset({Kind.DECIMAL, Kind.ARRAY, Kind.SET, Kind.OPAQUE, Kind.ENUM, Kind.BIT, Kind.TEXT, Kind.JSON})
"""Kinds whose text has no bound of its own."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one server knows."""

    collation: str
    """The finest of utf8mb4; of those that pad with spaces only where there is no other."""
    own: frozenset[str] = frozenset()
    """Names of types that not every server has: uuid, inet4, inet6."""
    json_is_text: bool = False
    """MariaDB's JSON is text, kept to the byte."""


@dataclass(frozen=True, slots=True)
class _Room:
    """How long the columns of one table may be."""

    characters: dict[str, int]
    """Of key columns, by name: at most so many characters, or bytes."""
    short: frozenset[str]
    """Names of columns that are declared as TEXT or BLOB, for the row to fit."""


def literal(text: str) -> str:
    """Return a text in quotes, for a server whose sql_mode does not name NO_BACKSLASH_ESCAPES."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def declarations(table: Table, dialect: Dialect) -> dict[str, str]:
    """Return the type of each column for CREATE TABLE, such that key and row fit."""
    room = _Room(_key_characters(table, dialect), frozenset())
    while True:
        found = {column.name: _declared(column, dialect, room) for column in table.columns}
        wide = {
            column.name: _row_bytes(found[column.name])
            for column in table.columns
            if column.name not in table.key and found[column.name].startswith("VAR")
        }
        if sum(map(_row_bytes, found.values())) < ROW_BYTES_MAX - len(found) or not wide:
            return found
        longest = max(wide, key=wide.__getitem__)
        room = _Room(room.characters, room.short | {longest})


def declare(kind: Type, dialect: Dialect) -> str:
    """Return the type of a column that is not part of a key."""
    own = _own(kind, dialect) if kind.system == SYSTEM else None
    return own or _DECLARED[kind.kind](kind, dialect)


def _declared(column: Column, dialect: Dialect, room: _Room) -> str:
    found = declare(column.type, dialect)
    limit = room.characters.get(column.name)
    if limit is not None:
        return _limited(column.type, found, limit)
    if column.name in room.short:
        return "BLOB" if found.startswith("VARBINARY") else "TEXT"
    return found


def _limited(kind: Type, declared: str, limit: int) -> str:
    """Return the declaration of a key column that takes so many characters, or bytes."""
    if declared == "FLOAT":
        return "DOUBLE"
    if _is_blob(declared):
        return f"VARBINARY({min(limit, kind.length or limit)})"
    if _is_text(declared) or declared == "JSON":
        return f"VARCHAR({min(limit, kind.length or limit)})"
    return declared


def _is_text(declared: str) -> bool:
    return declared.endswith("TEXT") or declared.startswith("VARCHAR")


def _is_blob(declared: str) -> bool:
    return declared.endswith("BLOB") or declared.startswith("VARBINARY")


def _key_characters(table: Table, dialect: Dialect) -> dict[str, int]:
    """Return how long the key columns of open length may be: as long as they are, or equal shares of what there is."""
    wanted: dict[str, tuple[int, int]] = {}
    """Length and bytes of one character."""
    left = KEY_BYTES_MAX
    for name in table.key:
        kind = table.columns[table.at[name]].type
        declared = declare(kind, dialect)
        if _is_blob(declared):
            wanted[name] = kind.length or 2 * KEY_CHARACTERS, 1
        elif _is_text(declared) or declared == "JSON":
            wanted[name] = kind.length or KEY_CHARACTERS, 4
        else:
            wanted[name] = 0, 0
            left -= min(_row_bytes(declared), _CHAR_MAX * 4)
    total = sum(length * width for length, width in wanted.values())
    if total <= left:
        return {name: length for name, (length, _) in wanted.items()}
    share = left // max(1, sum(1 for length, _ in wanted.values() if length))
    return {name: min(length, share // width) if width else 0 for name, (length, width) in wanted.items()}


def _row_bytes(declared: str) -> int:
    """Return an upper bound of what a column counts in its row."""
    bare, _, rest = declared.partition("(")
    if bare in {"VARCHAR", "CHAR"}:
        return 4 * int(rest.partition(")")[0]) + 2
    if bare in {"VARBINARY", "BINARY"}:
        return int(rest.partition(")")[0]) + 2
    return 30 if bare == "DECIMAL" else 12


def _integer(kind: Type, _dialect: Dialect) -> str:
    name = {8: "TINYINT", 16: "SMALLINT", 24: "MEDIUMINT", 32: "INT"}.get(kind.bits, "BIGINT")
    return f"{name} UNSIGNED" if kind.unsigned else name


def _float(kind: Type, _dialect: Dialect) -> str:
    return "FLOAT" if kind.bits == 32 else "DOUBLE"  # noqa: PLR2004  IEEE single


def _decimal(kind: Type, _dialect: Dialect) -> str:
    if kind.precision is None:
        return "LONGTEXT"
    scale = kind.scale or 0
    digits = kind.precision - scale if scale < 0 else max(kind.precision, scale)
    if digits > DECIMAL_DIGITS or scale > DECIMAL_SCALE:
        return "LONGTEXT"
    return f"DECIMAL({digits},{max(scale, 0)})"


def _text(kind: Type, _dialect: Dialect) -> str:
    if kind.length is None:
        return "LONGTEXT"
    if kind.fixed and kind.length <= _CHAR_MAX:
        return f"CHAR({kind.length})"
    if kind.length <= _VARCHAR_MAX:
        return f"VARCHAR({kind.length})"
    return "MEDIUMTEXT" if kind.length * 4 < 1 << 24 else "LONGTEXT"


def _bytes(kind: Type, _dialect: Dialect) -> str:
    if kind.length is None:
        return "LONGBLOB"
    return f"VARBINARY({kind.length})" if kind.length <= ROW_BYTES_MAX - 100 else "LONGBLOB"


def _timed(name: str) -> Callable[[Type, Dialect], str]:
    return lambda kind, _dialect: f"{name}({6 if kind.precision is None else kind.precision})"


def _always(name: str) -> Callable[[Type, Dialect], str]:
    return lambda _kind, _dialect: name


def _json(kind: Type, dialect: Dialect) -> str:
    return "JSON" if kind.system == SYSTEM or dialect.json_is_text else "LONGTEXT"


def _bit(kind: Type, _dialect: Dialect) -> str:
    if kind.length is None:
        return "LONGTEXT"
    if kind.fixed and kind.length <= BIT_MAX:
        return f"BIT({kind.length})"
    return f"VARCHAR({kind.length})" if kind.length <= _VARCHAR_MAX else "LONGTEXT"


def _enum(kind: Type, _dialect: Dialect) -> str:
    labels = kind.labels
    if not labels or len(labels) > _ENUM_MAX or not all(map(_is_label, labels)):
        return "LONGTEXT"
    return f"ENUM({', '.join(map(literal, labels))})"


def _set(kind: Type, _dialect: Dialect) -> str:
    labels = kind.labels
    if not labels or len(labels) > _SET_MAX or not all(_is_label(label) and "," not in label for label in labels):
        return "LONGTEXT"
    return f"SET({', '.join(map(literal, labels))})"


def _is_label(label: str) -> bool:
    """Return whether it stays what it is: the server cuts spaces at the end, and '' is its mark of an error."""
    return bool(label) and label == label.rstrip(" ") and len(label) <= _LABEL_MAX


_ASCII: Final = "CHARACTER SET ascii COLLATE ascii_bin"
_DECLARED: Final[dict[Kind, Callable[[Type, Dialect], str]]] = {
    Kind.BOOLEAN: _always("TINYINT(1)"),
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.DECIMAL: _decimal,
    Kind.TEXT: _text,
    Kind.BYTES: _bytes,
    Kind.DATE: _always("DATE"),
    Kind.TIME: _timed("TIME"),
    Kind.TIMETZ: _always(f"VARCHAR(32) {_ASCII}"),
    Kind.TIMESTAMP: _timed("DATETIME"),
    Kind.TIMESTAMPTZ: _timed("DATETIME"),
    Kind.INTERVAL: _always(f"VARCHAR(100) {_ASCII}"),
    Kind.UUID: _always(f"CHAR(36) {_ASCII}"),
    Kind.JSON: _json,
    Kind.BIT: _bit,
    Kind.ENUM: _enum,
    Kind.SET: _set,
    Kind.ARRAY: _always("LONGTEXT"),
    Kind.GEOMETRY: _always("GEOMETRY"),
    Kind.OPAQUE: _always("LONGTEXT"),
}


def _own(kind: Type, dialect: Dialect) -> str | None:
    """Return a type of MySQL's or MariaDB's by its own name; None where another declaration says the same."""
    name = kind.name.lower()
    bare = name.partition("(")[0].partition(" ")[0]
    if bare in _SIZED:
        return bare.upper()
    if bare in {"binary", "varbinary"} and kind.length:
        return f"{bare.upper()}({kind.length})"
    if bare in {"timestamp", "datetime", "time"}:
        return f"{bare.upper()}({kind.precision or 0})"
    if bare in dialect.own:
        return bare.upper()
    return None


_SIZED: Final = frozenset(
    {"year", "date", "json", "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring"}
    | {"multipolygon", "geometrycollection", "geomcollection"}
    | {f"{size}{kind}" for size in ("tiny", "", "medium", "long") for kind in ("text", "blob")}
)
_NULL: Final = "NULL"


def create_table(table: Table, dialect: Dialect, *, name: str, quote: Callable[[str], str]) -> str:
    """Return the statement: columns, NOT NULL, primary key, InnoDB."""
    found = declarations(table, dialect)
    lines = [f"{quote(column.name)} {found[column.name]}{_nullness(table, column, found)}" for column in table.columns]
    if table.key:
        lines.append(f"PRIMARY KEY ({', '.join(map(quote, table.key))})")
    body = ",\n  ".join(lines)
    return (
        f"CREATE TABLE {name} (\n  {body}\n) ENGINE = InnoDB ROW_FORMAT = DYNAMIC "
        f"DEFAULT CHARACTER SET utf8mb4 COLLATE {dialect.collation}"
    )


def _nullness(table: Table, column: Column, found: dict[str, str]) -> str:
    """Return NULL or NOT NULL; a TIMESTAMP says which, and has a default, or old servers give it one that acts."""
    nullable = column.nullable and column.name not in table.key
    if not found[column.name].startswith("TIMESTAMP"):
        return "" if nullable else " NOT NULL"
    if nullable:
        return f" {_NULL} DEFAULT {_NULL}"
    precision = found[column.name].removeprefix("TIMESTAMP")
    return f" NOT NULL DEFAULT CURRENT_TIMESTAMP{precision}"
