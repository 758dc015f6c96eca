"""What of Elasticsearch needs no server: verdicts, documents, fields, names and URLs."""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from elastic_transport import ConnectionError as NoConnection
from elastic_transport import ConnectionTimeout, TlsError
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cdcsync.change import UNCHANGED, Batch, Change, Column, Operation, Table, Transaction
from cdcsync.elastic import types
from cdcsync.elastic.addressed import Action, filled, vacated
from cdcsync.elastic.addressed import last as newest_of
from cdcsync.elastic.bulk import Pace
from cdcsync.elastic.channels import Channels
from cdcsync.elastic.client import Client
from cdcsync.elastic.config import Bulk, ElasticSinkConfig, from_url
from cdcsync.elastic.documents import Plan
from cdcsync.elastic.errors import RULES, Verdict, lost, rule_of, verdict, why
from cdcsync.elastic.geometry import to_text
from cdcsync.elastic.raw import elements, members
from cdcsync.elastic.target import Index, Target
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.folding import Group, fold
from cdcsync.testing.memory import MemoryPosition
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from cdcsync.folding import Ref

LONG, TEXT = Type(Kind.INTEGER, bits=64), Type(Kind.TEXT)


@pytest.mark.parametrize(
    ("status", "kind", "want"),
    [
        *[(500, kind, rule.verdict) for kind, rule in RULES.items()],
        (400, "never heard of", Verdict.ROW),
        (401, "", Verdict.PERMISSION),
        (403, "", Verdict.PERMISSION),
        (404, "", Verdict.DATA),
        (409, "", Verdict.CONFLICT),
        (413, "", Verdict.TOO_LARGE),
        (429, "", Verdict.LATER),
        (503, "", Verdict.LATER),
        (504, "", Verdict.TRANSIENT),
        (599, "never heard of", Verdict.TRANSIENT),
        (418, "", Verdict.DATA),
    ],
)
def test_every_answer_has_its_verdict(status: int, kind: str, want: Verdict) -> None:
    assert rule_of(status, kind).verdict is want


def test_a_whole_request_that_is_refused_becomes_what_the_pipeline_knows() -> None:
    later = verdict(429, {"error": {"type": "es_rejected_execution_exception", "reason": "full"}}, End.SINK, "writing")
    denied = verdict(403, {"error": {"type": "security_exception", "reason": "no"}}, End.SINK, "writing")
    closed = verdict(400, {"error": {"type": "index_closed_exception", "reason": "closed"}}, End.STORE, "reading")
    page = verdict(502, "<html>", End.SINK, "writing")

    assert isinstance(later, Transient)
    assert isinstance(page, Transient)
    assert isinstance(denied, Fatal)
    assert denied.status is ExitStatus.PERMISSION
    assert isinstance(closed, Fatal)
    assert closed.status is ExitStatus.CONFIG


def test_what_the_client_raises_becomes_what_the_pipeline_knows() -> None:
    assert isinstance(lost(ConnectionTimeout("late"), End.SINK, "writing", "es1"), Transient)
    assert isinstance(lost(NoConnection("refused"), End.SINK, "writing", "es1"), Transient)
    wrong = lost(TlsError("self-signed"), End.SINK, "writing", "es1")
    assert isinstance(wrong, Fatal)
    assert "tls: {ca:" in wrong.hint


@pytest.mark.parametrize(
    ("reason", "cause", "want"),
    [
        (
            "[1:7] failed to parse field [a] of type [long] in document with id 'secret'. Preview of field's value: 'secret'",
            'For input string: "secret"',
            "document_parsing_exception: failed to parse field [a] of type [long]: For input string: [..]",
        ),
        (
            "[1:8] failed to parse field [at] of type [date_nanos] in document with id '6'. Preview of field's value: '9'",
            "date[9999-12-31T00:00:00.500Z] is after 2262-04-11 and cannot be stored in nanosecond resolution",
            (
                "document_parsing_exception: failed to parse field [at] of type [date_nanos]: "
                "date[..] is after ..-..-.. and cannot be stored in nanosecond resolution"
            ),
        ),
        (
            '[1:6] failed to parse: [1:12] Duplicate field \'a\'\n at [Source: (byte[])"{"a":1}"; line: 1]',
            None,
            "document_parsing_exception: failed to parse: [..] Duplicate field [..]",
        ),
        (
            "[1:8] mapping set to strict, dynamic introduction of [zz] within [_doc] is not allowed",
            None,
            "document_parsing_exception: mapping set to strict, dynamic introduction of [zz] within [_doc] is not allowed",
        ),
    ],
)
def test_the_reason_of_a_rejected_document_shows_no_value(reason: str, cause: str | None, want: str) -> None:
    error: dict[str, Any] = {"type": "document_parsing_exception", "reason": reason}
    if cause is not None:
        error["caused_by"] = {"type": "x", "reason": cause}

    assert why(error) == want


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53), 1 << 53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), JSON_VALUES), st.lists(JSON_VALUES), st.booleans())
def test_json_taken_apart_keeps_each_value(fields: dict[str, Any], values: list[Any], indented: bool) -> None:
    option = orjson.OPT_INDENT_2 if indented else None

    found = members(orjson.dumps(fields, option=option))

    assert {name: orjson.loads(text) for name, text in found.items()} == orjson.loads(orjson.dumps(fields))
    assert [orjson.loads(text) for text in elements(orjson.dumps(values, option=option))] == orjson.loads(
        orjson.dumps(values)
    )


