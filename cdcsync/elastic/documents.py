"""One table version as documents: a row's `_id`, its routing, and its JSON."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import UNCHANGED
from cdcsync.elastic.geometry import to_text
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.lines import Makers
from cdcsync.types import BoundedArray, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Row, Table, Value
    from cdcsync.types import Type

ID_BYTES_MAX: Final = 512
_GEO: Final = {"geo_point", "geo_shape"}
_TEXTS: Final = {"keyword", "text"}
_NEWLINE: Final = orjson.OPT_APPEND_NEWLINE
_PLACE: Final = re.compile(r"\{([^{}]*)\}")


class Plan:
    """How the rows of one table version become documents. `fields` is the mapping that the index has."""

    def __init__(self, table: Table, key: Sequence[str], fields: Mapping[str, Any], template: str | None) -> None:
        self._names = [column.name for column in table.columns]
        self._kinds = [column.type for column in table.columns]
        self._converters = {
            index: partial(_converted, column.name, converter)
            for index, column in enumerate(table.columns)
            if (converter := _converter(column.type, fields.get(column.name, {}))) is not None
        }
        self._whole = Makers(self._names, self._converters).maker(range(len(self._names)))
        types = [table.columns[table.at[name]].type for name in key]
        self._parts = [_part(kind) for kind in types]
        self._template = _template(table, key, template) if template is not None else None
        self._width = len(key)
        self._number = template is None and [kind.kind for kind in types] == [Kind.INTEGER]

    def id(self, key: Any) -> str:
        """Return the `_id` of a key's values; what follows them in `key` is no part of it. Raises ValueError."""
        if self._number:
            return str(key[0])
        parts = [write(value) for write, value in zip(self._parts, key, strict=False)]
        if self._template is not None:
            found = self._template(parts)
        elif self._width == 1:
            found = parts[0].replace("\\", "\\\\") or "\\0"
        else:
            found = "|".join([part.replace("\\", "\\\\").replace("|", "\\|") for part in parts])
        try:
            length = len(found.encode())
        except UnicodeEncodeError:
            msg = "the key holds what is no Unicode character"
            raise ValueError(msg) from None
        if length > ID_BYTES_MAX:
            msg = f"its _id would have {length} bytes, and Elasticsearch takes {ID_BYTES_MAX}"
            raise ValueError(msg)
        return found

    def document(self, row: Row) -> bytes:
        """Return a whole row as one line. Raises ValueError, naming the column, for what no document can hold."""
        return _line(self._whole(row))

    def merged(self, row: Row, there: Mapping[str, bytes], kept: Sequence[str] = ()) -> bytes | None:
        """Return a row as one line, what is UNCHANGED as the document has it; None when that lacks a field.

        `kept` are fields that it goes on having where it has them.
        """
        values: dict[str, Any] = dict(zip(self._names, row, strict=True))
        for at, convert in self._converters.items():
            name = self._names[at]
            if values[name] is not None and values[name] is not UNCHANGED:
                values[name] = convert(values[name])
        for name, value in values.items():
            if value is UNCHANGED:
                if name not in there:
                    return None
                values[name] = orjson.Fragment(_flat(there[name]))
        values.update({name: orjson.Fragment(_flat(there[name])) for name in kept if name in there})
        return _line(values)

    def row(self, there: Mapping[str, bytes]) -> Row:
        """Return a document as neutral values; a field that it lacks is UNCHANGED."""
        return tuple(
            _decoded(kind, there[name]) if name in there else UNCHANGED
            for name, kind in zip(self._names, self._kinds, strict=True)
        )


def _converted(name: str, convert: Callable[[Value], Any], value: Value) -> Any:
    try:
        return convert(value)
    except ValueError as error:
        msg = f"column {name}: {error}"
        raise ValueError(msg) from None


def _line(values: Any) -> bytes:
    try:
        return orjson.dumps(values, None, _NEWLINE)
    except orjson.JSONEncodeError:
        msg = "a text holds what is no Unicode character"
        raise ValueError(msg) from None


def _flat(text: bytes) -> bytes:
    """Keep a value on one line; a line break can only be white space in it."""
    return text.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in text or b"\r" in text else text


