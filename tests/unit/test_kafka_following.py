"""What a subject's schema becomes when its table changes, without a registry."""

from __future__ import annotations

from typing import Any

import pytest

from cdcsync.errors import Fatal
from cdcsync.evolution import Alteration, Follows, Mode
from cdcsync.kafka.encoding.following import followed

LATEST = {
    "name": "Value",
    "fields": [
        {"name": "id", "type": "int"},
        {"name": "a", "type": ["null", "string"], "default": None},
        {"name": "n", "type": "long"},
        {"name": "__op", "type": "string"},
    ],
}


def fields(*given: tuple[str, Any]) -> list[tuple[str, Any]]:
    """Return what becomes of a table that has these."""
    return after(Mode.EVOLVE, *given)


def after(mode: Mode, *given: tuple[str, Any], **follows: Any) -> list[tuple[str, Any]]:
    schema = {"name": "Value", "fields": [{"name": name, "type": kind} for name, kind in given]}
    return [(each["name"], each["type"]) for each in followed("s", schema, LATEST, Follows(mode, **follows))]


def test_a_new_column_can_be_null_whatever_its_table_says() -> None:
    got = fields(("id", "int"), ("c", "int"), ("a", ["null", "string"]), ("n", "long"))
    assert got == [("id", "int"), ("a", ["null", "string"]), ("n", "long"), ("c", ["null", "int"])]


def test_a_dropped_column_is_gone_and_a_narrower_type_is_kept_wide() -> None:
    assert fields(("id", "int"), ("n", "int")) == [("id", "int"), ("n", "long")]


def test_what_could_be_null_goes_on_so() -> None:
    assert fields(("a", "string"), ("n", ["null", "long"])) == [("a", ["null", "string"]), ("n", ["null", "long"])]


def test_an_envelopes_row_is_that_of_its_before() -> None:
    whole = {"fields": [{"name": "before", "type": ["null", LATEST]}, {"name": "op", "type": "string"}]}
    got = followed("s", whole, whole, Follows(Mode.EVOLVE))
    assert [each["name"] for each in got] == ["id", "a", "n", "__op"]


def test_ignore_goes_on_with_what_is_there() -> None:
    got = after(Mode.IGNORE, ("id", "string"), ("c", "int"), ("n", "int"))
    assert got == [("id", "int"), ("a", ["null", "string"]), ("n", "long")]


def test_a_column_that_cannot_be_null_there_and_is_gone_stops_by_name() -> None:
    with pytest.raises(Fatal, match="subject s goes on with n, which its table has no more"):
        after(Mode.EVOLVE, ("id", "int"), exclude=frozenset({Alteration.DROP}))