def test_json_taken_apart_is_as_it_was_written() -> None:
    assert members(b' {"a" : 1e400, "b": {"c": [1.0,  "}"]} }') == {"a": b"1e400", "b": b'{"c": [1.0,  "}"]}'}
    for broken in (b"", b"[", b'{"a"', b'{"a": }', b'{"a": [1}', b"nothing"):
        with pytest.raises(ValueError, match="not the JSON"):
            members(broken)


@given(st.lists(st.tuples(st.text("a|\\-", max_size=4), st.text("a|\\-", max_size=4)), unique=True, max_size=30))
def test_different_keys_have_different_ids(keys: list[tuple[str, str]]) -> None:
    table = Table("", "t", (Column("a", TEXT), Column("b", TEXT)), ("a", "b"))
    single = Table("", "t", (Column("a", TEXT),), ("a",))
    for plan in (Plan(table, table.key, {}, None), Plan(table, table.key, {}, "{b}-{a}")):
        assert len({plan.id(key) for key in keys}) == len(keys)
    alone = Plan(single, single.key, {}, None)
    firsts = {first for first, _ in keys}
    assert len({alone.id((first,)) for first in firsts}) == len(firsts)
    assert all(alone.id((first,)) for first in firsts)


def test_a_row_that_the_log_did_not_carry_whole_takes_the_rest_from_the_document() -> None:
    table = Table("", "t", (Column("id", LONG), Column("j", Type(Kind.JSON)), Column("x", TEXT)), ("id",))
    plan = Plan(table, table.key, {}, None)

    got = plan.merged((1, UNCHANGED, "new"), {"id": b"1", "j": b'{"b": 1,\n "a": 1e400}', "x": b'"old"'})

    assert got == b'{"id":1,"j":{"b": 1,  "a": 1e400},"x":"new"}\n'
    assert plan.merged((1, UNCHANGED, "new"), {"id": b"1"}) is None


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        (Type(Kind.INTEGER, bits=8), {"type": "byte"}),
        (Type(Kind.INTEGER, bits=8, unsigned=True), {"type": "short"}),
        (Type(Kind.INTEGER, bits=32, unsigned=True), {"type": "long"}),
        (Type(Kind.INTEGER, bits=64, unsigned=True), {"type": "unsigned_long"}),
        (Type(Kind.DECIMAL, precision=15, scale=2), {"type": "double"}),
        (Type(Kind.TIMESTAMP, precision=3), {"type": "date"}),
        (Type(Kind.TIMESTAMPTZ), {"type": "date_nanos"}),
        (Type(Kind.GEOMETRY, name="point"), {"type": "geo_point"}),
        (Type(Kind.GEOMETRY), {"type": "geo_shape"}),
        (Type(Kind.ARRAY, element=Type(Kind.INTEGER, bits=16)), {"type": "short"}),
        (Type(Kind.BYTES), {"type": "binary"}),
        (Type(Kind.UUID), {"type": "keyword"}),
    ],
)
def test_each_type_has_its_field_and_fits_into_it(kind: Type, want: dict[str, Any]) -> None:
    got = types.field(kind, types.Choices())

    assert got == want
    assert types.misfit(kind, got) == ""


def test_a_decimal_of_many_digits_keeps_them_and_can_be_searched_as_a_number() -> None:
    wide = Type(Kind.DECIMAL, precision=38, scale=10)

    assert types.field(wide, types.Choices())["fields"]["number"]["type"] == "double"
    assert types.field(wide, types.Choices(decimals="scaled_float")) == {
        "type": "scaled_float",
        "scaling_factor": 10**10,
    }


