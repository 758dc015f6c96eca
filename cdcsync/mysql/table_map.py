"""Reads the TABLE_MAP event: what the log says of a table before it shows its rows.

MySQL internals, "Table_map_event"; MariaDB knowledge base, "TABLE_MAP_EVENT". With `binlog_row_metadata=FULL` it names
everything that rows are laid out by; with MINIMAL, and on MySQL 5.7, `described` adds what the catalogue knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from cdcsync.errors import Fatal
from cdcsync.mysql.charsets import BINARY, charset_of, text_decoder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_T = TypeVar("_T")
HINT: Final = (
    "the log is damaged, or its server writes what this cdcsync does not know: check it with mysqlbinlog "
    "--verify-binlog-checksum, upgrade cdcsync; the position was not moved"
)

TINY, SHORT, LONG, FLOAT, DOUBLE, TIMESTAMP, LONGLONG, INT24, DATE, TIME, DATETIME, YEAR = (
    1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13,
)  # fmt: skip
VARCHAR, BIT, TIMESTAMP2, DATETIME2, TIME2 = 15, 16, 17, 18, 19
BLOB_COMPRESSED, VARCHAR_COMPRESSED = 140, 141
VECTOR, JSON, DECIMAL, ENUM, SET, BLOB, VAR_STRING, STRING, GEOMETRY = 242, 245, 246, 247, 248, 252, 253, 254, 255
"""Types of columns, as they stand in the log (mysql_com.h, field_types.h)."""

_META_SIZES: Final = {
    **dict.fromkeys((TINY, SHORT, LONG, LONGLONG, INT24, YEAR, DATE, TIME, DATETIME, TIMESTAMP), 0),
    **dict.fromkeys((FLOAT, DOUBLE, TIMESTAMP2, DATETIME2, TIME2, BLOB, BLOB_COMPRESSED, JSON, GEOMETRY, VECTOR), 1),
    **dict.fromkeys((VARCHAR, VARCHAR_COMPRESSED, VAR_STRING, BIT, DECIMAL, STRING, ENUM, SET), 2),
}
CHARACTER: Final = frozenset({STRING, VAR_STRING, VARCHAR, BLOB, BLOB_COMPRESSED, VARCHAR_COMPRESSED})
"""Those that hold text, or bytes where their character set is binary."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which columns a server's optional metadata speaks of, for it does not name them."""

    signed: frozenset[int]
    """Types that it has a sign for."""
    characters: frozenset[int]
    """Types that it has a character set for."""


MYSQL: Final = Dialect(frozenset({TINY, SHORT, INT24, LONG, LONGLONG, DECIMAL, FLOAT, DOUBLE}), CHARACTER)
"""`is_numeric_type` and `is_character_type` in MySQL's log_event.cc."""
MARIADB: Final = Dialect(MYSQL.signed | {YEAR}, CHARACTER | {GEOMETRY})
"""`binlog_type_info` in MariaDB's field.cc: a YEAR is a number, and a GEOMETRY has a character set."""
_LABELLED: Final = frozenset({ENUM, SET})

_SIGNEDNESS, _DEFAULT_CHARSET, _COLUMN_CHARSET, _NAMES, _SET_LABELS, _ENUM_LABELS, _GEOMETRY, _KEY, _KEY_PREFIXES = (
    range(1, 10)
)
_LABEL_DEFAULT_CHARSET, _LABEL_CHARSET, _VISIBILITY, _DIMENSIONS = range(10, 14)
"""Fields of the optional metadata."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table's rows lie in the log. Equal layouts are the same version of a table, whatever their ids."""

    table_id: int = field(compare=False)
    schema: str
    name: str
    type_codes: bytes
    """ENUM and SET as themselves, though the log has them as STRING."""
    metas: tuple[int, ...]
    """Two bytes as they stand, the first one lower; STRING: the longest value in bytes; ENUM, SET: its bytes."""
    nullable: tuple[bool, ...]
    names: tuple[str, ...] = ()
    """Empty when the log has none; so with all that follows."""
    unsigned: tuple[bool, ...] = ()
    charsets: tuple[str, ...] = ()
    """By column, "" where it has none; those of ENUM and SET are of their labels."""
    labels: tuple[tuple[str, ...], ...] = ()
    """By column, of ENUM and SET."""
    geometries: tuple[int, ...] = ()
    """By column, of GEOMETRY (MySQL's numbers: 0 any, 1 point, ..)."""
    key: tuple[int, ...] = ()
    """Indexes of the primary key's columns."""
    prefixes: tuple[int, ...] = ()
    """Characters of each that are in the key, 0 for all; empty for a key of whole columns."""
    invisible: tuple[bool, ...] = ()
    declared: tuple[str, ...] = ()
    """By column, as the catalogue writes the type ("int unsigned", "uuid"); of `described` alone."""
    generated: tuple[bool, ...] = ()
    """By column; of `described` alone."""
    hidden: tuple[bool, ...] = ()
    """By column: the server's own, which no SELECT shows (of a functional or hash index); of `described` alone."""
    defaults: tuple[str | None, ...] = ()
    """By column: the text of its default; of `described` alone."""

    @property
    def qualified(self) -> str:
        """`schema.name`."""
        return f"{self.schema}.{self.name}"


