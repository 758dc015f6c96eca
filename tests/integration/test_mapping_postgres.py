"""Mappings with expressions, from a real PostgreSQL into another: the target is what the source's own SQL says."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from fix_command import stopped
from fix_postgres import drop_database, make_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_command import Command
    from fix_postgres import Database

    from cdcsync.testing.servers import PostgresServer

SHOP = """
CREATE TABLE orders (id bigint PRIMARY KEY, status text, price numeric(10, 2), at timestamptz, doc jsonb, big text);
ALTER TABLE orders ALTER big SET STORAGE EXTERNAL;
INSERT INTO orders SELECT n, CASE WHEN n % 3 = 0 THEN 'draft' ELSE 'new' END, n * 1.5,
  timestamptz '2026-11-23 10:00Z' + n * interval '1 hour', jsonb_build_object('n', n), repeat('x', 5000)
  FROM generate_series(1, 60) n;
"""
PIPELINE = """\
name: orders
source: {source}
sink: {sink}
heartbeat: 500ms
tables:
  - from: public.orders
    to: sold
    where: status <> 'draft' and price > 3
    exclude: [doc, at]
    columns:
      status: upper(status)
      total: price * 2 + coalesce(cast(doc ->> 'n' as integer), 0)
      day: cast(date_trunc('month', at) as date)
      size: length(big)
    match: all
    examples:
      - given: {{after: {{id: 1, status: new, price: 4}}}}
        expect: {{after: {{status: NEW, total: 8}}}}
      - given: {{after: {{id: 1, status: draft, price: 4}}}}
        expect: nothing
  - from: public.orders
    to: {{by: "case when price < 50 then 'cheap' else 'dear' end", tables: [cheap, dear]}}
    include: [id, price]
    match: all
{more}"""
HISTORY = """\
  - from: public.orders
    to: versions
    include: [id, status]
    history: true
"""
WANT = """
SELECT id, upper(status), price::text, length(big), (price * 2 + coalesce((doc ->> 'n')::integer, 0))::text,
  date_trunc('month', at)::date::text FROM orders WHERE status <> 'draft' AND price > 3 ORDER BY id
"""
GOT = "SELECT id, status, price::text, size, total::text, day::text FROM sold ORDER BY id"


@pytest.fixture
def target(postgres: PostgresServer) -> Iterator[Database]:
    """A second database."""
    made = make_database(postgres)
    yield made
    drop_database(made)


def write(dice: random.Random, database: Database) -> None:
    """Change rows in every way that a filter, a route and a history tell apart."""
    for number in range(150):
        row = dice.randint(1, 90)
        statement = dice.choice(
            [
                f"UPDATE orders SET status = '{dice.choice(['draft', 'new', 'paid'])}' WHERE id = {row}",
                f"UPDATE orders SET price = {dice.choice([1, 2.5, 40, 49.99, 50, 80])} WHERE id = {row}",
                f"UPDATE orders SET big = repeat('y', {dice.randint(1, 9000)}) WHERE id = {row}",
                f"UPDATE orders SET doc = NULL, at = '2026-12-31 23:00Z' WHERE id = {row}",
                f"DELETE FROM orders WHERE id = {row}",
                f"INSERT INTO orders VALUES ({row}, 'new', 10, now(), '{{}}', NULL) ON CONFLICT DO NOTHING",
                f"UPDATE orders SET id = {1000 + number} WHERE id = {row}",
            ]
        )
        database.execute(statement)


def test_the_target_is_what_the_sources_own_sql_says(command: Command, database: Database, target: Database) -> None:
    database.execute(SHOP)
    database.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    path = command.write(PIPELINE.format(source=database.url, sink=target.url, more=HISTORY))

    checked = json.loads(command("check", path, "--json").stdout)
    first = command.start("run", path)
    write(random.Random(8), database)
    database.execute("INSERT INTO orders VALUES (5000, 'last', 99, now(), '{}', 'z')")
    command.wait(lambda _: there(target, "versions"))
    assert stopped(first)[0] == 0

    assert [each for each in checked if each["severity"] == "error"] == []
    assert any("2 came to what they expect" in each["message"] for each in checked)
    assert target.query(GOT) == database.query(WANT)
    for table, condition in (("cheap", "price < 50"), ("dear", "price >= 50")):
        kept = "SELECT id, price::text FROM {} {} ORDER BY id"
        assert target.query(kept.format(table, "")) == database.query(kept.format("orders", f"WHERE {condition}"))
    last = "SELECT DISTINCT ON (id) id, status FROM versions ORDER BY id, changed_at DESC, operation"
    alive = dict(target.query(f"SELECT id, status FROM ({last}) v"))
    assert all(alive[identity] == status for identity, status in database.query("SELECT id, status FROM orders"))


def test_check_names_the_line_of_what_an_end_does_not_have_or_take(
    command: Command, database: Database, target: Database
) -> None:
    database.execute(SHOP)
    target.execute("CREATE TABLE sold (id bigint PRIMARY KEY, total integer)")
    entry = """\
name: orders
source: {source}
sink: {sink}
tables:
  - from: public.orders
    to: sold
    include: [id]
    columns:
      total: price * 2
      {long}: status
      short: cast(price as decimal(5, 1))
    match: all
  - from: public.orders
    to: {{by: status, tables: [new, old]}}
"""
    path = command.write(entry.format(source=database.url, sink=target.url, long="n" * 64))

    checked = json.loads(command("check", path, "--json").stdout)
    ran = command("run", path)

    said: dict[str, list[str]] = {each["severity"]: [] for each in checked}
    for each in checked:
        said[each["severity"]].append(each["message"].removeprefix(str(path)))
    assert any(line.startswith(":9:14: column total: integer cannot hold numeric") for line in said["error"])
    assert any("the target takes 63" in line and line.startswith(":10:") for line in said["error"])
    assert any("rounded to 1 digits" in line and line.startswith(":11:19: ") for line in said["warning"])
    assert any(line.startswith(":14:14: ") and "`to.by` reads status" in line for line in said["error"])
    assert ran.returncode == 78
    assert "64 bytes long; the target takes 63" in ran.stderr


def test_a_filter_needs_no_full_rows_before(command: Command, database: Database, target: Database) -> None:
    database.execute(SHOP)
    entry = PIPELINE.partition("    match: all")[0]
    path = command.write(entry.format(source=database.url, sink=target.url))

    checked = json.loads(command("check", path, "--json").stdout)
    first = command.start("run", path)
    write(random.Random(9), database)
    database.execute("INSERT INTO orders VALUES (5000, 'last', 99, now(), '{}', 'z')")
    command.wait(lambda _: there(target, "sold"))
    assert stopped(first)[0] == 0
    verified = command("verify", path)

    assert any("`where` reads price, status" in each["message"] for each in checked)
    assert target.query(GOT) == database.query(WANT)
    assert verified.returncode == 0, verified.stdout


def there(target: Database, table: str) -> bool:
    """Return whether the last row has come."""
    if target.query(f"SELECT to_regclass('{table}') IS NULL") == [(True,)]:
        return False
    return target.query(f"SELECT count(*) FROM {table} WHERE id = 5000") == [(1,)]
