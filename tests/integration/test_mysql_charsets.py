"""Every character set and collation that the servers have, each character of it against the server's own conversion."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fix_binlog import Logged, selected

from cdcsync.errors import Fatal
from cdcsync.mysql.charsets import charset_of, text_decoder
from cdcsync.mysql.rows import RowsDecoder
from cdcsync.mysql.types import described, table_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fix_mysql import MysqlDatabase

    from cdcsync.testing.mysql_servers import MysqlServer

EIGHT_BIT = [
    "armscii8",
    "ascii",
    "cp1250",
    "cp1251",
    "cp1256",
    "cp1257",
    "cp850",
    "cp852",
    "cp866",
    "dec8",
    "geostd8",
    "greek",
    "hebrew",
    "hp8",
    "keybcs2",
    "koi8r",
    "koi8u",
    "latin1",
    "latin2",
    "latin5",
    "latin7",
    "macce",
    "macroman",
    "swe7",
    "tis620",
]
EAST_ASIAN = ["big5", "cp932", "euckr", "gb2312", "gbk", "sjis", "ujis", "eucjpms"]
UNICODE = ["utf8mb3", "utf8mb4", "ucs2", "utf16", "utf16le", "utf32", "gb18030"]
CODE_POINTS = [
    *range(0xD800),
    *range(0xE000, 0x10000),
    *range(0x10000, 0x20000, 7),
    *range(0x20000, 0x110000, 997),
    0x10FFFF,
]


def put(database: MysqlDatabase, sequences: Iterable[bytes]) -> None:
    """Fill a table with bytes."""
    listed = list(sequences)
    with database.server.connect(database.name) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("CREATE TABLE given (b varbinary(4)) ENGINE = MEMORY")
        for at in range(0, len(listed), 10_000):
            values = ",".join(f"(x'{each.hex()}')" for each in listed[at : at + 10_000])
            cursor.execute(f"INSERT INTO given VALUES {values}")


def read(charset: str, raw: bytes) -> str | None:
    try:
        return text_decoder(charset)(raw)
    except UnicodeDecodeError:
        return None


def test_bytes_of_every_national_set_are_what_the_server_says(each_mysql_database: MysqlDatabase) -> None:
    """All single bytes, all pairs and, in 8F, all threes; what the server replaces by a question mark is invalid."""
    put(
        each_mysql_database,
        [
            *(bytes([first]) for first in range(256)),
            *(bytes([first, second]) for first in range(0x81, 256) for second in range(0x30, 256) if second != 0x3F),
            *(bytes([0x8F, second, third]) for second in range(0xA1, 255) for third in range(0xA1, 255)),
        ],
    )

    different = {}
    for charset in EIGHT_BIT + EAST_ASIAN:
        size = 1 if charset in EIGHT_BIT else 3 if charset in {"ujis", "eucjpms"} else 2
        for raw, converted in each_mysql_database.query(
            f"SELECT b, HEX(CONVERT(CONVERT(b USING {charset}) USING utf8mb4)) FROM given WHERE LENGTH(b) <= {size}"
        ):
            text = bytes.fromhex(converted or "").decode()
            lost = not text or "\ufffd" in text or ("?" in text and b"?" not in raw)
            if read(charset, raw) != (None if lost else text):
                different[charset, raw.hex()] = text
    assert different == {}


def test_every_code_point_in_the_sets_of_unicode_is_read_back(each_mysql_database: MysqlDatabase) -> None:
    put(each_mysql_database, [point.to_bytes(4, "big") for point in CODE_POINTS])
    known = {
        charset
        for (charset,) in each_mysql_database.query("SELECT character_set_name FROM information_schema.character_sets")
    }

    different = {}
    for charset in UNICODE:
        if charset not in known and charset != "utf8mb3":
            assert charset == "gb18030", "MariaDB alone lacks one, and this one"
            continue
        for point, encoded in each_mysql_database.query(
            f"SELECT b, HEX(CONVERT(CONVERT(b USING utf32) USING {charset})) FROM given"
        ):
            want = point.decode("utf-32-be")
            raw = bytes.fromhex(encoded or "")
            replaced = raw == "?".encode({"ucs2": "utf-16-be", "utf8mb3": "utf-8"}.get(charset, "utf-8"))
            if raw and not (replaced and want != "?") and read(charset, raw) != want:
                different[charset, point.hex()] = encoded
    assert different == {}


@pytest.mark.parametrize("build", ["mysql8", "mysql57", "mariadb10", "mariadb11"])
def test_every_collation_belongs_to_its_set(request: pytest.FixtureRequest, build: str) -> None:
    server: MysqlServer = request.getfixturevalue(build)
    table = "collation_character_set_applicability" if build.startswith("mariadb") else "collations"
    rows = server.query(f"SELECT id, character_set_name FROM information_schema.{table} WHERE id IS NOT NULL")

    different = [
        (number, name) for number, name in rows if charset_of(number) != ("utf8mb3" if name == "utf8" else name)
    ]

    assert len(rows) > 200
    assert different == []


def test_text_of_every_set_comes_through_the_log(each_mysql_database: MysqlDatabase) -> None:
    known = [
        name
        for (name,) in each_mysql_database.query(
            "SELECT character_set_name FROM information_schema.character_sets ORDER BY 1"
        )
    ]
    columns = ", ".join(
        f"v_{name} varchar(20) character set {name}, e_{name} enum('x','A1') character set {name}" for name in known
    )
    each_mysql_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    logged = Logged(each_mysql_database.server)
    given = ", ".join(["_utf8mb4'Abc 1', 'A1'"] * len(known))
    each_mysql_database.execute(f"INSERT INTO t VALUES (1, {given})")

    (change,) = logged.changes()

    assert change.after == selected(each_mysql_database, change.table)[0]
    assert set(change.after[1:]) == {"Abc 1", "A1", b"Abc 1"}


@pytest.mark.pure
def test_text_that_is_invalid_in_its_set_stops_with_the_column_and_no_value(
    each_mysql_database: MysqlDatabase,
) -> None:
    """The server takes no such text; its bytes come here from a column that is none."""
    each_mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, v varbinary(20))")
    logged = Logged(each_mysql_database.server)
    each_mysql_database.execute("INSERT INTO t VALUES (1, x'7171c35a')")
    logged.changes()
    layout = replace(described(logged.layouts[0], None), charsets=("", "utf8mb4"))
    kind, event = next((kind, event) for kind, event in logged.events() if kind in {23, 30})

    with pytest.raises(Fatal, match=r"\.t, column v holds bytes that are no text") as caught:
        RowsDecoder(layout, table_of(layout)).decode(event, 19, len(event), kind)

    assert "qq" not in str(caught.value)
