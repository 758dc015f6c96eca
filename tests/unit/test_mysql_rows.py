"""Table maps and row events built by the protocol's documentation: every value, and everything that does not fit."""

from __future__ import annotations

import contextlib
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext

import pytest
from fix_events import HEADER, bitmap, decoder, event, field, names, packed, rows, string, table_map
from hypothesis import given
from hypothesis import strategies as st

from cdcsync.change import UNCHANGED, Operation
from cdcsync.errors import Fatal
from cdcsync.mysql.config import ZeroDates
from cdcsync.mysql.rows import RowsDecoder
from cdcsync.mysql.table_map import MARIADB, MYSQL, parse
from cdcsync.mysql.types import ColumnHint, Hints, described, table_of
from cdcsync.types import Kind

TEXT = (15, struct.pack("<H", 400))
COLUMNS = [(3, b""), TEXT, (252, b"\2"), (8, b"")]
UTF8 = field(2, packed(45) + packed(1) + packed(63))
OPTIONAL = field(1, b"\x40") + UTF8 + names("id", "name", "photo", "n") + field(8, b"\0")
MAP = table_map(COLUMNS, OPTIONAL)
ROW = b"\0" + struct.pack("<i", -5) + struct.pack("<H", 3) + "aé".encode() + struct.pack("<H", 2) + b"\0\xff"
ROW += struct.pack("<Q", (1 << 64) - 1)
VALUES = (-5, "aé", b"\0\xff", (1 << 64) - 1)


def one(code: int, meta: bytes, raw: bytes, optional: bytes = b"", zero_dates: ZeroDates = ZeroDates.STOP) -> object:
    """The one value of a row of one column."""
    made = decoder(table_map([(code, meta)], optional + names("c")), zero_dates=zero_dates)
    data = rows(30, 1, b"\0" + raw)
    (change,) = made.decode(data, HEADER, len(data), 30)
    assert made.count(data, HEADER, len(data), 30) == 1
    (value,) = change.after
    return value


@pytest.mark.parametrize(("insert", "update", "delete"), [(30, 31, 32), (23, 24, 25)])
def test_rows_of_every_kind_and_both_versions(insert: int, update: int, delete: int) -> None:
    null = b"\x0e" + struct.pack("<i", 7)
    made = decoder(MAP)
    got = []
    starts = []
    for kind, images in ((insert, (ROW, null)), (update, (null, ROW)), (delete, (ROW,))):
        data = rows(kind, 4, *images)
        got += made.decode(data, HEADER, len(data), kind)
        starts.append([data[start : start + 1] for start in made.starts])
        assert made.count(data, HEADER, len(data), kind) == len(starts[-1])

    nulls = (7, None, None, None)
    assert [change[1:] for change in got] == [
        (Operation.INSERT, None, VALUES),
        (Operation.INSERT, None, nulls),
        (Operation.UPDATE, nulls, VALUES),
        (Operation.DELETE, VALUES, None),
    ]
    assert starts == [[b"\0", b"\x0e"], [b"\x0e"], [b"\0"]]
    assert got[0].table.qualified == "shop.t"
    assert got[0].table.key == ("id",)


def test_what_an_image_does_not_carry_is_unchanged_and_taken_from_the_image_before() -> None:
    key = bitmap([True, False, False, False])
    name = bitmap([False, True, False, False])
    data = rows(31, 4, b"\0" + struct.pack("<i", 7), b"\0" + struct.pack("<H", 1) + b"x", bitmaps=[key, name])

    (change,) = decoder(MAP).decode(data, HEADER, len(data), 31)

    assert change.before == (7, UNCHANGED, UNCHANGED, UNCHANGED)
    assert change.after == (7, "x", UNCHANGED, UNCHANGED)


def test_extra_data_before_the_rows_is_passed_over() -> None:
    data = rows(30, 4, ROW)
    at = HEADER + 8
    data = event(30, data[HEADER:at] + b"\x07\0\1\5abc"[:7] + data[at + 2 :])

    (change,) = decoder(MAP).decode(data, HEADER, len(data), 30)

    assert change.after == VALUES