@pytest.mark.parametrize(
    ("kind", "there", "want"),
    [
        (LONG, {"type": "integer"}, "too narrow"),
        (LONG, {"type": "double"}, "does not take"),
        (LONG, {"type": "alias"}, "takes no value"),
        (LONG, {"type": "keyword"}, ""),
        (LONG, {"enabled": False}, ""),
        (TEXT, {"properties": {}}, "does not take"),
        (Type(Kind.JSON), {"properties": {}}, ""),
        (Type(Kind.FLOAT, bits=64), {"type": "float"}, "does not take"),
        (Type(Kind.BOOLEAN), {"type": "long"}, "does not take"),
    ],
)
def test_a_field_that_cannot_hold_a_type_says_so(kind: Type, there: dict[str, Any], want: str) -> None:
    got = types.misfit(kind, there)

    assert want in got
    assert bool(want) is bool(got)


def _wkb(kind: int, body: bytes, srid: int = 4326) -> bytes:
    return struct.pack("<BII", 1, kind | 0x20000000, srid) + body


def test_geometry_is_well_known_text_and_what_is_not_on_this_earth_is_refused() -> None:
    point = struct.pack("<2d", 1.5, -2)
    ring = struct.pack("<II", 1, 4) + struct.pack("<8d", 0, 0, 1, 0, 1, 1, 0, 0)
    inner = struct.pack("<BI", 1, 1) + point

    assert to_text(_wkb(1, point)) == "POINT (1.5 -2.0)"
    assert to_text(_wkb(3, ring)) == "POLYGON ((0.0 0.0, 1.0 0.0, 1.0 1.0, 0.0 0.0))"
    assert to_text(_wkb(4, struct.pack("<I", 1) + inner)) == "MULTIPOINT ((1.5 -2.0))"
    assert to_text(_wkb(7, struct.pack("<I", 1) + inner)) == "GEOMETRYCOLLECTION (POINT (1.5 -2.0))"
    assert to_text(_wkb(2, struct.pack("<I", 0))) == "LINESTRING EMPTY"
    for wrong in (_wkb(1, point, 3857), _wkb(8, point), _wkb(1, point[:-1]), _wkb(1, point + b"x"), b""):
        with pytest.raises(ValueError, match="geometry"):
            to_text(wrong)


@pytest.mark.parametrize(
    ("url", "want"),
    [
        ("elasticsearch://localhost", {"hosts": ["http://localhost:9200"]}),
        (
            "elasticsearch://me:p%40ss@es1.example,es2.example:9201",
            {"hosts": ["https://es1.example:9200", "https://es2.example:9201"], "user": "me", "password": "p@ss"},
        ),
        ("opensearch+http://es1.example", {"hosts": ["http://es1.example:9200"], "tls": {"mode": "disable"}}),
        ("elasticsearch://es1.example?api_key=abc", {"hosts": ["https://es1.example:9200"], "api_key": "abc"}),
    ],
)
def test_a_url_is_a_section(url: str, want: dict[str, Any]) -> None:
    got = from_url(url)

    assert got == want
    ElasticSinkConfig.model_validate(got)


