"""MySQL's literals, without a server: what no client and no sql_mode reads otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from cdcsync.mysql.dialect import literal, quote
from cdcsync.types import Kind, Type

POINT = "0101000000000000000000f03f0000000000000040"


@pytest.mark.parametrize(
    ("kind", "value", "want"),
    [
        (Type(Kind.TEXT), "it's", "'it''s'"),
        (Type(Kind.TEXT), "a\\", "_utf8mb4 X'615c'"),
        (Type(Kind.TEXT), "a\nb", "_utf8mb4 X'610a62'"),
        (Type(Kind.FLOAT, bits=32), 0.1, "0.10000000149011612e0"),
        (Type(Kind.FLOAT, bits=64), 0.1, "0.1e0"),
        (Type(Kind.FLOAT, bits=64), -0.0, "-0.0e0"),
        (Type(Kind.FLOAT, bits=64), 1e300, "1e+300"),
        (Type(Kind.DECIMAL), "-1.50", "-1.50"),
        (Type(Kind.INTEGER), 18446744073709551615, "18446744073709551615"),
        (Type(Kind.BYTES), b"", "X''"),
        (Type(Kind.BIT), "0101", "b'0101'"),
        (Type(Kind.SET), ("a", "b"), "'a,b'"),
        (Type(Kind.TIMESTAMPTZ), "2026-11-24T10:00:00.5Z", "'2026-11-24 10:00:00.5'"),
        (Type(Kind.TIMESTAMP), "0000-00-00T00:00:00", "'0000-00-00 00:00:00'"),
        (Type(Kind.TIME), "-838:59:59", "'-838:59:59'"),
        (Type(Kind.GEOMETRY), bytes.fromhex(POINT), f"X'00000000{POINT}'"),
        (Type(Kind.GEOMETRY), bytes.fromhex("0101000020e6100000" + POINT[10:]), f"X'e6100000{POINT}'"),
    ],
)
def test_a_value_is_written_so_that_the_server_stores_it(kind: Type, value: Any, want: str) -> None:
    assert literal(kind, value) == want


def test_a_name_is_only_a_name_whatever_it_holds() -> None:
    assert quote("a`b; DROP") == "`a``b; DROP`"
