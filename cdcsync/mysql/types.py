"""MySQL's and MariaDB's types and the neutral ones: from the log's layout and the catalogue to a `Table`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cdcsync.change import Column, Table
from cdcsync.errors import Fatal
from cdcsync.mysql import table_map as log
from cdcsync.mysql.charsets import BINARY
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Value
    from cdcsync.mysql.table_map import Layout

SYSTEM: Final = "mysql"
FULL: Final = (
    "SET GLOBAL binlog_row_metadata = 'FULL' lets the log itself describe its tables (MySQL 8.0, MariaDB 10.5)"
)


@dataclass(frozen=True, slots=True)
class ColumnHint:
    """What the catalogue says of one column (information_schema.COLUMNS)."""

    name: str
    declared: str
    """COLUMN_TYPE: "int(10) unsigned", "enum('a','b')", "uuid"; "json" where MariaDB checks it as such."""
    charset: str = ""
    """CHARACTER_SET_NAME; empty where it has none."""
    nullable: bool = True
    generated: bool = False
    default: str | None = None
    """What a row has that was there before the column, as text; None: nobody knows, or NULL."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What the catalogue says of a table, its columns in order."""

    columns: tuple[ColumnHint, ...]
    key: tuple[str, ...] = ()
    """The primary key's columns. Where only the first characters of one count, the whole ones are unique, too."""
    versioned: bool = False
    """MariaDB: TABLE_TYPE is SYSTEM VERSIONED."""


def described(layout: Layout, hints: Hints | None) -> Layout:
    """Return the layout with what its log left out, from the catalogue.

    Where the log names the columns, a hint counts only for a column of that name and of a type that fits. Where it
    does not, the catalogue must fit in every column. Raises Fatal when it does not, or is missing.
    """
    if hints is not None and hints.versioned:
        raise _versioned(layout)
    if layout.names:
        found = {hint.name: hint for hint in hints.columns} if hints else {}
        fitting = [
            hint if (hint := found.get(name)) is not None and _fits(layout, index, hint) else None
            for index, name in enumerate(layout.names)
        ]
        return _hinted(layout, fitting)
    if hints is None:
        msg = f"the log does not name the columns of {layout.qualified}"
        raise Fatal(msg, hint=FULL)
    if len(hints.columns) != len(layout.type_codes):
        what = f"{len(layout.type_codes)} columns in the log and {len(hints.columns)} in the catalogue"
        raise _misfit(layout, what)
    for index, hint in enumerate(hints.columns):
        if not _fits(layout, index, hint):
            what = (
                f"column {hint.name} as type {layout.type_codes[index]} in the log and {_shown(hint)} in the catalogue"
            )
            raise _misfit(layout, what)
    names = tuple([hint.name for hint in hints.columns])
    key = tuple([names.index(name) for name in hints.key])
    return _hinted(replace(layout, names=names, key=key), list(hints.columns))


def _misfit(layout: Layout, what: str) -> Fatal:
    msg = f"table {layout.qualified} has {what}: it was altered since"
    return Fatal(msg, hint=f"{FULL}; what was logged before cannot be read any more: copy the table again")


def _shown(hint: ColumnHint) -> str:
    """A type without its labels, which are data."""
    return hint.declared.partition("(")[0]