@pytest.mark.parametrize("kind", [30, 31, 32, 23])
def test_an_event_cut_off_anywhere_is_told_and_never_read_as_less(kind: int) -> None:
    data = rows(kind, 4, ROW, ROW)
    made = decoder(MAP)
    whole_ends = {len(rows(kind, 4)), len(rows(kind, 4, ROW)) if kind != 31 else 0}

    for end in range(HEADER + 8, len(data)):
        if end in whole_ends:
            continue
        for whole in (data, data[:end]):
            with pytest.raises(Fatal, match=r"shop\.t"):
                made.decode(whole, HEADER, end, kind)
            with pytest.raises(Fatal, match=r"shop\.t"):
                made.count(whole, HEADER, end, kind)


def test_a_table_map_cut_off_anywhere_is_told() -> None:
    whole = {len(table_map(COLUMNS)), len(table_map(COLUMNS, field(1, b"\x40")))}
    whole |= {len(table_map(COLUMNS, field(1, b"\x40") + UTF8)), len(MAP) - 3, len(MAP)}
    for end in range(HEADER, len(MAP)):
        if end not in whole:
            with pytest.raises(Fatal, match=r"table map"):
                parse(MAP[:end], HEADER, end, MYSQL)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (table_map([(99, b"")]), "column 1 is of type 99"),
        (table_map([(3, b"")], field(77, b"x")), "metadata of kind 77"),
        (table_map([TEXT], field(3, packed(5000)) + names("c")), "collation 5000"),
        (table_map([(3, b"x")]), "metadata does not fit"),
        (table_map([(3, b"")], names("a", "b")), "cannot be read"),
        (table_map([(3, b"")], field(8, b"\5")), "cannot be read"),
        (table_map([(3, b"")], field(1, b"\0") + field(3, packed(45))), "cannot be read"),
    ],
    ids=["type", "metadata", "collation", "metas", "names", "key", "charsets"],
)
def test_a_table_map_that_nobody_knows_stops_by_name(made: bytes, told: str) -> None:
    with pytest.raises(Fatal, match=told):
        parse(made, HEADER, len(made), MYSQL)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (rows(30, 4, ROW, flags=0x11), "flags 0x11"),
        (rows(30, 3, ROW), "3 columns, and the table map 4"),
        (event(20, rows(30, 4, ROW)[HEADER:]), "type 20"),
        (rows(39, 4, ROW, b"\2" + ROW), "row value options 0x2"),
        (rows(30, 4, ROW[:7] + b"q\xc3q" + ROW[10:]), "column name holds bytes that are no text"),
    ],
    ids=["flags", "columns", "kind", "options", "text"],
)
def test_rows_that_nobody_knows_stop_with_the_table_and_no_value(data: bytes, told: str) -> None:
    with pytest.raises(Fatal, match=rf"shop\.t.*{told}") as caught:
        decoder(MAP).decode(data, HEADER, len(data), data[4])

    assert "q" not in str(caught.value).partition("\n")[0]


def test_a_label_that_the_table_map_does_not_have_is_no_value() -> None:
    labels = field(6, packed(2) + string("a") + string("b")) + field(10, packed(45))
    enum = (254, b"\xf7\1")

    assert [one(*enum, bytes([number]), labels) for number in range(3)] == ["", "a", "b"]
    with pytest.raises(Fatal, match=r"shop\.t, column c cannot be read"):
        one(*enum, b"\3", labels)


def test_mariadb_speaks_of_the_sign_of_years_and_the_charset_of_geometries() -> None:
    columns = [(13, b""), (3, b""), (255, b"\4"), TEXT]
    made = table_map(columns, field(1, b"\xc0") + field(3, packed(63) + packed(8)) + names("y", "n", "g", "t"))

    layout = parse(made, HEADER, len(made), MARIADB)

    assert layout.unsigned == (True, True, False, False)
    assert layout.charsets == ("", "", "binary", "latin1")


