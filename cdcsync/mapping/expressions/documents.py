"""Functions of JSON."""

from __future__ import annotations

from typing import Any, Final

from cdcsync.mapping.expressions import json_text
from cdcsync.mapping.expressions.registry import define
from cdcsync.mapping.failures import Failure

SECTION: Final = "JSON"
JSON_MAX: Final = 16 << 20


def made(value: Any) -> str:
    """Return JSON text within its bound."""
    _bounded(_size(value))
    text = json_text.dumps(value)
    _bounded(len(text))
    return text


def _bounded(length: int) -> None:
    if length > JSON_MAX:
        msg = f"the JSON would be longer than {JSON_MAX} characters"
        raise Failure(msg)


def _size(value: Any) -> int:
    """Return how long the JSON is at least."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, json_text.Raw):
        return len(value.text)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 1


def build_object(*given: Any) -> str:
    """Return an object of keys and values by turns."""
    if any(key is None for key in given[::2]):
        raise Failure("a key of a JSON object is null")
    return made(dict(zip(given[::2], given[1::2], strict=True)))


def array_length(text: str) -> int | None:
    """Return the number of elements; null when it is no array."""
    found = json_text.loads(text)
    return len(found) if isinstance(found, list) else None


def kind_of(text: str) -> str:
    """Return the kind of value that the JSON is."""
    found = json_text.loads(text)
    if isinstance(found, bool):
        return "boolean"
    words: dict[type, str] = {dict: "object", list: "array", str: "string", type(None): "null"}
    return words.get(type(found), "number")


def valid(text: str) -> bool:
    """Return whether a text is JSON."""
    try:
        json_text.loads(text)
    except Failure:
        return False
    return True


def merged(text: str, patch: str) -> str:
    """Return a document with a merge patch applied (RFC 7386)."""
    return made(_merged(json_text.loads(text), json_text.loads(patch)))


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for key, item in patch.items():
        if item is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), item)
    return result


def has_key(text: str, key: str) -> bool:
    """Return whether an object has a key."""
    found = json_text.loads(text)
    return isinstance(found, dict) and key in found


def keys(text: str) -> tuple[str, ...] | None:
    """Return an object's keys; null when it is none."""
    found = json_text.loads(text)
    return tuple(found) if isinstance(found, dict) else None


define(
    SECTION,
    "json_object(any...) -> json",
    build_object,
    "An object of keys and values by turns.",
    ("json_object('id', 7, 'tags', array['a'])", '{"id":7,"tags":["a"]}'),
    strict=False,
)
define(
    SECTION,
    "json_array(any...) -> json",
    lambda *values: made(values),
    "An array of these values.",
    ("json_array(1, null, 'a')", '[1,null,"a"]'),
    strict=False,
)
define(SECTION, "to_json(any) -> json", made, "A value as JSON.", ("to_json('a')", '"a"'))
define(
    SECTION,
    "json_array_length(json) -> integer",
    array_length,
    "Number of elements; null when it is no array.",
    ("json_array_length('[1, 2]')", "2"),
    total=False,
    duckdb="-",
)
define(
    SECTION,
    "json_typeof(json) -> text",
    kind_of,
    "object, array, string, number, boolean or null, as in PostgreSQL.",
    ("json_typeof('[1]')", "array"),
    duckdb="-",
)
define(
    SECTION, "json_valid(text) -> boolean", valid, "Whether a text is JSON.", ("json_valid('[1')", "false"), duckdb="-"
)
define(
    SECTION,
    "json_merge_patch(json, json) -> json",
    merged,
    "With a merge patch applied (RFC 7386).",
    ('json_merge_patch(\'{"a": 1, "b": 2}\', \'{"b": null, "c": 3}\')', '{"a":1,"c":3}'),
    duckdb="-",
)
define(
    SECTION,
    "json_has_key(json, text) -> boolean",
    has_key,
    "Whether an object has a key.",
    ("json_has_key('{\"a\": null}', 'a')", "true"),
    duckdb="-",
)
define(
    SECTION,
    "json_keys(json) -> text[]",
    keys,
    "An object's keys; null when it is none.",
    ('json_keys(\'{"a": 1, "b": 2}\')', "{a,b}"),
    total=False,
    duckdb="-",
)