def _hinted(layout: Layout, hints: Sequence[ColumnHint | None]) -> Layout:
    """Return the layout with what it lacks; what it has stays."""
    codes = layout.type_codes
    declared = tuple([hint.declared if hint else "" for hint in hints])
    return replace(
        layout,
        metas=tuple([_precise(layout, index, text) for index, text in enumerate(declared)]),
        unsigned=layout.unsigned or tuple(["unsigned" in text or "zerofill" in text for text in declared]),
        charsets=layout.charsets
        or tuple([_hinted_charset(code, hint) for code, hint in zip(codes, hints, strict=True)]),
        labels=layout.labels
        or tuple([read_labels(text) if text.startswith(("enum", "set")) else () for text in declared]),
        geometries=layout.geometries or tuple([_GEOMETRIES.get(text.partition(" ")[0], 0) for text in declared]),
        declared=declared,
        generated=tuple([bool(hint and hint.generated) for hint in hints]),
        defaults=tuple([hint.default if hint else None for hint in hints]),
        hidden=tuple(
            [
                hint is None and _HIDDEN.fullmatch(name) is not None
                for name, hint in zip(layout.names, hints, strict=True)
            ]
        ),
        nullable=tuple(
            [
                nullable and (hint is None or hint.nullable)
                for nullable, hint in zip(layout.nullable, hints, strict=True)
            ]
        ),
    )


_HIDDEN: Final = re.compile(r"!hidden!.*|[0-9a-f]{32}|DB_ROW_HASH_\d+", re.DOTALL)
"""Names of columns behind an index: MySQL's functional ones since 8.0.22 and before, MariaDB's unique ones by hash."""


def is_unmeasured(layout: Layout) -> bool:
    """Return whether how long its rows are depends on what only the catalogue tells."""
    return any(code in _OLD for code in layout.type_codes)


def _precise(layout: Layout, index: int, declared: str) -> int:
    """Return a column's metadata; of times in the form of before 5.6 the precision, which the log does not tell."""
    if layout.type_codes[index] not in _OLD:
        return layout.metas[index]
    if not declared:
        msg = f"{layout.qualified}, column {layout.names[index]}: how precise this time is only the catalogue tells"
        hint = (
            "SET GLOBAL mysql56_temporal_format = ON and ALTER TABLE .. FORCE the table; what was logged before cannot "
            "be read any more: copy the table again"
        )
        raise Fatal(msg, hint=hint)
    return int(declared.partition("(")[2].partition(")")[0] or 0)


_OLD: Final = frozenset({log.TIME, log.DATETIME, log.TIMESTAMP})


def _hinted_charset(code: int, hint: ColumnHint | None) -> str:
    if code not in log.CHARACTER and code not in {log.ENUM, log.SET}:
        return ""
    return (hint.charset if hint else "") or BINARY


_LABEL: Final = re.compile(r"'((?:[^']|'')*)'")


def read_labels(declared: str) -> tuple[str, ...]:
    """Return the labels of "enum('a','it''s')"."""
    return tuple([label.replace("''", "'") for label in _LABEL.findall(declared)])


_WORD: Final = re.compile(r"[a-z0-9]+")
_GEOMETRIES: Final[Mapping[str, int]] = {
    "geometry": 0, "point": 1, "linestring": 2, "polygon": 3, "multipoint": 4, "multilinestring": 5,
    "multipolygon": 6, "geometrycollection": 7, "geomcollection": 7,
}  # fmt: skip
_GEOMETRY_NAMES: Final = (
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
)
_BLOBS: Final = ("tinyblob", "blob", "mediumblob", "longblob")
_TEXTS: Final = ("tinytext", "text", "mediumtext", "longtext")
_FITTING: Final[Mapping[int, frozenset[str]]] = {
    log.TINY: frozenset({"tinyint", "bool"}),
    log.SHORT: frozenset({"smallint"}),
    log.INT24: frozenset({"mediumint"}),
    log.LONG: frozenset({"int"}),
    log.LONGLONG: frozenset({"bigint"}),
    log.FLOAT: frozenset({"float"}),
    log.DOUBLE: frozenset({"double"}),
    log.DECIMAL: frozenset({"decimal"}),
    log.YEAR: frozenset({"year"}),
    log.DATE: frozenset({"date"}),
    **dict.fromkeys((log.TIME, log.TIME2), frozenset({"time"})),
    **dict.fromkeys((log.DATETIME, log.DATETIME2), frozenset({"datetime"})),
    **dict.fromkeys((log.TIMESTAMP, log.TIMESTAMP2), frozenset({"timestamp"})),
    log.BIT: frozenset({"bit"}),
    log.ENUM: frozenset({"enum"}),
    log.SET: frozenset({"set"}),
    log.JSON: frozenset({"json"}),
    log.GEOMETRY: frozenset(_GEOMETRIES),
    log.VECTOR: frozenset({"vector"}),
    log.STRING: frozenset({"char", "binary", "uuid", "inet4", "inet6"}),
    **dict.fromkeys((log.VARCHAR, log.VAR_STRING), frozenset({"varchar", "varbinary", "vector"})),
    log.VARCHAR_COMPRESSED: frozenset({"varchar", "varbinary"}),
    **dict.fromkeys((log.BLOB, log.BLOB_COMPRESSED), frozenset({*_BLOBS, *_TEXTS, "json"})),
}
"""Words that the catalogue may begin a type with, by its code in the log."""
_FIXED_SIZES: Final = {"uuid": 16, "inet4": 4, "inet6": 16}
"""MariaDB logs these as BINARY."""