def test_metadata_that_later_servers_write_is_known() -> None:
    """COLUMN_VISIBILITY (MySQL 8.0.23) and the dimensions of VECTOR (9.0)."""
    made = table_map(
        [(3, b""), (242, b"\4")], field(1, b"\0") + names("id", "v") + field(12, b"\x80") + field(13, b"\2")
    )
    data = rows(30, 2, b"\0" + struct.pack("<iI", 1, 8) + struct.pack("<ff", 1, 2))

    assert parse(made, HEADER, len(made), MYSQL).invisible == (False, True)
    (change,) = decoder(made).decode(data, HEADER, len(data), 30)
    assert change.after == (1, struct.pack("<ff", 1, 2))
    assert change.table.columns[1].type.name == "vector"


HINTS = Hints(
    (
        ColumnHint("id", "int(10) unsigned", nullable=False),
        ColumnHint("name", "varchar(100)", "latin1"),
        ColumnHint("photo", "blob"),
        ColumnHint("n", "bigint(20)", generated=True),
    ),
    ("id",),
)


def test_a_log_without_names_takes_them_and_all_else_from_the_catalogue() -> None:
    made = decoder(table_map(COLUMNS), hints=HINTS)
    data = rows(30, 4, ROW[:7] + b"\xe9bc" + ROW[10:])

    (change,) = made.decode(data, HEADER, len(data), 30)

    assert change.after == (4294967291, "ébc", b"\0\xff", -1)
    assert [column.name for column in change.table.columns] == ["id", "name", "photo", "n"]
    assert change.table.key == ("id",)
    assert [column.generated for column in change.table.columns] == [False, False, False, True]
    assert [column.type.kind for column in change.table.columns] == [Kind.INTEGER, Kind.TEXT, Kind.BYTES, Kind.INTEGER]


@pytest.mark.parametrize(
    ("hints", "told"),
    [
        (None, "does not name the columns"),
        (Hints(HINTS.columns[:3]), "4 columns in the log and 3 in the catalogue"),
        (
            Hints((*HINTS.columns[1:], HINTS.columns[0])),
            "column name as type 3 in the log and varchar in the catalogue",
        ),
    ],
    ids=["missing", "fewer", "moved"],
)
def test_a_catalogue_that_does_not_fit_the_log_stops_by_name(hints: Hints | None, told: str) -> None:
    with pytest.raises(Fatal, match=rf"shop\.t.*{told}|{told}.*shop\.t"):
        decoder(table_map(COLUMNS), hints=hints)


def test_hints_never_lay_out_a_row_that_the_log_describes() -> None:
    layout = described(parse(MAP, HEADER, len(MAP), MYSQL), Hints((ColumnHint("photo", "bigint(20)"),)))

    assert [column.type.kind for column in table_of(layout).columns] == [
        Kind.INTEGER,
        Kind.TEXT,
        Kind.BYTES,
        Kind.INTEGER,
    ]


def test_columns_named_as_those_of_a_period_are_columns_where_the_catalogue_has_them() -> None:
    columns = [(3, b""), (17, b"\6"), (17, b"\6")]
    layout = parse(
        made := table_map(columns, field(1, b"\0") + names("id", "row_start", "row_end")), HEADER, len(made), MARIADB
    )
    hints = Hints(tuple(ColumnHint(name, "timestamp(6)") for name in ("row_start", "row_end")))

    assert len(table_of(described(layout, hints)).columns) == 3
    with pytest.raises(Fatal, match=r"shop\.t is system-versioned"):
        table_of(described(layout, None))


def test_columns_behind_an_index_are_in_no_row() -> None:
    hidden = "8ac829e3bb8338d74cfb45ebe834d8e1"
    columns = [(3, b""), (3, b""), (8, b""), (3, b"")]
    made = table_map(columns, field(1, b"\0") + names("id", "!hidden!f!0!0", hidden, "x"))
    data = rows(30, 4, b"\0" + struct.pack("<iiqi", 1, 2, 3, 4))

    (change,) = decoder(made).decode(data, HEADER, len(data), 30)

    assert change.after == (1, 4)
    assert [column.name for column in change.table.columns] == ["id", "x"]


