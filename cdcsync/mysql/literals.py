"""Neutral values as SQL literals, column by column, so that the loops run in C; and which values no column here holds."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cdcsync.change import Column, Table
from cdcsync.lines import encode_row
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.mysql.target import TargetColumn

Write: TypeAlias = "Callable[[Sequence[Any]], Sequence[str]]"
"""From values, none of them None, to their literals. Raises Unfit."""

_NUMBER: Final = frozenset("0123456789.-+")
_EWKB_SRID: Final = 0x20000000
_JSON_INTEGERS: Final = range(-(1 << 63), 1 << 64)


class Unfit(Exception):  # noqa: N818  told to the writer, which finds the row
    """A value that the column cannot hold as it is; the message names the column and says why, without the value."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """How one column's values are written."""

    name: str
    write: Write

    @classmethod
    def of(cls, kind: Type, column: TargetColumn) -> Parameter:
        """Return what writes values of that type into that column."""
        return cls(column.name, _limited(column, _writer(kind, column)))

    def literals(self, values: Sequence[Any]) -> Sequence[str]:
        """Return a literal for each value. Raises Unfit."""
        try:
            if None not in values:
                return self.write(values)
            there = iter(self.write([value for value in values if value is not None]))
            return ["NULL" if value is None else next(there) for value in values]
        except UnicodeEncodeError as error:
            msg = f"column {self.name} holds half of a surrogate pair, which is no valid text"
            raise Unfit(msg) from error


def quoted(texts: Sequence[str]) -> Sequence[str]:
    """Return texts in quotes. Raises UnicodeEncodeError for what is no text."""
    body = "".join(texts)
    if not body.isascii():
        body.encode()
    if "\\" in body or "'" in body or "\0" in body:
        return [f"'{_escaped(text)}'" for text in texts]
    return [f"'{text}'" for text in texts]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0")


def binary(values: Sequence[bytes]) -> Sequence[str]:
    """Return bytes in quotes; what is not ASCII as lone surrogates, which `surrogateescape` turns back."""
    return [f"_binary'{_escaped(value.decode('ascii', 'surrogateescape'))}'" for value in values]


def _integers(values: Sequence[int]) -> Sequence[str]:
    return list(map(int.__repr__, values))


def _booleans(values: Sequence[bool]) -> Sequence[str]:
    return ["1" if value else "0" for value in values]


def _stripped(_column: TargetColumn) -> Write:
    """Return the writer of texts for a CHAR column, which keeps no spaces at the end."""
    return lambda texts: quoted([text.rstrip(" ") for text in texts])


def _bits(_column: TargetColumn) -> Write:
    return lambda texts: [f"b'{int(text, 2):b}'" for text in texts]


def _writer(kind: Type, column: TargetColumn) -> Write:
    """Return the writer by kind, and by what the column is where that matters."""
    by_column = _BY_COLUMN.get((kind.kind, column.data_type)) or _BY_COLUMN.get((None, column.data_type))
    if by_column is not None:
        return by_column(column)
    if kind.kind in {Kind.ARRAY, Kind.SET}:
        return _structured(kind)
    if column.is_text:
        return _texts if kind.kind in {Kind.INTEGER, Kind.FLOAT} else quoted
    if kind.kind in _BY_KIND:
        return _BY_KIND[kind.kind](column)
    return _WRITERS.get(kind.kind, quoted)


def _texts(values: Sequence[Any]) -> Sequence[str]:
    return quoted(list(map(repr, values)))


def _floats(column: TargetColumn) -> Write:
    name, single = column.name, column.data_type == "float"

    def write(values: Sequence[float]) -> Sequence[str]:
        if not all(map(math.isfinite, values)):
            msg = f"column {name} holds NaN or an infinity, which no number of MySQL is"
            raise Unfit(msg)
        if single:
            values = [struct.unpack("f", struct.pack("f", value))[0] for value in values]
        texts = [repr(float(value)) for value in values]
        return [text if "e" in text else f"{text}e0" for text in texts]

    return write


def _decimals(column: TargetColumn) -> Write:
    name = column.name

    def write(texts: Sequence[str]) -> Sequence[str]:
        if not _NUMBER.issuperset("".join(texts)):
            msg = f"column {name} holds NaN or an infinity, which no number of MySQL is"
            raise Unfit(msg)
        return texts

    return write


def _moments(column: TargetColumn) -> Write:
    """Return the writer of dates and timestamps: a `Z` is what the session's time zone says already."""
    name = column.name

    def write(texts: Sequence[str]) -> Sequence[str]:
        if any(text[:1] in "+-i" for text in texts):
            msg = f"column {name} holds a date before the year 0, after 9999 or infinite, which no date of MySQL is"
            raise Unfit(msg)
        return quoted([text.removesuffix("Z") for text in texts])

    return write


