"""MySQL's binary JSON as the text that a SELECT gives, and the differences that a partial update logs (json_binary.h, json_diff.h)."""

from __future__ import annotations

import json
import re
import struct
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cdcsync.mysql.table_map import lenenc
from cdcsync.mysql.temporal import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

Node: TypeAlias = Any
"""A dict or a list of nodes, or a scalar as its JSON text."""

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL, _INT16, _UINT16, _INT32, _UINT32 = range(9)
_INT64, _UINT64, _DOUBLE, _STRING, _OPAQUE = 9, 10, 11, 12, 15
_LITERALS: Final = ("null", "true", "false")
_INTEGERS: Final = {
    _INT16: (2, True), _UINT16: (2, False), _INT32: (4, True), _UINT32: (4, False), _INT64: (8, True),
    _UINT64: (8, False),
}  # fmt: skip
_INLINED: Final = {2: {_LITERAL, _INT16, _UINT16}, 4: {_LITERAL, _INT16, _UINT16, _INT32, _UINT32}}
"""Types that stand in the entry itself, by the size of offsets."""
_REPLACE, _INSERT, _REMOVE = 0, 1, 2
_PLAIN_DIGITS: Final = 15
"""Doubles with the point up to that many places to the right or left, or with a fraction, have no exponent (`my_gcvt`)."""
_LINE: Final = 76
_BREAK: Final = "\\n"
"""The server breaks base64 into lines, and escapes the breaks."""
_double: Final = struct.Struct("<d")


def json_text(raw: bytes) -> str:
    """Return the document's text. Raises ValueError, IndexError or struct.error for what is none."""
    return text_of(parse(raw))


def parse(raw: bytes) -> Node:
    """Return the document; an empty one is null, as the server reads it."""
    return _value(raw, raw[0], 1) if raw else "null"