def _fits(layout: Layout, index: int, hint: ColumnHint) -> bool:
    word = _WORD.match(hint.declared)
    if word is None or word[0] not in _FITTING[layout.type_codes[index]]:
        return False
    return _FIXED_SIZES.get(word[0], layout.metas[index]) == layout.metas[index]


def table_of(layout: Layout) -> Table:
    """Return the table version of a layout that is `described`. Raises Fatal for a system-versioned table."""
    if layout.names[-2:] == _PERIOD and (not any(layout.declared[-2:]) or len(layout.names) - 1 in layout.key):
        raise _versioned(layout)
    columns = tuple(
        [
            _column(layout, index, column_type(layout, index))
            for index in range(len(layout.names))
            if not layout.hidden[index]
        ]
    )
    return Table(layout.schema, layout.name, columns, tuple([layout.names[index] for index in layout.key]))


def _column(layout: Layout, index: int, kind: Type) -> Column:
    default = layout.defaults[index] if layout.defaults else None
    initial = _INITIAL[kind.kind](default) if default is not None and kind.kind in _INITIAL else None
    return Column(layout.names[index], kind, layout.nullable[index], layout.generated[index], initial)


_INITIAL: Final[Mapping[Kind, Callable[[str], Value]]] = {
    Kind.INTEGER: lambda text: int(text or "0"),
    Kind.FLOAT: lambda text: float(text or "0"),
    Kind.DECIMAL: lambda text: text or "0",
    Kind.TEXT: str,
    Kind.ENUM: str,
    Kind.DATE: lambda text: text or None,
    Kind.TIME: lambda text: text or None,
    Kind.TIMESTAMP: lambda text: text.replace(" ", "T") or None,
}
"""From a default's text; an empty one is that of a column which is NOT NULL and has none."""


_PERIOD: Final = ("row_start", "row_end")
"""The last columns of MariaDB's tables that were declared WITH SYSTEM VERSIONING and no more; no catalogue shows them."""


def _versioned(layout: Layout) -> Fatal:
    msg = f"table {layout.qualified} is system-versioned: its history stands in the log as rows among the present ones"
    return Fatal(msg, hint="leave it out of the mapping, or ALTER TABLE .. DROP SYSTEM VERSIONING and copy it again")