@given(st.integers(), st.sampled_from([(1, 1), (2, 2), (9, 3), (3, 4), (8, 8)]), st.booleans())
def test_integers_of_every_width_and_sign(number: int, width: tuple[int, int], signed: bool) -> None:
    code, size = width
    number %= 1 << size * 8
    want = number - (1 << size * 8) if signed and number >> size * 8 - 1 else number

    assert one(code, b"", number.to_bytes(size, "little"), field(1, b"\0" if signed else b"\x80")) == want


def decimal_bytes(value: Decimal, precision: int, scale: int) -> bytes:
    """MySQL's documentation of `decimal2bin`, digit by digit."""
    sizes = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
    digits = f"{abs(value.scaleb(scale)):0{precision}f}".partition(".")[0].rjust(precision, "0")
    whole, part = digits[: precision - scale], digits[precision - scale :]
    groups = [whole[: len(whole) % 9]] if len(whole) % 9 else []
    groups += [whole[at : at + 9] for at in range(len(whole) % 9, len(whole), 9)]
    groups += [part[at : at + 9] for at in range(0, len(part), 9)]
    raw = b"".join([int(group).to_bytes(sizes[len(group)], "big") for group in groups])
    turned = bytes([byte ^ 0xFF for byte in raw]) if value < 0 else raw
    return (turned[0] ^ 0x80).to_bytes(1, "big") + turned[1:]


@given(st.data(), st.integers(1, 65))
def test_decimals_of_every_size_keep_every_digit(data: st.DataObject, precision: int) -> None:
    scale = data.draw(st.integers(0, min(30, precision)))
    units = data.draw(st.integers(-(10**precision) + 1, 10**precision - 1))
    with localcontext(prec=70):
        value = Decimal(units).scaleb(-scale)

        got = one(246, bytes([precision, scale]), decimal_bytes(value, precision, scale))

    assert got == f"{value:f}"


def fraction_bytes(micros: int, precision: int) -> bytes:
    size = (precision + 1) // 2
    return (micros // int(10 ** (6 - size * 2))).to_bytes(size, "big")


def trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)), st.integers(0, 6))  # noqa: DTZ001  without zone
def test_datetimes_of_every_precision(moment: datetime, precision: int) -> None:
    micros = moment.microsecond // 10 ** (6 - precision) * 10 ** (6 - precision)
    number = ((moment.year * 13 + moment.month) << 5 | moment.day) << 17
    number |= moment.hour << 12 | moment.minute << 6 | moment.second
    raw = (number + (1 << 39)).to_bytes(5, "big") + fraction_bytes(micros, precision)

    want = trimmed(moment.replace(microsecond=micros).isoformat(timespec="microseconds"))
    assert one(18, bytes([precision]), raw) == want


@given(st.integers(1, (1 << 32) - 1), st.integers(0, 999_999), st.integers(0, 6))
def test_timestamps_are_in_utc(seconds: int, micros: int, precision: int) -> None:
    micros = micros // 10 ** (6 - precision) * 10 ** (6 - precision)
    raw = seconds.to_bytes(4, "big") + fraction_bytes(micros, precision)

    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=micros)
    want = trimmed(moment.replace(tzinfo=None).isoformat(timespec="microseconds"))
    assert one(17, bytes([precision]), raw) == f"{want}Z"


@given(st.integers(-3_020_399, 3_020_399), st.integers(0, 999_999), st.integers(0, 6))
def test_times_have_their_sign_and_fraction(seconds: int, micros: int, precision: int) -> None:
    micros = micros // 10 ** (6 - precision) * 10 ** (6 - precision)
    size = (precision + 1) // 2
    hms = abs(seconds) // 3600 << 12 | abs(seconds) // 60 % 60 << 6 | abs(seconds) % 60
    magnitude = hms << size * 8 | micros // 10 ** (6 - size * 2)
    negative = seconds < 0
    raw = ((0x800000 << size * 8) + (-magnitude if negative else magnitude)).to_bytes(3 + size, "big")

    text = f"{abs(seconds) // 3600:02d}:{abs(seconds) // 60 % 60:02d}:{abs(seconds) % 60:02d}.{micros:06d}"
    assert one(19, bytes([precision]), raw) == trimmed(("-" if negative else "") + text)


