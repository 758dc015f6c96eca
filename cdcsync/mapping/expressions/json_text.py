"""JSON values as text, exact to the digit: read, walked, written."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

import orjson

from cdcsync.mapping.failures import Failure

DEPTH_MAX: Final = 200
"""Levels of a document that an expression looks into."""
WHOLE_MAX: Final = 131_072
"""Digits of a number before its point, as in PostgreSQL's numeric."""
FRACTION_MAX: Final = 16_383
"""Digits after it."""
MISSING: Final = object()


def loads(text: str) -> Any:
    """Return the document with exact numbers. Raises Failure when it is none, or too deep."""
    if text.count("[") + text.count("{") > DEPTH_MAX:
        _shallow(text)
    try:
        return json.loads(text, parse_float=_exact, parse_constant=_refuse)
    except Failure:
        raise
    except (ValueError, RecursionError) as error:
        raise Failure("the text is no JSON") from error


def _exact(text: str) -> Decimal:
    """Return the number, within PostgreSQL's bounds: written out it is no longer than they are."""
    value = Decimal(text)
    if value.adjusted() >= WHOLE_MAX or -int(value.as_tuple().exponent) > FRACTION_MAX:
        raise Failure("a number in the JSON is out of range")
    return value


def _refuse(word: str) -> Any:  # noqa: ARG001  json's hook
    raise Failure("the text is no JSON")


def _shallow(text: str) -> None:
    """Raise Failure when brackets outside of strings lie too deep."""
    depth, quoted, escaped = 0, False, False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        else:
            depth += (character in "[{") - (character in "]}")
            if depth > DEPTH_MAX:
                msg = f"the JSON is deeper than {DEPTH_MAX} levels"
                raise Failure(msg)


def dumps(value: Any) -> str:
    """Return the JSON text: no spaces, keys in their order, decimals as numbers."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ",".join(f"{dumps(str(key))}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(dumps, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else dumps(str(value))
    if isinstance(value, float) and value - value != 0:
        return dumps(str(value))
    return repr(value)


class Raw:
    """JSON text that stands as it is within another document."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def walk(value: Any, path: tuple[str | int, ...]) -> Any:
    """Return what lies at the path, MISSING when nothing does."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or not -len(value) <= step < len(value):
                return MISSING
            value = value[step]
        else:
            if not isinstance(value, dict) or step not in value:
                return MISSING
            value = value[step]
    return value


def at(text: str, path: tuple[str | int, ...]) -> str | None:
    """Return the JSON at a path, None when nothing is there."""
    found = walk(loads(text), path)
    return None if found is MISSING else dumps(found)


def text_at(text: str, path: tuple[str | int, ...]) -> str | None:
    """Return the text at a path: a string without its quotes, other JSON as it is written; None for null."""
    try:
        found = walk(orjson.loads(text), path)
    except orjson.JSONDecodeError as error:
        raise Failure("the text is no JSON") from error
    if type(found) is str:
        return found
    if found is MISSING or found is None:
        return None
    if isinstance(found, bool):
        return "true" if found else "false"
    if type(found) is int:
        return str(found)
    return dumps(walk(loads(text), path))


def number(text: str) -> Decimal:
    """Return the number that the JSON is."""
    found = loads(text)
    if isinstance(found, bool) or not isinstance(found, int | Decimal):
        raise Failure("the JSON is no number")
    return Decimal(found)


def boolean(text: str) -> bool:
    """Return the boolean that the JSON is."""
    found = loads(text)
    if not isinstance(found, bool):
        raise Failure("the JSON is neither true nor false")
    return found