_INTEGERS: Final = {
    log.TINY: (8, "tinyint"),
    log.SHORT: (16, "smallint"),
    log.INT24: (24, "mediumint"),
    log.LONG: (32, "int"),
    log.LONGLONG: (64, "bigint"),
}
_TIMES: Final = {
    log.TIME: (Kind.TIME, "time"),
    log.TIME2: (Kind.TIME, "time"),
    log.DATETIME: (Kind.TIMESTAMP, "datetime"),
    log.DATETIME2: (Kind.TIMESTAMP, "datetime"),
    log.TIMESTAMP: (Kind.TIMESTAMPTZ, "timestamp"),
    log.TIMESTAMP2: (Kind.TIMESTAMPTZ, "timestamp"),
}
_PLAIN: Final = {
    log.YEAR: Type(Kind.INTEGER, bits=16, unsigned=True, name="year", system=SYSTEM),
    log.DATE: Type(Kind.DATE, name="date", system=SYSTEM),
    log.JSON: Type(Kind.JSON, name="json", system=SYSTEM),
    log.VECTOR: Type(Kind.BYTES, name="vector", system=SYSTEM),
}
_CHARACTER_BYTES: Final = {
    **dict.fromkeys(("utf8", "utf8mb3", "ujis", "eucjpms"), 3),
    **dict.fromkeys(("utf8mb4", "utf16", "utf16le", "utf32", "gb18030"), 4),
    **dict.fromkeys(("ucs2", "big5", "cp932", "euckr", "gb2312", "gbk", "sjis"), 2),
}
"""Of the longest character; 1 elsewhere."""


def column_type(layout: Layout, index: int) -> Type:
    """Return the neutral type of a column of a layout that is `described`."""
    code, meta = layout.type_codes[index], layout.metas[index]
    sign = " unsigned" if layout.unsigned[index] else ""
    if code in _INTEGERS:
        bits, name = _INTEGERS[code]
        return Type(Kind.INTEGER, bits=bits, unsigned=bool(sign), name=name + sign, system=SYSTEM)
    if code in _TIMES:
        kind, name = _TIMES[code]
        return Type(kind, precision=meta, name=name, system=SYSTEM)
    if code in _PLAIN:
        return _PLAIN[code]
    if code == log.DECIMAL:
        return Type(Kind.DECIMAL, precision=meta & 0xFF, scale=meta >> 8, name="decimal" + sign, system=SYSTEM)
    if code in {log.FLOAT, log.DOUBLE}:
        bits, name = (32, "float") if code == log.FLOAT else (64, "double")
        return Type(Kind.FLOAT, bits=bits, name=name + sign, system=SYSTEM)
    if code == log.BIT:
        return Type(Kind.BIT, length=(meta >> 8) * 8 + (meta & 0xFF), fixed=True, name="bit", system=SYSTEM)
    if code == log.ENUM:
        return Type(Kind.ENUM, labels=layout.labels[index], name="enum", system=SYSTEM)
    if code == log.SET:
        return Type(Kind.SET, labels=layout.labels[index], name="set", system=SYSTEM)
    if code == log.GEOMETRY:
        return Type(Kind.GEOMETRY, name=_GEOMETRY_NAMES[layout.geometries[index]], system=SYSTEM)
    return _string_type(layout, index)


def _string_type(layout: Layout, index: int) -> Type:
    """Return the type of what holds text or bytes."""
    code, meta = layout.type_codes[index], layout.metas[index]
    declared = layout.declared[index].partition("(")[0]
    binary = layout.charsets[index] == BINARY
    if declared == "uuid":
        return Type(Kind.UUID, name="uuid", system=SYSTEM)
    if declared in _FIXED_SIZES:
        return Type(Kind.OPAQUE, name=declared, system=SYSTEM)
    if code in {log.BLOB, log.BLOB_COMPRESSED}:
        if declared == "json" and not binary:
            return Type(Kind.JSON, name="json", system=SYSTEM)
        return Type(Kind.BYTES if binary else Kind.TEXT, name=(_BLOBS if binary else _TEXTS)[meta - 1], system=SYSTEM)
    fixed = code == log.STRING
    size = meta - (code == log.VARCHAR_COMPRESSED)
    if binary:
        return Type(Kind.BYTES, length=size, fixed=fixed, name="binary" if fixed else "varbinary", system=SYSTEM)
    length = size // _CHARACTER_BYTES.get(layout.charsets[index], 1)
    return Type(Kind.TEXT, length=length, fixed=fixed, name="char" if fixed else "varchar", system=SYSTEM)