def _converter(kind: Type, there: Mapping[str, Any]) -> Callable[[Value], Any] | None:
    if kind.kind is Kind.BYTES:
        return _from_bytes
    if kind.kind is Kind.GEOMETRY:
        return to_text if there.get("type") in _GEO else _from_bytes
    if kind.kind is Kind.FLOAT:
        return _from_float if there.get("type") not in _TEXTS else _from_float_as_text
    if kind.kind is Kind.JSON:
        return _from_json
    if kind.kind is Kind.ARRAY:
        element = _converter(kind.element, there) if kind.element is not None else None
        return partial(_from_array, element)
    return None


def _from_bytes(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _from_float(value: float) -> float:
    if value - value == 0:
        return value
    msg = "a number in a document is finite"
    raise ValueError(msg)


def _from_float_as_text(value: float) -> float | str:
    if value - value == 0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124  only NaN is not itself


def _from_json(value: str) -> orjson.Fragment:
    if "\n" in value or "\r" in value:
        value = value.replace("\n", " ").replace("\r", " ")
    return orjson.Fragment(value)


def _from_array(element: Callable[[Value], Any] | None, values: tuple[Value, ...]) -> list[Any]:
    if isinstance(values, BoundedArray):
        msg = "an array whose lower bounds are not 1 has no form in a document"
        raise ValueError(msg)  # noqa: TRY004  a value, not a type of the caller's
    return [
        _from_array(element, value)
        if isinstance(value, tuple)
        else (value if value is None or element is None else element(value))
        for value in values
    ]


def _decoded(kind: Type, text: bytes) -> Value:
    if kind.kind is Kind.JSON:
        return None if text == b"null" else text.decode()
    return _value(kind, orjson.loads(text))


def _value(kind: Type, value: Any) -> Value:
    if value is None:
        return None
    if kind.kind in {Kind.BYTES, Kind.GEOMETRY}:
        return b64decode(value)
    if kind.kind is Kind.FLOAT:
        return float(value)
    if kind.kind is Kind.SET:
        return tuple(value)
    if kind.kind is Kind.ARRAY and isinstance(value, list):
        return tuple(
            _value(kind, each) if isinstance(each, list) else _value(kind.element or kind, each) for each in value
        )
    return value


def _part(kind: Type) -> Callable[[Value], str]:
    if kind.kind in {Kind.BYTES, Kind.GEOMETRY}:
        return _from_bytes
    if kind.kind is Kind.BOOLEAN:
        return lambda value: "true" if value else "false"
    if kind.kind in {Kind.ARRAY, Kind.SET}:
        return lambda value: orjson.dumps(value).decode()
    return str


def _template(table: Table, key: Sequence[str], template: str) -> Callable[[Sequence[str]], str]:
    """Return what fills a template with a key's parts. Raises Fatal when two keys could have one `_id`."""
    names = _PLACE.findall(template)
    wrong = [name for name in names if name not in key]
    missing = [name for name in key if name not in names]
    if wrong or missing or _PLACE.sub("", template).strip("{}") != _PLACE.sub("", template):
        said = [f"{name} is no column of the key" for name in wrong] + [f"{name} is missing" for name in missing]
        msg = f"`id: {template}` of index {table.name}: {'; '.join(said) or 'a bracket is left over'}"
        hint = f"name each column of the key once, as {'-'.join(f'{{{name}}}' for name in key)}"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    pieces = _PLACE.split(template)
    order = {name: at for at, name in enumerate(key)}

    def fill(parts: Sequence[str]) -> str:
        done = []
        for at, piece in enumerate(pieces):
            if at % 2:
                part = parts[order[piece]].replace("\\", "\\\\")
                for separator in separators:
                    part = part.replace(separator, f"\\{separator}")
                done.append(part)
            else:
                done.append(piece)
        return "".join(done)

    separators = sorted({character for piece in pieces[2:-1:2] for character in piece} - {"\\"})
    if any(not piece for piece in pieces[2:-1:2]):
        msg = f"`id: {template}` of index {table.name}: two columns without anything between them"
        raise Fatal(msg, hint="put a character between them, as {a}-{b}", status=ExitStatus.CONFIG)
    return fill