@pytest.mark.parametrize(
    ("section", "want"),
    [
        ({}, "either `hosts` or `cloud_id`"),
        ({"hosts": ["http://es1.example:9200"]}, "is not encrypted"),
        ({"hosts": ["https://me:secret@es1.example"]}, "not a host"),
        ({"hosts": ["https://es1.example"], "user": "me"}, "go together"),
        ({"hosts": ["https://es1.example"], "api_key": "a", "token": "b"}, "name one of"),
        ({"hosts": ["https://es1.example"], "dynamic": "maybe"}, "strict"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(section: dict[str, Any], want: str) -> None:
    with pytest.raises(ValidationError, match=want):
        ElasticSinkConfig.model_validate(section)


def test_settings_of_an_index_are_found_by_pattern() -> None:
    config = ElasticSinkConfig.model_validate(
        {"hosts": ["http://localhost"], "indexes": {"orders_*": {"routing": "shop"}, "*": {"id": "{id}"}}}
    )

    assert config.index("orders_2026").routing == "shop"
    assert config.index("users").id == "{id}"


def test_an_index_is_made_as_its_table_and_its_section_say() -> None:
    config = ElasticSinkConfig.model_validate(
        {
            "hosts": ["http://localhost"],
            "settings": {"number_of_shards": 2},
            "indexes": {"t": {"properties": {"j": {"type": "nested"}}, "settings": {"number_of_shards": 5}}},
        }
    )
    table = Table("", "t", (Column("id", LONG), Column("j", Type(Kind.JSON))), ("id",))

    got = Target(Client(config, End.SINK), config).wanted(table)

    assert got["settings"] == {"gc_deletes": "3600000ms", "number_of_shards": 5}
    assert got["mappings"] == {"dynamic": "strict", "properties": {"id": {"type": "long"}, "j": {"type": "nested"}}}


class _Cause:
    def refs(self) -> list[Ref]:
        return [(0, 0)]


_INDEX = Index("i", "i-1", "u", {}, "strict", 60.0, None, {})


def _put(channels: Channels, batch: int, count: int, *, alone: bool = False) -> None:
    channels.turn(batch)
    channels.begin(count, alone=alone)
    for at in range(count):
        channels.put(str(at), Action(_Cause(), batch, _INDEX, b"x" * 100))
    channels.launch()


def _put_many(channels: Channels) -> None:
    for batch in range(1, 50):
        _put(channels, batch, 10, alone=True)


def test_what_concerns_one_document_is_sent_in_order() -> None:
    seen: list[tuple[str, int]] = []
    lock = threading.Lock()

    def send(actions: list[Action]) -> dict[Ref, str]:
        with lock:
            seen.extend((threading.current_thread().name, action.version) for action in actions)
        return {}

    channels = Channels(send, Bulk(actions_max=400, in_flight=3))
    for batch in range(1, 20):
        _put(channels, batch, 1500)
    assert channels.drain().done == 19
    channels.close()

    assert len(seen) == 19 * 1500
    assert sorted(version for _, version in seen) == [version for version in range(1, 20) for _ in range(1500)]


def test_a_request_that_fails_stops_what_waits_behind_it() -> None:
    calls: list[int] = []

    def send(actions: list[Action]) -> dict[Ref, str]:
        calls.append(actions[0].version)
        if len(calls) == 1:
            raise Transient(End.SINK, "away")
        return {}

    channels = Channels(send, Bulk(actions_max=10, in_flight=1))
    with pytest.raises(Transient):
        _put_many(channels)
    assert calls == [1]
    channels.clear()
    _put(channels, 50, 10)

    assert channels.drain().done == 50
    channels.close()


def test_reasons_are_told_with_the_first_batch_they_can_be_of() -> None:
    channels = Channels(lambda actions: {(0, 0): "no"} if actions[0].version == 2 else {}, Bulk(in_flight=1))
    _put(channels, 1, 3)
    assert channels.drain().reasons == {}
    _put(channels, 2, 3)

    assert channels.drain().reasons == {2: {(0, 0): "no"}}
    channels.close()


def test_less_is_sent_at_once_after_a_refusal_and_slowly_more_again() -> None:
    pace = Pace(1000)

    pace.shrink(400)
    assert pace.actions_max == 200
    for _ in range(30):
        pace.grow()
    assert pace.actions_max == 1000


PAIR = Table("", "t", (Column("id", LONG), Column("n", LONG)), ("id",))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Change], dict[int, int]]:
    """Changes of few keys, as a source would log them, and the rows at the end."""
    rows: dict[int, int] = {}
    changes = []
    for number in range(draw(st.integers(0, 12))):
        key, new = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        if key not in rows:
            changes.append(Change(PAIR, Operation.INSERT, None, (key, number)))
        elif new < 2:
            changes.append(Change(PAIR, Operation.DELETE, (key, rows.pop(key)), None))
            continue
        else:
            key, before = key if new in rows else new, (key, rows.pop(key))
            changes.append(Change(PAIR, Operation.UPDATE, before, (key, number)))
        rows[key] = number
    return changes, rows


def _deliver(changes: list[Change], first: int, last: int, documents: dict[int, tuple[int, int | None]]) -> None:
    """Write the changes from `first` to `last`, each a transaction, as a cluster that knows versions takes them."""
    place = MemoryPosition(1, 1)
    transactions = [Transaction("1", 0, place, at + 1, [changes[at]], range(1)) for at in range(first, last)]
    for group in fold(Batch(tuple(transactions), place, last - first, 0)):
        assert isinstance(group, Group)
        (effects,) = group.tables
        newest = transactions[group.end].version
        writes = [(key, newest, None) for key in vacated(effects)]
        writes += [(each.key, transactions[newest_of(each)].version, each.row[1]) for each in filled(effects)]
        for key, version, value in writes:
            if version >= documents.get(key, (0, None))[0]:
                documents[key] = (version, value)


@settings(max_examples=300, deadline=None)
@given(histories(), st.data())
def test_a_part_delivered_by_a_process_that_died_leaves_no_ghost(
    history: tuple[list[Change], dict[int, int]], data: st.DataObject
) -> None:
    changes, want = history
    documents: dict[int, tuple[int, int | None]] = {}
    for _ in range(2):
        at = 0
        end = data.draw(st.integers(0, len(changes)))
        while at < end:
            until = data.draw(st.integers(at + 1, end))
            _deliver(changes, at, until, documents)
            at = until
    at = 0
    while at < len(changes):
        until = data.draw(st.integers(at + 1, len(changes)))
        _deliver(changes, at, until, documents)
        at = until

    assert {key: value for key, (_, value) in documents.items() if value is not None} == want