ZEROS = [
    (10, b"", b"\0\0\0", "0000-00-00"),
    (10, b"", (2026 << 9 | 2 << 5).to_bytes(3, "little"), "2026-02-00"),
    (10, b"", (2026 << 9 | 2 << 5 | 30).to_bytes(3, "little"), "2026-02-30"),
    (18, b"\0", (1 << 39).to_bytes(5, "big"), "0000-00-00T00:00:00"),
    (17, b"\2", bytes(5), "0000-00-00T00:00:00Z"),
]


@pytest.mark.parametrize(("code", "meta", "raw", "text"), ZEROS)
def test_dates_that_no_calendar_has_become_what_the_policy_says(code: int, meta: bytes, raw: bytes, text: str) -> None:
    assert one(code, meta, raw, zero_dates=ZeroDates.NULL) is None
    assert one(code, meta, raw, zero_dates=ZeroDates.TEXT) == text
    with pytest.raises(Fatal, match=r"shop\.t, column c holds a date that no calendar has\n.*zero_dates: null"):
        one(code, meta, raw)


@given(st.binary(max_size=300), st.sampled_from([1, 2, 3, 4]))
def test_bytes_of_every_length(value: bytes, width: int) -> None:
    value = value[:255] if width == 1 else value

    assert one(252, bytes([width]), len(value).to_bytes(width, "little") + value, field(3, packed(63))) == value


def digits(value: float) -> int:
    return len(Decimal(repr(value)).normalize().as_tuple().digits)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_single_is_the_shortest_number_that_is_the_same_single(value: float) -> None:
    got = one(4, b"\4", struct.pack("<f", value), field(1, b"\0"))

    assert isinstance(got, float)
    assert struct.pack("<f", got) == struct.pack("<f", value)
    assert digits(got) <= digits(value)


def test_rows_of_a_table_that_nobody_wants_are_counted_without_names() -> None:
    bare = table_map(COLUMNS)
    data = rows(31, 4, ROW, ROW, ROW, ROW)

    counter = RowsDecoder(parse(bare, HEADER, len(bare), MYSQL), None)

    assert counter.count(data, HEADER, len(data), 31) == 2
    assert len(counter.starts) == 2


MANY = [
    (1, b""), (2, b""), (9, b""), (3, b""), (8, b""), (4, b"\4"), (5, b"\x08"), (246, b"\x0a\2"), (246, b"\x41\x1e"),
    (10, b""), (18, b"\6"), (17, b"\3"), (19, b"\2"), (13, b""), (16, b"\5\1"), TEXT, (252, b"\4"), (254, b"\xf7\1"),
    (254, b"\xf8\2"), (254, b"\xfe\x0a"), (255, b"\4"), (245, b"\4"),
]  # fmt: skip
"""A column of nearly every type."""
MANY_OPTIONAL = field(1, b"\0\0") + field(2, packed(45)) + names(*(f"c{at}" for at in range(len(MANY))))
MANY_OPTIONAL += field(6, packed(1) + string("a")) + field(5, packed(2) + string("p") + string("q"))


@given(st.binary(min_size=1, max_size=300), st.sampled_from([23, 24, 25, 30, 31, 32, 39]), st.sampled_from(ZeroDates))
def test_bytes_that_are_no_rows_are_told_and_nothing_else(noise: bytes, kind: int, policy: ZeroDates) -> None:
    made = decoder(table_map(MANY, MANY_OPTIONAL), zero_dates=policy)
    for data in (rows(kind, len(MANY), noise), rows(kind, len(MANY), bytes(3), noise, bytes(200))):
        for call in (made.decode, made.count):
            with contextlib.suppress(Fatal):
                call(data, HEADER, len(data), kind)


@given(st.data())
def test_a_table_map_with_a_byte_turned_is_read_or_told_and_nothing_else(data: st.DataObject) -> None:
    made = bytearray(table_map(MANY, MANY_OPTIONAL))
    made[data.draw(st.integers(HEADER, len(made) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(Fatal):
        described(parse(bytes(made), HEADER, len(made), data.draw(st.sampled_from([MYSQL, MARIADB]))), None)