def text_of(node: Node) -> str:
    """Return a node's text, as the server writes it."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return f"[{', '.join(map(text_of, node))}]"
    return "{" + ", ".join([f"{_quoted(key)}: {text_of(value)}" for key, value in node.items()]) + "}"


def _value(raw: bytes, kind: int, at: int) -> Node:
    """Return the value of that type at `at`."""
    if kind == _STRING:
        length, start = _length(raw, at)
        return _quoted(_bytes(raw, start, length).decode())
    if kind in _INTEGERS:
        size, signed = _INTEGERS[kind]
        return str(int.from_bytes(_bytes(raw, at, size), "little", signed=signed))
    if kind <= _LARGE_ARRAY:
        return _container(raw, kind, at)
    if kind == _LITERAL:
        return _LITERALS[raw[at]]
    if kind == _DOUBLE:
        return double_text(_double.unpack_from(raw, at)[0])
    if kind == _OPAQUE:
        length, start = _length(raw, at + 1)
        return _opaque(raw[at], _bytes(raw, start, length))
    raise ValueError(kind)


def _container(raw: bytes, kind: int, start: int) -> Node:
    """Return the object or array that begins at `start`, where its offsets count from."""
    size = 4 if kind in {_LARGE_OBJECT, _LARGE_ARRAY} else 2
    is_object = kind in {_SMALL_OBJECT, _LARGE_OBJECT}
    count = _uint(raw, start, size)
    entries = start + 2 * size + (count * (size + 2) if is_object else 0)
    if entries + count * (1 + size) > len(raw):
        raise IndexError(count)
    values = []
    for at in range(entries, entries + count * (1 + size), 1 + size):
        place = at + 1 if raw[at] in _INLINED[size] else start + _uint(raw, at + 1, size)
        if place <= start:
            raise ValueError(place)
        values.append(_value(raw, raw[at], place))
    if not is_object:
        return values
    keys = [
        _bytes(raw, start + _uint(raw, at, size), _uint(raw, at + size, 2)).decode()
        for at in range(start + 2 * size, entries, size + 2)
    ]
    return dict(zip(keys, values, strict=True))


def _uint(raw: bytes, at: int, size: int) -> int:
    return int.from_bytes(_bytes(raw, at, size), "little")


def _bytes(raw: bytes, at: int, size: int) -> bytes:
    if at + size > len(raw):
        raise IndexError(at)
    return raw[at : at + size]


def _length(raw: bytes, at: int) -> tuple[int, int]:
    """Return a length of seven bits per byte, the lowest first, and where it ends."""
    length = shift = 0
    while True:
        byte = raw[at]
        length |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:  # noqa: PLR2004  the last one
            return length, at


_ESCAPED: Final = re.compile(r'["\\\x00-\x1f]')
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _quoted(text: str) -> str:
    if _ESCAPED.search(text) is None:
        return f'"{text}"'
    escaped = _ESCAPED.sub(lambda match: _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04x}", text)
    return f'"{escaped}"'


def double_text(value: float) -> str:
    """Return a double as the server writes it in JSON: the fewest digits, and a fraction or an exponent always."""
    mantissa, _, exponent = f"{value:.17e}".partition("e") if value == 0 else _shortest(value)
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.lstrip("-").replace(".", "").rstrip("0")
    if not digits:
        return f"{sign}0.0"
    point = int(exponent) + 1
    if point <= -_PLAIN_DIGITS or (point > _PLAIN_DIGITS and len(digits) <= point):
        tail = f".{digits[1:]}" if digits[1:] else ""
        return f"{sign}{digits[0]}{tail}e{point - 1}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[:point].ljust(point, '0')}.{digits[point:] or '0'}"


def _shortest(value: float) -> tuple[str, str, str]:
    """Return mantissa, "e" and exponent of the shortest text that is the same double."""
    text = repr(value)
    if "e" in text:
        return text.partition("e")
    whole, _, part = text.lstrip("-").partition(".")
    digits = (whole + part).lstrip("0")
    exponent = len(whole) - 1 if whole != "0" else len(digits) - len(part) - 1
    return ("-" if value < 0 else "") + digits, "e", str(exponent)


def _opaque(kind: int, raw: bytes) -> str:
    """Return what JSON itself has no type for: decimals as numbers, times as texts, all else as base64 (Json_wrapper)."""
    from cdcsync.mysql.values import decimal_reader  # noqa: PLC0415  it reads columns by this module

    if kind == 246:  # noqa: PLR2004  DECIMAL: precision, scale, and the column's own form
        text: str = decimal_reader(raw[0], raw[1])(raw[2:])
        return text
    if kind in {7, 10, 11, 12}:
        return f'"{_moment(kind, int.from_bytes(_bytes(raw, 0, 8), "little", signed=True))}"'
    packed = b64encode(raw).decode()
    lines = [packed[at : at + _LINE] for at in range(0, len(packed), _LINE)]
    return f'"base64:type{kind}:{_BREAK.join(lines)}"'


def _moment(kind: int, packed: int) -> str:
    sign, packed = ("-", -packed) if packed < 0 else ("", packed)
    seconds, micros = packed >> 24, packed & 0xFFFFFF
    if kind == 11:  # noqa: PLR2004  TIME
        return f"{sign}{clock(seconds)}.{micros:06d}"
    month = seconds >> 22
    date = f"{month // 13:04d}-{month % 13:02d}-{seconds >> 17 & 31:02d}"
    return date if kind == 10 else f"{date} {clock(seconds & 0x1FFFF)}.{micros:06d}"  # noqa: PLR2004  DATE


def changed(before: bytes, differences: bytes) -> str:
    """Return the text of a document to which a partial update's differences were applied. Raises as `json_text` does."""
    root = [parse(before)]
    at = 0
    while at < len(differences):
        operation = differences[at]
        size, at = lenenc(differences, at + 1)
        steps = _path(_bytes(differences, at, size).decode())
        at += size
        value: Node = None
        if operation != _REMOVE:
            size, at = lenenc(differences, at)
            value = parse(_bytes(differences, at, size))
            at += size
        _apply(root, operation, [0, *steps], value)
    return text_of(root[0])


_STEP: Final = re.compile(r'\[(\d+)\]|\.("(?:[^"\\]|\\.)*"|[^.\[]+)')


def _path(text: str) -> list[int | str]:
    """Return the steps of a path such as $.a[0]."b c"."""
    steps: list[int | str] = []
    at = 1
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None or text[0] != "$":
            raise ValueError(at)
        cell, key = match.groups()
        steps.append(int(cell) if cell is not None else (json.loads(key) if key.startswith('"') else key))
        at = match.end()
    return steps


def _apply(root: list[Node], operation: int, steps: Sequence[int | str], value: Node) -> None:
    holder: Node = root
    for step in steps[:-1]:
        holder = holder[step]
    last = steps[-1]
    if isinstance(holder, list) and isinstance(last, int):
        if operation == _INSERT:
            holder.insert(last, value)
        elif operation == _REPLACE:
            holder[last] = value
        elif operation == _REMOVE:
            del holder[last]
        else:
            raise ValueError(operation)
        return
    if operation == _REMOVE:
        del holder[last]
        return
    if (
        operation not in {_REPLACE, _INSERT}
        or not isinstance(holder, dict)
        or (last in holder) == (operation == _INSERT)
    ):
        raise ValueError(operation)
    holder[last] = value
    if operation == _INSERT:
        ordered = sorted(holder.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))
        holder.clear()
        holder.update(ordered)
