"""Every type of MySQL and MariaDB: exact in the log, equal to what a SELECT gives, and equal again when written back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from fix_binlog import Logged, selected
from fix_mysql import MysqlDatabase, drop_mysql_database, make_mysql_database
from fix_mysql_source import begun, has_changes

from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_mysql_source import MysqlRun

    from cdcsync.change import Change
    from cdcsync.testing.mysql_servers import MysqlServer
    from cdcsync.types import Type

Case = tuple[str, str, Any]


def point(x: float, y: float, srid: int = 0) -> bytes:
    head = struct.pack("<BI", 1, 1) if not srid else struct.pack("<BII", 1, 1 | 0x20000000, srid)
    return head + struct.pack("<dd", x, y)


COMMON: list[Case] = [
    ("tinyint", "-128", -128),
    ("tinyint(1)", "1", 1),
    ("tinyint unsigned", "255", 255),
    ("smallint", "-32768", -32768),
    ("smallint unsigned", "65535", 65535),
    ("mediumint", "-8388608", -8388608),
    ("mediumint", "8388607", 8388607),
    ("mediumint unsigned", "16777215", 16777215),
    ("int", "-2147483648", -2147483648),
    ("int(5) unsigned zerofill", "42", 42),
    ("int unsigned", "4294967295", 4294967295),
    ("bigint", "-9223372036854775808", -9223372036854775808),
    ("bigint", "9223372036854775807", 9223372036854775807),
    ("bigint", "-4294967296", -4294967296),
    ("bigint unsigned", "18446744073709551615", 18446744073709551615),
    ("year", "1901", 1901),
    ("year", "2155", 2155),
    ("year", "0", 0),
    ("decimal(65,30)", "-" + "9" * 35 + "." + "9" * 30, "-" + "9" * 35 + "." + "9" * 30),
    ("decimal(65,30)", "0.000000000000000000000000000001", "0." + "0" * 29 + "1"),
    ("decimal(65,0)", "9" * 65, "9" * 65),
    ("decimal(10,2)", "-0.05", "-0.05"),
    ("decimal(10,2)", "0", "0.00"),
    ("decimal(10,2) unsigned", "99999999.99", "99999999.99"),
    ("decimal(18,9)", "-999999999.999999999", "-999999999.999999999"),
    ("decimal(18,0)", "999999999999999999", "999999999999999999"),
    ("decimal(19,1)", "-123456789012345678.9", "-123456789012345678.9"),
    ("decimal(5,5)", "0.00001", "0.00001"),
    ("decimal(14,4)", "-1234567890.1234", "-1234567890.1234"),
    ("float", "0.1", 0.1),
    ("float", "16777216", 16777216.0),
    ("float", "-3.4028234e38", -3.4028235e38),
    ("float", "1.17549435e-38", 1.1754944e-38),
    ("float unsigned", "1234567", 1234567.0),
    ("float(7,3)", "1234.567", 1234.567),
    ("double", "0.1", 0.1),
    ("double", "-1.7976931348623157e308", -1.7976931348623157e308),
    ("double", "2.2250738585072014e-308", 2.2250738585072014e-308),
    ("double(10,3)", "1234567.891", 1234567.891),
    ("bit(1)", "b'1'", "1"),
    ("bit(9)", "b'100000001'", "100000001"),
    ("bit(13)", "b'101'", "0000000000101"),
    ("bit(64)", "0x8000000000000001", "1" + "0" * 62 + "1"),
    ("date", "'1000-01-01'", "1000-01-01"),
    ("date", "'9999-12-31'", "9999-12-31"),
    ("date", "'2024-02-29'", "2024-02-29"),
    ("time", "'838:59:59'", "838:59:59"),
    ("time", "'-838:59:59'", "-838:59:59"),
    ("time(1)", "'-00:00:00.1'", "-00:00:00.1"),
    ("time(2)", "'-12:34:56.78'", "-12:34:56.78"),
    ("time(3)", "'23:59:59.120'", "23:59:59.12"),
    ("time(4)", "'-01:00:00.0001'", "-01:00:00.0001"),
    ("time(6)", "'-837:59:59.999999'", "-837:59:59.999999"),
    ("time(6)", "'00:00:00'", "00:00:00"),
    ("datetime", "'1000-01-01 00:00:00'", "1000-01-01T00:00:00"),
    ("datetime(1)", "'2026-11-24 10:00:00.5'", "2026-11-24T10:00:00.5"),
    ("datetime(3)", "'2026-11-24 10:00:00.050'", "2026-11-24T10:00:00.05"),
    ("datetime(6)", "'9999-12-31 23:59:59.999999'", "9999-12-31T23:59:59.999999"),
    ("timestamp null", "'1970-01-01 00:00:01'", "1970-01-01T00:00:01Z"),
    ("timestamp(2) null", "'2026-03-29 02:30:00.25'", "2026-03-29T02:30:00.25Z"),
    ("timestamp(6) null", "'2038-01-19 03:14:07.000001'", "2038-01-19T03:14:07.000001Z"),
    ("char(5)", "'ab  '", "ab"),
    ("char(255) character set utf8mb4", "'é😀'", "é😀"),
    ("varchar(5)", "'ab  '", "ab  "),
    ("varchar(300) character set utf8mb4", "REPEAT('é', 300)", "é" * 300),
    ("varchar(255) character set latin1", "'€é'", "€é"),
    ("tinytext", "'a\\0b'", "a\0b"),
    ("text character set utf16", "'é😀'", "é😀"),
    ("mediumtext", "REPEAT('x', 70000)", "x" * 70000),
    ("longtext", "''", ""),
    ("binary(5)", "x'4100'", b"A\0\0\0\0"),
    ("binary(3)", "x'000000'", b"\0\0\0"),
    ("varbinary(5)", "x'4100'", b"A\0"),
    ("varbinary(300)", "x'2020'", b"  "),
    ("tinyblob", "x'ff'", b"\xff"),
    ("blob", "x'00ff5c'", b"\0\xff\\"),
    ("mediumblob", "REPEAT(x'00', 66000)", bytes(66000)),
    ("longblob", "''", b""),
    ("enum('b','a','é')", "'é'", "é"),
    ("enum('x''y','a,b') character set latin1", "'x''y'", "x'y"),
    (f"enum({','.join(repr(f'l{number}') for number in range(300))})", "'l299'", "l299"),
    ("set('b','a','é')", "'é,b'", ("b", "é")),
    ("set('x','y')", "''", ()),
    (f"set({','.join(repr(f'l{number}') for number in range(64))})", "'l63,l0,l31'", ("l0", "l31", "l63")),
    ("point", "ST_GeomFromText('POINT(1 2)')", point(1, 2)),
    ("geometry", "ST_GeomFromText('POINT(1 2)', 3857)", point(1, 2, 3857)),
    ("linestring", "ST_GeomFromText('LINESTRING(0 0,1 1)')", struct.pack("<BIIdddd", 1, 2, 2, 0, 0, 1, 1)),
]

MYSQL: list[Case] = [
    ("json", """'{"b": 1.50, "aa": [1, null, true], "a": "é"}'""", '{"a": "é", "b": 1.5, "aa": [1, null, true]}'),
    ("json", "'[-32769, 65536, -2147483649, 4294967296, 18446744073709551615, -9223372036854775808]'",
     "[-32769, 65536, -2147483649, 4294967296, 18446744073709551615, -9223372036854775808]"),
    ("json", """'"a\\\\"\\\\\\\\\\\\n\\\\u0001\\\\/é😀"'""", '"a\\"\\\\\\n\\u0001/é😀"'),
    ("json", "'[1e20, 1.0, 1e-7, 0.1, 123456789012345680, 1.7976931348623157e308, 5e-324, 1e15, 1e16, -0.0]'", None),
    ("json", "'{}'", "{}"),
    ("json", "'[]'", "[]"),
    ("json", "'null'", "null"),
    ("json", "CAST(1.50 AS JSON)", "1.50"),
    ("json", ("JSON_ARRAY(CAST('2026-11-24' AS DATE), CAST('10:00:00.5' AS TIME(6)), CAST('-10:00:00.5' AS TIME(6)), "
     "CAST('2026-11-24 10:00:00' AS DATETIME), -123456789012345678901234567890.5, x'00ff', b'101')"), None),
    ("json", "JSON_ARRAY(REPEAT('x', 70000), REPEAT('y', 200))", '["' + "x" * 70000 + '", "' + "y" * 200 + '"]'),
    ("json", "JSON_OBJECT('long', REPEAT('x', 70000), 'n', 70000, 'i', 1, 'u', 4294967295)", None),
    ("json", "JSON_ARRAY(REPEAT(x'00ff', 100))", None),
    ("point", "ST_GeomFromText('POINT(10 20)', 4326)", point(20, 10, 4326)),
    ("bigint generated always as (id + 1) virtual", "DEFAULT", 2),
    ("bigint generated always as (id + 1) stored", "DEFAULT", 2),
]  # fmt: skip

MARIADB: list[Case] = [
    ("uuid", "'123e4567-e89b-12d3-a456-426655440000'", "123e4567-e89b-12d3-a456-426655440000"),
    ("uuid", "'00000000-0000-0000-0000-000000000000'", "00000000-0000-0000-0000-000000000000"),
    ("uuid", "'018f6b1c-7a2b-7000-8000-0123456789ab'", "018f6b1c-7a2b-7000-8000-0123456789ab"),
    ("inet4", "'10.0.0.0'", "10.0.0.0"),
    ("inet6", "'2001:db8::1'", "2001:db8::1"),
    ("inet6", "'::ffff:10.0.0.1'", "::ffff:10.0.0.1"),
    ("inet6", "'::10.0.0.1'", "::10.0.0.1"),
    ("inet6", "'::'", "::"),
    ("inet6", "'::1'", "::1"),
    ("inet6", "'fe80:0:0:1::'", "fe80:0:0:1::"),
    ("inet6", "'1:0:0:2:0:0:0:3'", "1:0:0:2::3"),
    ("inet6", "'1:0:2:3:4:5:6:7'", None),
    ("json", """'{"a":  1}'""", '{"a":  1}'),
    ("blob compressed", "REPEAT('ab', 500)", b"ab" * 500),
    ("blob compressed", "'x'", b"x"),
    ("text compressed", "REPEAT('é', 500)", "é" * 500),
    ("varchar(2000) compressed", "REPEAT('z', 1500)", "z" * 1500),
    ("varchar(100) compressed", "''", ""),
    ("bigint generated always as (id + 1) virtual", "DEFAULT", 2),
    ("bigint generated always as (id + 1) stored", "DEFAULT", 2),
    ("int invisible default 7", "DEFAULT", 7),
]


OF_8 = ("1e20", "4326", "REPEAT(x'00ff'")
"""5.7 writes whole doubles in JSON without a fraction, breaks base64 with bare line ends, and knows no order of axes."""


def cases(server: MysqlServer) -> list[Case]:
    if "mariadb" in server.build.name:
        return COMMON + MARIADB
    if server.version >= (8, 0):
        return COMMON + MYSQL
    return COMMON + [case for case in MYSQL if not any(part in case[1] for part in OF_8)]


def fill(database: MysqlDatabase, listed: list[Case]) -> list[Change]:
    """Two rows, with all values and with none, and an update of the first."""
    columns = ", ".join(f"c{index} {kind}" for index, (kind, _, _) in enumerate(listed))
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, changes int, {columns}) ROW_FORMAT = DYNAMIC")
    names = ", ".join(["id", "changes", *(f"c{index}" for index in range(len(listed)))])
    values = ", ".join(literal for _, literal, _ in listed)
    logged = Logged(database.server)
    with database.server.connect(database.name) as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(f"INSERT INTO t ({names}) VALUES (1, 0, {values})")
        cursor.execute("INSERT INTO t (id) VALUES (2)")
        cursor.execute("UPDATE t SET changes = changes + 1 WHERE id = 1")
    return [change for change in logged.changes() if change.table.name == "t"]


@pytest.fixture(params=["mysql8", "mysql57", "mariadb10", "mariadb11"])
def any_mysql_database(request: pytest.FixtureRequest) -> Iterator[MysqlDatabase]:
    made = make_mysql_database(request.getfixturevalue(request.param))
    yield made
    drop_mysql_database(made)


@pytest.mark.pure
def test_every_type_is_exact_and_equals_a_select(any_mysql_database: MysqlDatabase) -> None:
    listed = cases(any_mysql_database.server)

    full, null, update = fill(any_mysql_database, listed)

    assert full.after is not None
    assert null.after is not None
    for (kind, literal, want), got in zip(listed, full.after[2:], strict=True):
        if want is not None:
            assert (kind, literal[:60], got, type(got)) == (kind, literal[:60], want, type(want))
    by_select = selected(any_mysql_database, update.table)
    assert update.after is not None
    different = [
        (listed[index - 2][:2], update.after[index], by_select[0][index])
        for index in range(2, len(update.after))
        if update.after[index] != by_select[0][index] or type(update.after[index]) is not type(by_select[0][index])
    ]
    assert different == []
    assert by_select[1] == null.after
    assert update.before == full.after
    assert update.after == (1, 1, *full.after[2:])


def test_every_type_comes_through_the_source_itself(
    each_mysql_database: MysqlDatabase, read: Callable[..., MysqlRun]
) -> None:
    database = each_mysql_database
    listed = cases(database.server)
    run = begun(read(database))

    fill(database, listed)
    run.take(has_changes(3))

    full, null, update = run.changes
    assert [update.after, null.after] == selected(database, update.table)
    assert full.after is not None
    assert [
        case[:2] for case, got in zip(listed, full.after[2:], strict=True) if case[2] is not None and case[2] != got
    ] == []


def written(kind: Type, value: Any) -> Any:
    """A value as the server takes it."""
    if value is None:
        return None
    if kind.kind is Kind.SET:
        return ",".join(value)
    if kind.kind is Kind.BIT:
        return int(value, 2)
    if kind.kind is Kind.TIMESTAMPTZ:
        return value.removesuffix("Z")
    if kind.kind is Kind.GEOMETRY:
        has_srid = value[4] & 0x20
        return value[5:9] + value[:4] + b"\0" + value[9:] if has_srid else bytes(4) + value
    if kind.kind is Kind.FLOAT and kind.bits == 32:
        return repr(struct.unpack("f", struct.pack("f", value))[0])
    return value


def is_one_way(case: Case) -> bool:
    """Whether the value cannot be written: it is computed, or JSON text has no form for its type (a decimal, a time)."""
    return "generated" in case[0] or (case[0] == "json" and ("CAST(" in case[1] or "x'00ff'" in case[1]))


def test_every_value_written_back_is_the_same_to_the_server(each_mysql_database: MysqlDatabase) -> None:
    listed = [case for case in cases(each_mysql_database.server) if not is_one_way(case)]
    full, _, update = fill(each_mysql_database, listed)
    assert full.after is not None
    values = [written(column.type, value) for column, value in zip(update.table.columns, full.after, strict=True)]

    with each_mysql_database.server.connect(each_mysql_database.name) as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute("CREATE TABLE copy LIKE t")
        names = ", ".join(column.name for column in update.table.columns)
        cursor.execute(f"INSERT INTO copy ({names}) VALUES ({', '.join(['%s'] * len(values))})", values)
        same = ", ".join(
            f"t.{name} <=> copy.{name} AND HEX(CONCAT(t.{name})) <=> HEX(CONCAT(copy.{name}))"
            for name in (f"c{index}" for index in range(len(listed)))
        )
        cursor.execute(f"SELECT {same} FROM t JOIN copy USING (id)")
        (answers,) = cursor.fetchall()

    assert [listed[index][:2] for index, answer in enumerate(answers) if answer != 1] == []
