"""What the MySQL sink promises beside the conformance suite: other rows are safe, order, reasons, refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fix_mysql_sink import INTEGER, LOGS, USERS, delete, insert, make, opened, truncate, update, users

from cdcsync.change import UNCHANGED, Column, CopyStart, Table
from cdcsync.errors import ExitStatus, Fatal, Rejected
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from fix_mysql import MysqlDatabase

    from cdcsync.change import Item

WORD = Type(Kind.TEXT, length=20)
NAMES = Table("", "names", (Column("name", WORD, nullable=False), Column("n", INTEGER)), ("name",))
SEATS = Table("", "seats", (Column("id", INTEGER, nullable=False), Column("seat", INTEGER)), ("id",))
PARENTS = Table("", "parents", (Column("id", INTEGER, nullable=False), Column("note", WORD)), ("id",))
CHILDREN = Table("", "children", (Column("id", INTEGER, nullable=False), Column("parent", INTEGER)), ("id",))


def rejected(ends: Any, *items: Item) -> dict[int, str]:
    """Reasons by item."""
    with pytest.raises(Rejected) as caught:
        ends.write(*items)
    return {item: reason for (_, item), reason in caught.value.reasons.items()}


def test_a_row_with_the_unique_value_of_another_never_overwrites_it(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE) ENGINE=InnoDB")
    database.execute("INSERT INTO seats VALUES (1, 10)")
    ends = opened(database, SEATS)

    reasons = rejected(ends, *insert((2, 10), (3, 30), table=SEATS))

    assert set(reasons) == {0}
    assert "unique key" in reasons[0]
    ends.write(*insert((3, 30), table=SEATS))
    assert database.query("SELECT * FROM seats ORDER BY id") == [(1, 10), (3, 30)]
    ends.close()


def test_rows_that_swap_a_unique_value_both_arrive(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    database.execute("CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE) ENGINE=InnoDB")
    ends = opened(database, SEATS)
    ends.write(*insert((1, 10), (2, 20), (3, 30), table=SEATS))

    ends.write(*[update((a, a * 10), (a, b * 10), SEATS) for a, b in ((1, 2), (2, 3), (3, 1))])
    ends.write(delete((1, 20), SEATS), *insert((4, 20), table=SEATS))

    assert database.query("SELECT * FROM seats ORDER BY id") == [(2, 30), (3, 10), (4, 20)]
    ends.close()


def test_keys_that_differ_by_case_or_accents_stay_rows_of_their_own(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    ends = opened(database, NAMES)
    ends.write(*insert(("ab", 1), ("AB", 2), ("äb", 3), ("a\u0308b", 4), table=NAMES))
    ends.write(update(("AB", 2), ("AB", 20), NAMES), delete(("äb", 3), NAMES))

    assert sorted(database.query("SELECT n FROM names")) == [(1,), (4,), (20,)]
    ends.close()


def test_keys_that_differ_by_spaces_at_the_end_are_two_rows_or_the_second_is_rejected(
    each_mysql_database: MysqlDatabase,
) -> None:
    database = each_mysql_database
    ends = opened(database, NAMES)
    ends.write(*insert(("a", 1), table=NAMES))

    if database.query("SELECT 1 FROM information_schema.collations WHERE collation_name = 'utf8mb4_nopad_bin'"):
        ends.write(*insert(("a ", 2), table=NAMES))
        assert sorted(database.query("SELECT name, n FROM names")) == [("a", 1), ("a ", 2)]
    else:
        assert "by its collation" in rejected(ends, *insert(("a ", 2), table=NAMES))[0]
        ends.write(delete(("a ", 2), NAMES), *insert(("b ", 3), table=NAMES))
        assert sorted(database.query("SELECT name, n FROM names")) == [("a", 1), ("b ", 3)]
    ends.close()


def test_a_key_that_the_collation_takes_for_another_is_rejected_and_the_other_is_left_alone(
    each_mysql_database: MysqlDatabase,
) -> None:
    database = each_mysql_database
    database.execute(
        "CREATE TABLE names (name varchar(20) PRIMARY KEY, n int) ENGINE=InnoDB "
        "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    )
    ends = opened(database, NAMES)
    ends.write(*insert(("ab", 1), table=NAMES))

    reasons = rejected(ends, *insert(("AB", 2), ("cd", 3), table=NAMES))
    ends.write(*insert(("cd", 3), table=NAMES))
    ends.write(delete(("AB", 2), NAMES), delete(("ab ", 1), NAMES))
    lost = rejected(ends, update(("CD", 3), ("CD", UNCHANGED), NAMES))

    assert "by its collation" in reasons[0]
    assert set(reasons) == set(lost) == {0}
    assert sorted(database.query("SELECT name, n FROM names")) == [("ab", 1), ("cd", 3)]
    ends.write(update(("ab", 1), ("AB", 5), NAMES), delete(("cd", 3), NAMES))
    assert database.query("SELECT name, n FROM names") == [("AB", 5)]
    ends.close()


def test_parents_come_first_and_children_go_first(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    database.execute(
        "CREATE TABLE parents (id int PRIMARY KEY, note varchar(20)) ENGINE=InnoDB; "
        "CREATE TABLE children (id int PRIMARY KEY, parent int, CONSTRAINT refers FOREIGN KEY (parent) "
        "REFERENCES parents (id)) ENGINE=InnoDB"
    )
    ends = opened(database, CHILDREN, PARENTS)

    ends.write(*insert((1, 1), (2, 2), table=CHILDREN), *insert((1, "a"), (2, "b"), table=PARENTS))
    ends.write(update((1, 1), (1, 3), CHILDREN), delete((1, "a"), PARENTS), *insert((3, "c"), table=PARENTS))
    ends.write(delete((2, "b"), PARENTS), delete((2, 2), CHILDREN))
    reasons = rejected(ends, *insert((7, 70), (8, 3), table=CHILDREN))

    assert database.query("SELECT * FROM children") == [(1, 3)]
    assert database.query("SELECT * FROM parents") == [(3, "c")]
    assert set(reasons) == {0}
    assert "foreign key" in reasons[0]
    assert "constraint refers" in reasons[0]
    ends.close()


def test_rows_of_one_table_that_refer_to_each_other_arrive_in_any_order(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    database.execute(
        "CREATE TABLE children (id int PRIMARY KEY, parent int, FOREIGN KEY (parent) REFERENCES children (id)) "
        "ENGINE=InnoDB"
    )
    ends = opened(database, CHILDREN)

    ends.write(*insert((1, 3), (2, 1), (3, None), table=CHILDREN))
    assert database.query("SELECT * FROM children ORDER BY id") == [(1, 3), (2, 1), (3, None)]
    ends.write(delete((3, None), CHILDREN), delete((1, 3), CHILDREN), delete((2, 1), CHILDREN))

    assert database.query("SELECT * FROM children") == []
    ends.close()


def test_an_update_fires_no_cascade(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    database.execute(
        "CREATE TABLE parents (id int PRIMARY KEY, note varchar(20)) ENGINE=InnoDB; "
        "CREATE TABLE children (id int PRIMARY KEY, parent int, FOREIGN KEY (parent) REFERENCES parents (id) "
        "ON DELETE CASCADE) ENGINE=InnoDB"
    )
    ends = opened(database, PARENTS)
    ends.write(*insert((1, "a"), table=PARENTS))
    database.execute("INSERT INTO children VALUES (1, 1)")

    ends.write(update((1, "a"), (1, "b"), PARENTS))
    reasons = rejected(ends, truncate(PARENTS))

    assert database.query("SELECT * FROM children") == [(1, 1)]
    assert "ON DELETE CASCADE" in reasons[0]
    ends.close()


def test_a_truncate_is_part_of_its_transaction(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    ends = opened(database, USERS)
    ends.write(*insert((1, "a"), (2, "b")))

    rejected(ends, truncate(), *insert((3, "c")), update((9, UNCHANGED), (9, UNCHANGED)))
    assert users(database) == [(1, "a"), (2, "b")]
    ends.write(truncate(), *insert((3, "c")))

    assert users(database) == [(3, "c")]
    ends.close()


def test_rows_that_mysql_rejects_are_all_named_without_their_values_and_the_rest_goes_through(
    each_mysql_database: MysqlDatabase,
) -> None:
    database = each_mysql_database
    database.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name varchar(50) CHARACTER SET latin1 COLLATE latin1_bin, "
        "CHECK (id < 1000)) ENGINE=InnoDB"
    )
    ends = opened(database, USERS)
    rows = [(at, f"name {at}") for at in range(1, 31)]
    rows[4] = (5, "secret \U0001f600")
    rows[11] = (12, "half \ud83d of a pair")
    good = [row for at, row in enumerate(rows) if at not in {4, 11}]

    incomplete = rejected(ends, *insert(*rows), update((77, UNCHANGED), (77, UNCHANGED)))
    reasons = rejected(ends, *insert(*rows))
    ends.write(*insert(*good))

    assert set(incomplete) == {30}, "rows that may be read again at the source are named first"
    assert "no row of this key" in incomplete[30]
    assert set(reasons) == {4, 11}
    assert "column name" in reasons[4]
    assert "surrogate" in reasons[11]
    assert "secret" not in str(reasons)
    assert users(database) == good
    ends.close()


def test_a_value_too_long_for_a_key_is_rejected_also_where_only_spaces_are_beyond(
    each_mysql_database: MysqlDatabase,
) -> None:
    database = each_mysql_database
    texts = Table("", "texts", (Column("k", Type(Kind.TEXT), nullable=False), Column("n", INTEGER)), ("k",))
    ends = opened(database, texts)
    long = ["x" * 512, "y" * 513, "z" * 500 + " " * 20]

    reasons = rejected(ends, *insert(*[(text, 1) for text in long], table=texts))
    ends.write(*insert((long[0], 1), table=texts))

    assert set(reasons) == {1, 2}
    assert "column k: too long for varchar(512)" in reasons[1]
    assert database.query("SELECT k FROM texts") == [(long[0],)]
    ends.close()


def test_a_row_beyond_max_allowed_packet_is_rejected_and_many_rows_are_cut(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    blobs = Table("", "blobs", (Column("id", INTEGER, nullable=False), Column("b", Type(Kind.BYTES))), ("id",))
    before = database.server.query("SELECT @@GLOBAL.max_allowed_packet")[0][0]
    database.server.execute("SET GLOBAL max_allowed_packet = 1048576")
    try:
        ends = opened(database, blobs)
        rows = [(at, bytes([at % 256, 0, 39, 92]) * 50_000) for at in range(12)]

        reasons = rejected(ends, *insert(*rows, (99, b"\xff" * 1_200_000), table=blobs))
        ends.write(*insert(*rows, table=blobs))

        assert set(reasons) == {12}
        assert "max_allowed_packet" in reasons[12]
        assert sorted(database.query("SELECT id, b FROM blobs")) == rows
        ends.close()
    finally:
        database.server.execute(f"SET GLOBAL max_allowed_packet = {before}")


def test_a_label_that_the_target_lacks_is_never_taken_for_a_number(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    kinds = Type(Kind.ENUM, labels=("1", "2", "3"))
    table = Table("", "moods", (Column("id", INTEGER, nullable=False), Column("mood", kinds)), ("id",))
    database.execute("CREATE TABLE moods (id int PRIMARY KEY, mood enum('3','1')) ENGINE=InnoDB")
    ends = opened(database, table)

    reasons = rejected(ends, *insert((1, "2"), (2, "1"), table=table))
    ends.write(*insert((2, "1"), table=table))

    assert "no such label" in reasons[0]
    assert database.query("SELECT id, mood FROM moods") == [(2, "1")]
    ends.close()


def test_all_misfits_are_named_at_once_with_their_sql(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    database.execute(
        "CREATE TABLE users (id int, name varchar(10) NOT NULL, more int NOT NULL) ENGINE=InnoDB; "
        "CREATE TABLE logs (line text) ENGINE=MyISAM; CREATE VIEW seats AS SELECT 1 AS id, 2 AS seat"
    )
    ends = make(database, USERS, LOGS, SEATS)
    ends.sink.positions().open("")

    with pytest.raises(Fatal) as caught:
        ends.sink.open()

    said = str(caught.value)
    for part in (
        "no primary key",
        "ADD UNIQUE (`id`)",
        "column name: varchar(10) is narrower than text(50)",
        "MODIFY COLUMN `name` VARCHAR(50)",
        "column name may be null at the source",
        "column more is NOT NULL without a default",
        "column id is part of the key and may be NULL",
        "MyISAM has no transactions",
        "is no table but a view",
    ):
        assert part in said
    assert caught.value.status is ExitStatus.CONFIG
    ends.close()


def test_the_first_copy_wants_an_empty_target_and_clears_its_own_rows_when_begun_again(
    each_mysql_database: MysqlDatabase,
) -> None:
    database = each_mysql_database
    ends = opened(database, USERS)
    ends.write(*insert((1, "theirs")))

    with pytest.raises(Fatal, match="not empty"):
        ends.write(CopyStart(USERS, again=False))
    ends.write(CopyStart(USERS, again=True), *insert((2, "ours")))

    assert users(database) == [(2, "ours")]
    ends.close()


def test_a_table_that_comes_inside_a_large_transaction_is_made_without_committing_it(
    each_mysql_database: MysqlDatabase,
) -> None:
    database = each_mysql_database
    ends = opened(database, USERS)
    ends.sink.write(ends.batch(*insert((1, "a")), last=False))
    ends.sink.write(ends.batch(*insert((2, 20), table=SEATS), part=1, last=False))

    assert users(database) == []
    assert database.query("SELECT count(*) FROM seats") == [(0,)]
    ends.close()
    assert users(database) == []


def test_columns_that_the_target_fills_itself_are_left_to_it(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    database.execute(
        "CREATE TABLE users (id int PRIMARY KEY AUTO_INCREMENT, name varchar(50), "
        "width int AS (length(name)) STORED, seen timestamp NOT NULL DEFAULT '2001-01-01' ON UPDATE CURRENT_TIMESTAMP) "
        "ENGINE=InnoDB"
    )
    width = Column("width", INTEGER, generated=True)
    seen = Column("seen", Type(Kind.TIMESTAMPTZ, precision=0), nullable=False)
    table = Table("", "users", (*USERS.columns, width, seen), ("id",))
    ends = opened(database, table)
    then = "2020-02-02T00:00:00Z"

    ends.write(*insert((0, "zero", 1, then), (5, "five", 1, then), table=table))
    ends.write(update((5, "five", 10, then), (5, "six", UNCHANGED, UNCHANGED), table))

    got = database.query("SELECT id, name, width, date(seen) FROM users ORDER BY id")
    assert [(*row[:3], str(row[3])[:7]) for row in got] == [(0, "zero", 4, "2020-02"), (5, "six", 3, "2020-02")]
    ends.close()


def test_names_that_are_sql_are_only_names_in_mysql_too(each_mysql_database: MysqlDatabase) -> None:
    database = each_mysql_database
    odd = "x`; DROP TABLE users; -- %s"
    key, value = "id` OR 1=1 -- %", "'; %s"
    table = Table("", odd, (Column(key, USERS.columns[1].type, nullable=False), Column(value, WORD)), (key,))
    ends = opened(database, table, USERS)
    ends.write(*insert(("'; DROP TABLE users; --", "\\"), ("b\\'", "%s"), ("c", "\0"), table=table))
    ends.write(update(("b\\'", "%s"), ("d%s", UNCHANGED), table), delete(("c", "\0"), table))
    ends.write(update(("d%s", UNCHANGED), ("d%s", UNCHANGED), table))

    got = database.query("SELECT * FROM `x``; DROP TABLE users; -- %s` ORDER BY 1")
    assert got == [("'; DROP TABLE users; --", "\\"), ("d%s", "%s")]
    ends.close()


def test_a_second_process_is_refused_and_the_holder_named(each_mysql_database: MysqlDatabase) -> None:
    ends = opened(each_mysql_database, USERS)
    other = make(each_mysql_database, USERS)

    with pytest.raises(Fatal, match="its lock is held by session") as caught:
        other.open()

    assert caught.value.status is ExitStatus.OWNERSHIP
    ends.close()


def test_a_target_that_went_back_is_refused(each_mysql_database: MysqlDatabase) -> None:
    ends = opened(each_mysql_database, USERS)
    ends.write(*insert((1, "a")))
    before = each_mysql_database.query("SELECT position FROM cdcsync_positions")[0][0]
    ends.write(*insert((2, "b")))
    each_mysql_database.execute("UPDATE cdcsync_positions SET position = %s", [before])
    ends.close()

    with pytest.raises(Fatal, match="lost what it had committed"):
        ends.open()


def test_a_json_column_of_mysql_takes_what_it_keeps_by_value(mysql_database: MysqlDatabase) -> None:
    documents = Table("", "documents", (Column("id", INTEGER, nullable=False), Column("j", Type(Kind.JSON))), ("id",))
    mysql_database.execute("CREATE TABLE documents (id int PRIMARY KEY, j json) ENGINE=InnoDB")
    ends = opened(mysql_database, documents)
    texts = [
        '{"b": 1, "a": [0.1, 18446744073709551615]}',
        '{"a": 1, "a": 2}',
        "[12345678901234567890123]",
        "{oops",
        "1e400",
    ]

    reasons = rejected(ends, *insert(*list(enumerate(texts)), table=documents))
    ends.write(*insert((0, texts[0]), table=documents))

    assert set(reasons) == {1, 2, 3, 4}
    assert "name twice" in reasons[1]
    assert "more digits" in reasons[2]
    assert mysql_database.query("SELECT j FROM documents") == [('{"a": [0.1, 18446744073709551615], "b": 1}',)]
    ends.close()
