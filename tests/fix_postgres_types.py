"""Every built-in type of PostgreSQL, with a value of it in SQL and in its neutral form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdcsync.ports import Wanted
from cdcsync.types import BoundedArray

if TYPE_CHECKING:
    from fix_postgres import Database

COLUMNS: list[tuple[str, str, Any]] = [
    ("boolean", "true", True),
    ("smallint", "-32768", -32768),
    ("integer", "2147483647", 2147483647),
    ("bigint", "-9223372036854775808", -9223372036854775808),
    ("oid", "4294967295", 4294967295),
    ("real", "0.1", 0.1),
    ("double precision", "'-Infinity'", float("-inf")),
    ("double precision", "1.7976931348623157e308", 1.7976931348623157e308),
    ("numeric", "'NaN'", "NaN"),
    ("numeric", "'-Infinity'", "-Infinity"),
    ("numeric(30,10)", "12345678901234567890.0123456789", "12345678901234567890.0123456789"),
    ("numeric(5,-2)", "12345", "12300"),
    ("text", "E'a\\tb\\n\\\\\"''é😀'", "a\tb\n\\\"'é😀"),
    ("varchar(10)", "'x'", "x"),
    ("char(5)", "'ab'", "ab   "),
    ("bpchar", "'ab'", "ab"),
    ('"char"', "'z'", "z"),
    ("name", "'n'", "n"),
    ("bytea", r"'\x00ff5c'", b"\x00\xff\\"),
    ("date", "'0044-03-15 BC'", "-0043-03-15"),
    ("date", "'0001-12-31 BC'", "0000-12-31"),
    ("date", "'12345-01-02'", "+12345-01-02"),
    ("date", "'infinity'", "infinity"),
    ("time(3)", "'23:59:59.123'", "23:59:59.123"),
    ("time", "'24:00:00'", "24:00:00"),
    ("timetz", "'23:59:59.000001+05:30'", "23:59:59.000001+05:30"),
    ("timetz", "'23:59:59-08'", "23:59:59-08:00"),
    ("timestamp", "'2026-11-23 10:00:00.5'", "2026-11-23T10:00:00.5"),
    ("timestamp", "'4713-01-01 00:00:00 BC'", "-4712-01-01T00:00:00"),
    ("timestamp", "'294276-12-31 23:59:59.999999'", "+294276-12-31T23:59:59.999999"),
    ("timestamp", "'-infinity'", "-infinity"),
    ("timestamptz", "'2026-11-23 10:00:00.5+02'", "2026-11-23T08:00:00.5Z"),
    ("timestamptz", "'0044-03-15 10:00:00+00 BC'", "-0043-03-15T10:00:00Z"),
    ("timestamptz", "'infinity'", "infinity"),
    ("interval", "'-1 year 2 mons -3 days 04:05:06.7'", "P-10M-3DT4H5M6.7S"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", """'{"a":  1.0, "a": "\\u00e9"}'""", '{"a":  1.0, "a": "\\u00e9"}'),
    ("jsonb", """'{"b": 1.10, "a": [null]}'""", '{"a": [null], "b": 1.10}'),
    ("bit(5)", "B'10101'", "10101"),
    ("varbit", "B'101'", "101"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("cidr", "'10.0.0.0/8'", "10.0.0.0/8"),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03"),
    ("money", "'-12.34'", "-$12.34"),
    ("point", "'(1.5,2)'", "(1.5,2)"),
    ("box", "'(3,4),(1,2)'", "(3,4),(1,2)"),
    ("polygon", "'((0,0),(1,1))'", "((0,0),(1,1))"),
    ("tsvector", "'a:1 b:2'", "'a':1 'b':2"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("tstzrange", "'[2026-01-01 00:00:00+00,)'", '["2026-01-01 00:00:00+00",)'),
    ("nummultirange", "'{[1,2),[5,6)}'", "{[1,2),[5,6)}"),
    ("pg_lsn", "'16/B374D848'", "16/B374D848"),
    ("integer[]", "'{{1,NULL},{3,4}}'", ((1, None), (3, 4))),
    ("integer[]", "'{}'", ()),
    ("integer[]", "'[0:1][-1:0]={{1,2},{3,4}}'", BoundedArray.of(((1, 2), (3, 4)), (0, -1))),
    ("text[]", """ARRAY['a"b', 'c\\d', 'NULL', NULL, '', '{,}']""", ('a"b', "c\\d", "NULL", None, "", "{,}")),
    ("timestamptz[]", "'{2026-11-23 10:00:00+00}'", ("2026-11-23T10:00:00Z",)),
    ("bytea[]", r"""ARRAY['\x00'::bytea]""", (b"\x00",)),
    ("box[]", "'{(3,4),(1,2);(7,8),(5,6)}'", ("(3,4),(1,2)", "(7,8),(5,6)")),
    ("mood", "'so so'", "so so"),
    ("mood[]", "ARRAY['so so'::mood]", ("so so",)),
    ("positive", "7", 7),
    ('"Pair, ""x"""', "ROW(1, 'a b')", '(1,"a b")'),
]


class Everything:
    """Wants the one table of these types."""

    def wants(self, schema: str, name: str) -> Wanted | None:
        return Wanted.KEYED if schema == "public" and name == "t" else None


def prepare(database: Database) -> None:
    database.execute(
        "CREATE TYPE mood AS ENUM ('so so', 'fine'); CREATE DOMAIN positive AS int CHECK (value > 0);"
        'CREATE TYPE "Pair, ""x""" AS (a int, b text)'
    )
    columns = ", ".join(f"c{index} {name}" for index, (name, _, _) in enumerate(COLUMNS))
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")


def insert(database: Database, identity: int) -> None:
    values = ", ".join(value for _, value, _ in COLUMNS)
    database.execute(f"INSERT INTO t VALUES ({identity}, {values})")
    database.execute(f"INSERT INTO t (id) VALUES ({identity + 1})")
