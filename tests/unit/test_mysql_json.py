"""MySQL's binary JSON, built by its documentation (json_binary.h), and the differences of partial updates."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from fix_events import HEADER, bitmap, decoder, names, packed, rows, string, table_map
from hypothesis import given
from hypothesis import strategies as st

from cdcsync.errors import Fatal
from cdcsync.mysql.binary_json import double_text, json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | INT64 | st.text(max_size=20) | st.text(min_size=120, max_size=140),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


def length(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def scalar(value: Any) -> tuple[int, bytes]:
    """Type and bytes."""
    if value is None or isinstance(value, bool):
        return 4, bytes([{None: 0, True: 1, False: 2}[value]])
    if isinstance(value, float):
        return 11, struct.pack("<d", value)
    if isinstance(value, int):
        kind, form = (
            (5, "<h") if -(1 << 15) <= value < 1 << 15 else (7, "<i") if -(1 << 31) <= value < 1 << 31 else (9, "<q")
        )
        return kind, struct.pack(form, value)
    return 12, length(len(value.encode())) + value.encode()


def ordered(value: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(value.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))


def container(value: Any, *, large: bool) -> tuple[int, bytes]:
    size, form = (4, "<I") if large else (2, "<H")
    items = ordered(value) if isinstance(value, dict) else [("", each) for each in value]
    at = 2 * size + len(items) * ((size + 2 if isinstance(value, dict) else 0) + 1 + size)
    keys = b""
    entries = b""
    if isinstance(value, dict):
        for key, _ in items:
            raw = key.encode()
            entries += struct.pack(form, at + len(keys)) + struct.pack("<H", len(raw))
            keys += raw
    at += len(keys)
    body = b""
    for _, each in items:
        kind, raw = encode(each, large=large)
        if kind in {4, 5} or (large and kind == 7):
            entries += bytes([kind]) + raw.ljust(size, b"\0" if raw[-1:] < b"\x80" or kind == 4 else b"\xff")
        else:
            entries += bytes([kind]) + struct.pack(form, at + len(body))
            body += raw
    made = entries + keys + body
    kind = (0 if isinstance(value, dict) else 2) + large
    return kind, struct.pack(form, len(items)) + struct.pack(form, len(made) + 2 * size) + made


def encode(value: Any, *, large: bool = False) -> tuple[int, bytes]:
    return container(value, large=large) if isinstance(value, dict | list) else scalar(value)


def binary(value: Any, *, large: bool = False) -> bytes:
    kind, raw = encode(value, large=large)
    return bytes([kind]) + raw


def sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_keys(each) for key, each in ordered(value)}
    return [sorted_keys(each) for each in value] if isinstance(value, list) else value


@given(DOCUMENTS, st.booleans())
def test_every_document_is_the_text_that_the_server_writes(document: Any, large: bool) -> None:
    want = json.dumps(sorted_keys(document), ensure_ascii=False)

    assert json_text(binary(document, large=large)) == want


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_is_the_same_double_and_never_an_integer(value: float) -> None:
    text = double_text(value)

    assert struct.pack("<d", float(text)) == struct.pack("<d", value)
    assert isinstance(json.loads(text), float)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (0.0, "0.0"), (-0.0, "-0.0"), (1.0, "1.0"), (-1.5, "-1.5"), (100.0, "100.0"), (0.1, "0.1"), (1e-7, "0.0000001"),
        (123456789012345.0, "123456789012345.0"), (1e15, "1e15"), (1.5e300, "1.5e300"), (5e-324, "5e-324"),
        (1e-14, "0.00000000000001"), (1e-15, "0.000000000000001"), (1e-16, "1e-16"), (1509637734466842.2, "1509637734466842.2"), (1234567890123456.0, "1.234567890123456e15"),
    ],
)  # fmt: skip
def test_doubles_have_the_form_that_the_server_chose(value: float, want: str) -> None:
    assert double_text(value) == want


@given(DOCUMENTS, st.data())
def test_a_document_cut_off_is_never_read_as_another(document: Any, data: st.DataObject) -> None:
    raw = binary(document)
    cut = raw[: data.draw(st.integers(1, len(raw)))]

    try:
        got = json_text(cut)
    except (ValueError, IndexError, struct.error):
        return
    assert got == json_text(raw)


def test_an_empty_document_is_null() -> None:
    assert json_text(b"") == "null"


MAP = table_map([(3, b""), (245, b"\4"), (245, b"\4")], b"\1\1\0" + names("id", "j", "k"))


def image(*values: bytes | None) -> bytes:
    nulls = bitmap([value is None for value in values])
    return nulls + b"".join(value for value in values if value is not None)


def document(raw: bytes) -> bytes:
    return struct.pack("<I", len(raw)) + raw


def difference(operation: int, path: str, value: Any = None) -> bytes:
    tail = string(binary(value)) if operation != 2 else b""
    return bytes([operation]) + string(path) + tail


def partial(before: Any, differences: Sequence[bytes], bitmaps: Sequence[bytes] = ()) -> Any:
    """The document after a PARTIAL_UPDATE_ROWS event in which the second JSON column has differences."""
    key = struct.pack("<i", 1)
    first = image(key, document(binary([1])), document(binary(before))) if not bitmaps else image(key)
    after = packed(1) + bitmap([False, True]) + image(key, document(binary([2])), document(b"".join(differences)))
    data = rows(39, 3, first, after, bitmaps=bitmaps)
    made = decoder(MAP)
    assert made.count(data, HEADER, len(data), 39) == 1
    (change,) = made.decode(data, HEADER, len(data), 39)
    assert change.after[:2] == (1, "[2]")
    return json.loads(change.after[2])


def test_differences_are_applied_to_the_document_before() -> None:
    before = {"a": 1, "b": [1, 2, {"c": "x"}], "long name": {}}

    got = partial(
        before,
        [
            difference(0, "$.a", "new"),
            difference(1, "$.zz", 1.5),
            difference(1, "$.b[1]", True),
            difference(0, "$.b[3].c", [None]),
            difference(2, "$.b[0]"),
            difference(1, '$."long name"."d\\"e"', {}),
        ],
    )

    assert got == {"a": "new", "zz": 1.5, "b": [True, 2, {"c": [None]}], "long name": {'d"e': {}}}
    assert list(got) == ["a", "b", "zz", "long name"]


def test_a_partial_update_may_hold_whole_documents_too() -> None:
    key = struct.pack("<i", 1)
    after = packed(0) + image(key, None, document(binary({"x": 1})))
    data = rows(39, 3, image(key, None, None), after)

    (change,) = decoder(MAP).decode(data, HEADER, len(data), 39)

    assert change.after == (1, None, '{"x": 1}')


@pytest.mark.parametrize(
    "differences",
    [
        [difference(0, "$.missing", 1)],
        [difference(1, "$.a", 1)],
        [difference(2, "$.missing")],
        [difference(0, "$.b[9]", 1)],
        [difference(7, "$.a", 1)],
        [difference(0, "$.a", 1)[:-1]],
        [difference(0, "nonsense", 1)],
    ],
    ids=["replace", "insert", "remove", "cell", "operation", "short", "path"],
)
def test_differences_that_do_not_fit_the_document_stop_with_the_column(differences: list[bytes]) -> None:
    with pytest.raises(Fatal, match=r"shop\.t, column k cannot be read"):
        partial({"a": 1, "b": [1]}, differences)


def test_differences_from_a_document_that_was_not_logged_stop_with_the_setting_to_change() -> None:
    key_alone = bitmap([True, False, False])

    with pytest.raises(Fatal, match=r"column k holds differences from a document that the log does not have") as caught:
        partial({}, [difference(0, "$.a", 1)], [key_alone, bitmap([True] * 3)])

    assert "binlog_row_image" in caught.value.hint