def fault(where: str, what: str) -> Fatal:
    """Return the error of what the log should not hold; its reader says where in the log that is."""
    return Fatal(f"{where}: {what}", hint=HINT)


def parse(event: bytes, at: int, end: int, dialect: Dialect) -> Layout:
    """Return what the body of a TABLE_MAP event says; `at` is after the header, `end` before the checksum.

    Raises Fatal on what it does not know and on an event that is cut off.
    """
    try:
        return _Reader(event, at, end, dialect).layout()
    except (IndexError, KeyError, StopIteration, ValueError) as error:
        raise fault("a table map", f"it cannot be read ({type(error).__name__})") from None


class _Reader:
    """Walks over one event."""

    def __init__(self, event: bytes, at: int, end: int, dialect: Dialect) -> None:
        self._event = event
        self._at = at
        self._end = end
        self._dialect = dialect

    def layout(self) -> Layout:
        table_id = self._int(6)
        self._int(2)
        schema, name = self._name(), self._name()
        codes = bytearray(self._bytes(self._lenenc()))
        end_of_metas = self._lenenc() + self._at
        where = f"a table map of {schema}.{name}"
        metas = [self._meta(codes, index, where) for index in range(len(codes))]
        if self._at != end_of_metas:
            raise fault(where, "its metadata does not fit its columns")
        nullable = _bits(self._bytes((len(codes) + 7) // 8), len(codes), first=1)
        layout = Layout(table_id, schema, name, bytes(codes), tuple(metas), nullable)
        return self._optional(layout, where)

    def _meta(self, codes: bytearray, index: int, where: str) -> int:
        """Return a column's metadata; sets the code of what is logged as STRING."""
        code = codes[index]
        if code not in _META_SIZES:
            raise fault(where, f"column {index + 1} is of type {code}, which nobody knows")
        meta = self._int(_META_SIZES[code])
        if code == STRING:
            low, high = meta & 0xFF, meta >> 8
            if low in _LABELLED:
                codes[index] = low
                return high
            return high | ((low & 0x30) ^ 0x30) << 4
        return meta

    def _optional(self, layout: Layout, where: str) -> Layout:
        fields: dict[int, bytes] = {}
        while self._at < self._end:
            kind = self._int(1)
            if not 1 <= kind <= _DIMENSIONS:
                raise fault(where, f"it has metadata of kind {kind}, which nobody knows")
            fields[kind] = self._bytes(self._lenenc())
        return _with_fields(layout, fields, self._dialect)

    def _int(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "little")

    def _bytes(self, size: int) -> bytes:
        start = self._at
        self._at += size
        if self._at > self._end:
            raise IndexError(size)
        return self._event[start : self._at]

    def _lenenc(self) -> int:
        value, self._at = lenenc(self._event, self._at)
        return value

    def _name(self) -> str:
        name = self._bytes(self._int(1)).decode()
        self._int(1)
        return name


def lenenc(data: bytes, at: int) -> tuple[int, int]:
    """Return the length-encoded integer at `at`, and where it ends."""
    first = data[at]
    if first < 0xFB:  # noqa: PLR2004  it is the number
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first] if first in {0xFC, 0xFD, 0xFE} else 0
    if not size or at + size >= len(data):
        raise IndexError(at)
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


def _bits(raw: bytes, count: int, *, first: int) -> tuple[bool, ...]:
    """Return that many bits, the first one being the lowest (1) or the highest (128) of its byte."""
    if first == 1:
        return tuple([bool(raw[index >> 3] & 1 << (index & 7)) for index in range(count)])
    return tuple([bool(raw[index >> 3] & 128 >> (index & 7)) for index in range(count)])


def _with_fields(layout: Layout, fields: dict[int, bytes], dialect: Dialect) -> Layout:
    """Return the layout with what the optional metadata says."""
    codes = layout.type_codes
    made = replace(
        layout,
        names=tuple([name.decode() for name in _strings(fields.get(_NAMES, b""))]),
        unsigned=_unsigned(codes, fields.get(_SIGNEDNESS), dialect.signed),
        charsets=_charsets(codes, fields, dialect.characters),
        geometries=_spread(codes, {GEOMETRY}, list(_numbers(fields.get(_GEOMETRY, b""))), 0),
        invisible=tuple([not each for each in _bits(fields[_VISIBILITY], len(codes), first=128)])
        if _VISIBILITY in fields
        else (),
        key=tuple(_numbers(fields.get(_KEY, b""))),
    )
    if _KEY_PREFIXES in fields:
        pairs = list(_numbers(fields[_KEY_PREFIXES]))
        made = replace(made, key=tuple(pairs[::2]), prefixes=tuple(pairs[1::2]))
    if made.names and len(made.names) != len(codes):
        raise ValueError(len(made.names))
    if any(index >= len(codes) for index in made.key):
        raise IndexError(max(made.key))
    return replace(made, labels=_labels(made, fields))


def _unsigned(codes: bytes, raw: bytes | None, types: frozenset[int]) -> tuple[bool, ...]:
    """Return which columns have no sign; empty when the log has no word on the numeric ones."""
    numeric = sum(code in types for code in codes)
    if raw is None:
        return () if numeric else (False,) * len(codes)
    return _spread(codes, types, list(_bits(raw, numeric, first=128)), False)  # noqa: FBT003  a value, not a flag


def _charsets(codes: bytes, fields: dict[int, bytes], characters: frozenset[int]) -> tuple[str, ...]:
    """Return the character set of each column; empty when the log has none where there should be one."""
    found = [""] * len(codes)
    for types, default, listed in (
        (characters, _DEFAULT_CHARSET, _COLUMN_CHARSET),
        (_LABELLED, _LABEL_DEFAULT_CHARSET, _LABEL_CHARSET),
    ):
        at = [index for index, code in enumerate(codes) if code in types]
        if default in fields:
            first, *rest = _numbers(fields[default])
            collations = dict.fromkeys(range(len(at)), first) | dict(zip(rest[::2], rest[1::2], strict=True))
        elif listed in fields:
            collations = dict(enumerate(_numbers(fields[listed])))
        elif not at or types is _LABELLED:
            continue
        else:
            return ()
        if len(collations) != len(at):
            raise ValueError(len(collations))
        for place, index in enumerate(at):
            found[index] = _charset(collations[place])
    return tuple(found)


def _charset(collation: int) -> str:
    try:
        return charset_of(collation)
    except KeyError:
        raise fault("a table map", f"collation {collation} is not known") from None


def _labels(layout: Layout, fields: dict[int, bytes]) -> tuple[tuple[str, ...], ...]:
    """Return the labels of ENUM and SET, which stand in the column's character set."""
    codes = layout.type_codes
    lists = {
        code: _label_lists(fields[kind]) for code, kind in ((ENUM, _ENUM_LABELS), (SET, _SET_LABELS)) if kind in fields
    }
    if not lists:
        return ()
    found: list[tuple[str, ...]] = []
    for index, code in enumerate(codes):
        if code not in _LABELLED:
            found.append(())
            continue
        read = text_decoder(layout.charsets[index] or "utf8mb4") if layout.charsets[index] != BINARY else bytes.decode
        found.append(tuple([read(label) for label in next(lists[code])]))
    return tuple(found)


def _label_lists(raw: bytes) -> Iterator[list[bytes]]:
    """Yield the labels of one column after the other."""
    at = 0
    while at < len(raw):
        count, at = lenenc(raw, at)
        labels = []
        for _ in range(count):
            size, at = lenenc(raw, at)
            labels.append(raw[at : at + size])
            at += size
        yield labels


def _numbers(raw: bytes) -> Iterator[int]:
    at = 0
    while at < len(raw):
        number, at = lenenc(raw, at)
        yield number


def _strings(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        size, at = lenenc(raw, at)
        if at + size > len(raw):
            raise IndexError(size)
        yield raw[at : at + size]
        at += size


def _spread(codes: bytes, types: Collection[int], values: Sequence[_T], absent: _T) -> tuple[_T, ...]:
    """Return by column the values that were listed for the columns of some types; empty when none was."""
    if not values:
        return (absent,) * len(codes) if not any(code in types for code in codes) else ()
    at = [index for index, code in enumerate(codes) if code in types]
    if len(at) != len(values):
        raise ValueError(len(values))
    spread = [absent] * len(codes)
    for index, value in zip(at, values, strict=True):
        spread[index] = value
    return tuple(spread)
