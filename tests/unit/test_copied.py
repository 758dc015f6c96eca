"""Lines of COPY: the fast decoder says what the plain one says."""

from __future__ import annotations

import pytest

from cdcsync.change import Column, Table
from cdcsync.postgres.copied import Lines
from cdcsync.postgres.copy import row_decoder
from cdcsync.types import Kind, Type

COLUMNS = (
    Column("a", Type(Kind.INTEGER)),
    Column("b", Type(Kind.TEXT)),
    Column("c", Type(Kind.BOOLEAN)),
    Column("d", Type(Kind.TIMESTAMPTZ)),
    Column("e", Type(Kind.BYTES)),
    Column("f", Type(Kind.FLOAT)),
)
TABLE = Table("s", "t", COLUMNS, ("a",))


@pytest.mark.parametrize(
    "line",
    [
        b"1\tx\tt\t2026-11-24 08:00:00+00\t\\\\x00ff\t1.5\n",
        b"-7\t\tf\t2026-11-24 08:00:00.123456+00\t\\\\x\tNaN\n",
        b"\\N\t\\N\t\\N\t\\N\t\\N\t\\N\n",
        b"2\ta\\tb\\nc\\\\N\\\\\tt\t0044-03-15 00:00:00+00 BC\t\\\\x61\t-Infinity\n",
        "3\té\U0001f600\tf\tinfinity\t\\\\x\t1e-300\n".encode(),
    ],
)
def test_a_line_is_decoded_as_the_plain_decoder_does(line: bytes) -> None:
    assert repr(Lines(TABLE).row(line)) == repr(row_decoder(TABLE)(line))


def test_a_line_with_too_few_values_is_told() -> None:
    with pytest.raises(ValueError, match="2"):
        Lines(TABLE).row(b"1\tx\n")


def test_a_table_without_columns_has_rows_all_the_same() -> None:
    assert Lines(Table("s", "t", ())).row(b"\n") == ()