def _documents(column: TargetColumn) -> Write:
    name = column.name

    def write(texts: Sequence[str]) -> Sequence[str]:
        for text in texts:
            reason = _changed_by_json(text)
            if reason:
                msg = f"column {name} holds {reason}, which a JSON column of MySQL changes; a LONGTEXT keeps it"
                raise Unfit(msg)
        return quoted(texts)

    return write


def _changed_by_json(text: str) -> str:
    """Return what of a document MySQL's JSON would not keep by value; empty when it keeps all."""
    found: list[str] = []

    def number(digits: str) -> None:
        if ("." in digits or "e" in digits or "E" in digits) and Decimal(repr(float(digits))) == Decimal(digits):
            return
        if digits.lstrip("-").isdigit() and int(digits) in _JSON_INTEGERS:
            return
        found.append("a number of more digits than a double has")

    def members(pairs: list[tuple[str, Any]]) -> None:
        if any(times > 1 for times in Counter(name for name, _ in pairs).values()):
            found.append("an object with a name twice")

    try:
        json.loads(text, parse_float=number, parse_int=number, object_pairs_hook=members)
    except (ValueError, ArithmeticError):
        return ""
    return found[0] if found else ""


def _labelled(column: TargetColumn) -> Write:
    """Return the writer of labels: one that is not there would be taken for a number where it looks like one."""
    labels = column.labels

    def write(texts: Sequence[str]) -> Sequence[str]:
        if not labels.issuperset(texts):
            msg = f"column {column.name}: {column.bare} has no such label; at the target: ALTER TABLE .. MODIFY"
            raise Unfit(msg)
        return quoted(texts)

    return write


def _sets(column: TargetColumn) -> Write:
    labels = column.labels

    def write(values: Sequence[tuple[str, ...]]) -> Sequence[str]:
        if not all(map(labels.issuperset, values)):
            msg = f"column {column.name}: {column.bare} has no such label; at the target: ALTER TABLE .. MODIFY"
            raise Unfit(msg)
        return quoted([",".join(value) for value in values])

    return write


def _structured(kind: Type) -> Write:
    table = Table("", "", (Column("v", kind),))
    return lambda values: quoted([structured(table, value) for value in values])


def structured(table: Table, value: Any) -> str:
    """Return the JSON text of an array or a set: the only column of `table`."""
    return encode_row(table, (value,)).decode()[len('{"v":') : -1]


def _geometries(values: Sequence[bytes]) -> Sequence[str]:
    return binary([internal(value) for value in values])


def internal(ewkb: bytes) -> bytes:
    """Return the server's own form (manual, "Internal Geometry Storage Format"): SRID, then WKB, little-endian.

    It takes the coordinates as they are; ST_GeomFromWKB would exchange those of a geographic SRID.
    """
    if ewkb[:1] != b"\x01":
        msg = "a geometry in big-endian form"
        raise Unfit(msg)
    kind = int.from_bytes(ewkb[1:5], "little")
    if not kind & _EWKB_SRID:
        return bytes(4) + ewkb
    return ewkb[5:9] + b"\x01" + (kind & ~_EWKB_SRID).to_bytes(4, "little") + ewkb[9:]


def _limited(column: TargetColumn, write: Write) -> Write:
    """Cut nothing: the server drops spaces beyond a VARCHAR's length without an error."""
    length = column.length_checked
    if length is None:
        return write

    def checked(values: Sequence[Any]) -> Sequence[str]:
        if any(len(value) > length for value in values):
            msg = f"column {column.name}: too long for {column.declared}"
            raise Unfit(msg)
        return write(values)

    return checked


_BY_COLUMN: Final[dict[tuple[Kind | None, str], Callable[[TargetColumn], Write]]] = {
    (Kind.BIT, "bit"): _bits,
    (Kind.JSON, "json"): _documents,
    (Kind.SET, "set"): _sets,
    (Kind.TEXT, "char"): _stripped,
    (None, "enum"): _labelled,
}
_BY_KIND: Final[dict[Kind, Callable[[TargetColumn], Write]]] = {
    Kind.FLOAT: _floats,
    Kind.DECIMAL: _decimals,
    Kind.DATE: _moments,
    Kind.TIMESTAMP: _moments,
    Kind.TIMESTAMPTZ: _moments,
}
_WRITERS: Final[dict[Kind, Write]] = {
    Kind.BOOLEAN: _booleans,
    Kind.INTEGER: _integers,
    Kind.BYTES: binary,
    Kind.GEOMETRY: _geometries,
}
