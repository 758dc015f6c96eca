"""How MySQL's sink declares types and writes values, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from cdcsync.change import Column, Table
from cdcsync.mysql.blame import fault_of
from cdcsync.mysql.declare import Dialect, create_table, declarations, declare
from cdcsync.mysql.errors import MysqlError
from cdcsync.mysql.fits import fits
from cdcsync.mysql.literals import Parameter, Unfit, internal
from cdcsync.mysql.statements import Plan
from cdcsync.mysql.target import TargetColumn, TargetTable
from cdcsync.mysql.values import ewkb
from cdcsync.types import Kind, Type

MYSQL = Dialect("utf8mb4_0900_bin")
MARIADB = Dialect("utf8mb4_nopad_bin", frozenset({"uuid", "inet6"}), json_is_text=True)
TEXT = Type(Kind.TEXT)


def column(name: str, data_type: str, declared: str = "", **given: Any) -> TargetColumn:
    """Return a column of a target."""
    plain: dict[str, Any] = {
        "length": None,
        "precision": None,
        "scale": None,
        "fraction": None,
        "charset": None,
        "collation": None,
        "nullable": True,
        "defaulted": False,
        "generated": False,
        "on_update": False,
        "labels": frozenset(),
    }
    return TargetColumn(name, data_type, declared or data_type, **{**plain, **given})


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        (Type(Kind.INTEGER, bits=24, unsigned=True), "MEDIUMINT UNSIGNED"),
        (Type(Kind.DECIMAL), "LONGTEXT"),
        (Type(Kind.DECIMAL, precision=5, scale=-2), "DECIMAL(7,0)"),
        (Type(Kind.DECIMAL, precision=2, scale=4), "DECIMAL(4,4)"),
        (Type(Kind.DECIMAL, precision=66, scale=2), "LONGTEXT"),
        (Type(Kind.TEXT, length=10, fixed=True), "CHAR(10)"),
        (Type(Kind.TEXT, length=300, fixed=True), "VARCHAR(300)"),
        (Type(Kind.TEXT, length=20_000), "MEDIUMTEXT"),
        (Type(Kind.TIMESTAMPTZ), "DATETIME(6)"),
        (Type(Kind.TIMESTAMPTZ, precision=0, name="timestamp", system="mysql"), "TIMESTAMP(0)"),
        (Type(Kind.INTEGER, bits=16, unsigned=True, name="year", system="mysql"), "YEAR"),
        (Type(Kind.TEXT, name="tinytext", system="mysql"), "TINYTEXT"),
        (Type(Kind.BYTES, length=16, fixed=True, name="binary", system="mysql"), "BINARY(16)"),
        (Type(Kind.ENUM, labels=("it's", "b\\")), r"ENUM('it\'s', 'b\\')"),
        (Type(Kind.ENUM, labels=("a ", "b")), "LONGTEXT"),
        (Type(Kind.SET, labels=("a,b",)), "LONGTEXT"),
        (Type(Kind.BIT, length=70, fixed=True), "VARCHAR(70)"),
        (Type(Kind.UUID, name="uuid", system="mysql"), "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin"),
    ],
)
def test_a_type_becomes_what_keeps_every_value(kind: Type, want: str) -> None:
    assert declare(kind, MYSQL) == want


def test_types_of_mariadb_alone_have_their_own_name_there() -> None:
    kinds = [Type(Kind.UUID, name="uuid", system="mysql"), Type(Kind.OPAQUE, name="inet6", system="mysql")]

    assert [declare(kind, MARIADB) for kind in kinds] == ["UUID", "INET6"]
    assert declare(Type(Kind.JSON), MARIADB) == "JSON"
    assert declare(Type(Kind.JSON), MYSQL) == "LONGTEXT"


def test_texts_of_a_key_share_what_an_index_takes() -> None:
    names = ("a", "b", "c")
    kinds = (TEXT, Type(Kind.TEXT, length=700), Type(Kind.BYTES))
    table = Table("", "t", tuple(Column(name, kind) for name, kind in zip(names, kinds, strict=True)), names)

    assert declarations(table, MYSQL) == {"a": "VARCHAR(256)", "b": "VARCHAR(256)", "c": "VARBINARY(1024)"}
    alone = Table("", "t", table.columns, ("a",))
    assert declarations(alone, MYSQL) == {"a": "VARCHAR(512)", "b": "VARCHAR(700)", "c": "LONGBLOB"}


def test_a_row_too_wide_has_its_longest_columns_apart() -> None:
    columns = [Column(f"c{at}", Type(Kind.TEXT, length=4000 + at)) for at in range(5)]
    table = Table("", "t", (Column("id", Type(Kind.INTEGER, bits=64)), *columns), ("id",))

    found = declarations(table, MYSQL)

    assert [found[f"c{at}"] for at in range(5)] == [*[f"VARCHAR({4000 + at})" for at in range(4)], "TEXT"]


def test_a_timestamp_is_never_given_a_default_that_acts() -> None:
    kind = Type(Kind.TIMESTAMPTZ, precision=3, name="timestamp", system="mysql")
    table = Table("", "t", (Column("a", kind), Column("b", kind, nullable=False)))

    said = create_table(table, MYSQL, name="`t`", quote=lambda name: f"`{name}`")

    assert "`a` TIMESTAMP(3) NULL DEFAULT NULL,\n" in said
    assert "`b` TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)\n" in said


@pytest.mark.parametrize(
    ("kind", "data_type", "value", "want"),
    [
        (TEXT, "longtext", "it's \\ \0", r"'it\'s \\ \0'"),
        (Type(Kind.BYTES), "longblob", b"\xff'\0", r"_binary'" + "\udcff" + r"\'\0'"),
        (Type(Kind.INTEGER, bits=32), "int", -5, "-5"),
        (Type(Kind.BOOLEAN), "tinyint", True, "1"),
        (Type(Kind.FLOAT, bits=64), "double", 0.1, "0.1e0"),
        (Type(Kind.FLOAT, bits=32), "float", 0.1, "0.10000000149011612e0"),
        (Type(Kind.DECIMAL, precision=5, scale=2), "decimal", "-1.50", "-1.50"),
        (Type(Kind.DECIMAL), "longtext", "NaN", "'NaN'"),
        (Type(Kind.TIMESTAMPTZ), "datetime", "2026-11-24T10:00:00.5Z", "'2026-11-24T10:00:00.5'"),
        (Type(Kind.BIT, length=3, fixed=True), "bit", "011", "b'11'"),
        (Type(Kind.SET, labels=("a", "b")), "longtext", ("a", "b"), '\'["a","b"]\''),
        (Type(Kind.ARRAY, element=TEXT), "longtext", ("a'", None), "'[\"a\\'\",null]'"),
        (Type(Kind.TEXT, length=5, fixed=True), "char", "ab   ", "'ab'"),
        (TEXT, "longtext", None, "NULL"),
    ],
)
def test_a_value_is_written_for_its_column(kind: Type, data_type: str, value: Any, want: str) -> None:
    assert list(Parameter.of(kind, column("c", data_type)).literals([value])) == [want]


@pytest.mark.parametrize(
    ("kind", "data_type", "value"),
    [
        (TEXT, "longtext", "\ud83d"),
        (Type(Kind.FLOAT, bits=64), "double", float("nan")),
        (Type(Kind.DECIMAL, precision=5, scale=2), "decimal", "Infinity"),
        (Type(Kind.DATE), "date", "-0043-03-15"),
        (Type(Kind.TIMESTAMP), "datetime", "infinity"),
        (Type(Kind.JSON), "json", "[0.10000000000000000001]"),
        (Type(Kind.ENUM, labels=("a",)), "enum", "1"),
    ],
)
def test_a_value_without_a_like_is_refused_by_its_column_and_not_shown(kind: Type, data_type: str, value: Any) -> None:
    with pytest.raises(Unfit, match="column c") as caught:
        Parameter.of(kind, column("c", data_type, labels=frozenset({"a"}))).literals([None, value])

    assert repr(value) not in str(caught.value)


def test_a_geometry_is_the_same_after_both_ways() -> None:
    for text in ("0101000020e6100000000000000000f03f0000000000000040", "0101000000000000000000f03f0000000000000040"):
        assert ewkb(internal(bytes.fromhex(text))).hex() == text


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Data too long for column 'na`me' at row 1", "column na`me"),
        ("Incorrect string value: '\\xF0 for column 'x' at row 9' for column 'c' at row 1", "column c"),
        ("Incorrect datetime value: 'secret' for column `db`.`t`.`c` at row 3", "column c"),
        ("Column 'c' cannot be null", "column c"),
        ("Invalid JSON text: \"secret\" at position 1 in value for column 't.c'.", "column t.c"),
    ],
)
def test_a_refused_row_names_the_column_and_never_the_value(text: str, want: str) -> None:
    got = fault_of(MysqlError(1366, text), "").reason

    assert got.endswith(f", {want}")
    assert "secret" not in got


def test_the_value_of_a_unique_key_is_not_named_but_the_key_is() -> None:
    fault = fault_of(MysqlError(1062, "Duplicate entry 'secret' for key 't.by_name'"), "")

    assert fault.is_unique
    assert fault.reason.endswith("key t.by_name")


def plan(key: TargetColumn, *unique: tuple[tuple[str, ...], bool], kind: Type = TEXT) -> Plan:
    table = Table("", "t", (Column("k", kind, nullable=False), Column("v", TEXT)), ("k",))
    there = TargetTable({"k": key, "v": column("v", "longtext")}, [(("k",), True), *unique])
    return Plan(table, "`d`.`t`", there, 1 << 24)


def test_an_upsert_is_guarded_where_another_key_could_decide() -> None:
    number = column("k", "int", nullable=False)
    exact = column("k", "varchar", length=99, charset="utf8mb4", collation="utf8mb4_nopad_bin")
    loose = column("k", "varchar", length=99, charset="utf8mb4", collation="utf8mb4_general_ci")
    integer = Type(Kind.INTEGER, bits=32)

    assert not plan(number, kind=integer).upsert.guarded
    assert not plan(number, (("v", "k"), True), kind=integer).upsert.guarded
    assert plan(number, (("v",), True), kind=integer).upsert.guarded
    assert plan(number, (("k", "v"), False), kind=integer).upsert.guarded
    assert not plan(exact).upsert.guarded
    (request,) = plan(loose).upsert.requests([("a", "b")])
    assert request.sql == (
        "INSERT INTO `d`.`t` (`k`,`v`) VALUES ('a','b') ON DUPLICATE KEY UPDATE "
        "`k`=IF(CAST(`k` AS BINARY)=CAST(VALUES(`k`) AS BINARY),`k`,NULL),`v`=VALUES(`v`)"
    )


def test_a_narrower_column_is_told() -> None:
    narrow = column("c", "varchar", "varchar(10)", length=10)

    assert fits(Type(Kind.TEXT, length=11), narrow) == "varchar(10) is narrower than text(11)"
    assert fits(Type(Kind.TEXT, length=10), narrow) is None
    assert fits(TEXT, narrow, is_key=True) is None
    assert fits(Type(Kind.TEXT, length=5), column("c", "char", "char(10)", length=10)) == (
        "char(10) drops spaces at the end"
    )
    assert fits(Type(Kind.FLOAT, bits=64), column("c", "double", "double(10,3)")) == "double(10,3) rounds float64"
