"""The demo's shop: its schema, and a writer that behaves like the application of one."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES: Final = ("customers", "products", "orders", "order_lines", "visits")

SCHEMA: Final = """
CREATE SCHEMA shop;
CREATE TYPE shop.order_state AS ENUM ('placed', 'paid', 'shipped', 'returned');
CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    password_hash text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shop.products (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    price numeric(10,2) NOT NULL,
    stock integer NOT NULL,
    tags text[] NOT NULL DEFAULT '{}'
);
CREATE TABLE shop.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES shop.customers,
    state shop.order_state NOT NULL DEFAULT 'placed',
    total numeric(12,2) NOT NULL DEFAULT 0,
    delivery jsonb,
    placed timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shop.order_lines (
    order_id bigint NOT NULL REFERENCES shop.orders ON DELETE CASCADE,
    line integer NOT NULL,
    product_id bigint NOT NULL REFERENCES shop.products,
    quantity integer NOT NULL,
    price numeric(10,2) NOT NULL,
    PRIMARY KEY (order_id, line)
);
CREATE TABLE shop.visits (at timestamptz NOT NULL DEFAULT now(), customer_id bigint, page text NOT NULL);

INSERT INTO shop.products (name, price, stock, tags)
SELECT (ARRAY['Teapot','Lamp','Chair','Mug','Rug','Clock','Vase','Desk'])[1 + n % 8] || ' ' || n,
       (5 + n * 37 % 400)::numeric + 0.99, 500, ARRAY['new', 'shelf ' || n % 9]
FROM generate_series(1, 200) n;
INSERT INTO shop.customers (name, email, password_hash)
SELECT 'Customer ' || n, 'customer' || n || '@example.com', md5(n::text) FROM generate_series(1, 1000) n;
"""


class Writer(threading.Thread):
    """Places, pays, ships, returns and cancels orders until it is told to stop."""

    def __init__(self, url: str, seed: int | None = None) -> None:
        super().__init__(name="shop-writer", daemon=True)
        self._url = url
        self._dice = random.Random(seed)  # noqa: S311  a shop's customers, not its keys
        self._stopping = threading.Event()
        self.rows: Counter[str] = Counter()
        """Rows written, by table."""
        self.transactions = 0
        self.said = ""
        """What happened last, for a person."""
        self.fault: psycopg.Error | None = None
        """What ended the writer before it was stopped."""

    def stop(self) -> None:
        """End after the transaction under way."""
        self._stopping.set()
        self.join(10)

    def run(self) -> None:
        """Write some 150 transactions a second, in bursts as a shop has them."""
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                while not self._stopping.is_set():
                    for _ in range(self._dice.randint(1, 12)):
                        self._one(connection)
                    self._stopping.wait(self._dice.uniform(0.01, 0.08))
        except psycopg.Error as error:
            self.fault = error

    def _one(self, connection: psycopg.Connection) -> None:
        acts: tuple[tuple[Callable[[psycopg.Connection], None], int], ...] = (
            (self._place, 40),
            (self._move_on, 30),
            (self._visit, 40),
            (self._sign_up, 8),
            (self._reprice, 6),
            (self._cancel, 6),
            (self._change_address, 6),
        )
        act = self._dice.choices([act for act, _ in acts], [weight for _, weight in acts])[0]
        with connection.transaction():
            act(connection)
        self.transactions += 1

    def _place(self, connection: psycopg.Connection) -> None:
        order = _one_of(
            connection,
            "INSERT INTO shop.orders (customer_id, delivery) SELECT id, %s::jsonb FROM shop.customers"
            " OFFSET floor(random() * 1000) LIMIT 1 RETURNING id",
            f'{{"express": {str(self._dice.random() < 0.3).lower()}, "floor": {self._dice.randint(0, 9)}}}',
        )
        lines = self._dice.randint(1, 4)
        products = sorted(self._dice.sample(range(1, 201), lines))
        for line, product in enumerate(products, 1):
            quantity = self._dice.randint(1, 3)
            connection.execute(
                "INSERT INTO shop.order_lines SELECT %s, %s, id, %s, price FROM shop.products WHERE id = %s",
                (order, line, quantity, product),
            )
            connection.execute("UPDATE shop.products SET stock = stock - %s WHERE id = %s", (quantity, product))
        connection.execute(
            "UPDATE shop.orders SET total = (SELECT sum(quantity * price) FROM shop.order_lines WHERE order_id = %s)"
            " WHERE id = %s",
            (order, order),
        )
        self.rows.update(orders=2, order_lines=lines, products=lines)
        self.said = f"order {order} placed, {lines} line(s)"

    def _move_on(self, connection: psycopg.Connection) -> None:
        order = _one_of(
            connection,
            "UPDATE shop.orders SET state = CASE state WHEN 'placed' THEN 'paid'::shop.order_state"
            " WHEN 'paid' THEN 'shipped' ELSE 'returned' END WHERE id ="
            " (SELECT max(id) - floor(random() * 200) FROM shop.orders) AND state <> 'returned' RETURNING id",
        )
        if order:
            self.rows.update(orders=1)
            self.said = f"order {order} moved on"

    def _cancel(self, connection: psycopg.Connection) -> None:
        order = _one_of(
            connection,
            "SELECT id FROM shop.orders WHERE id ="
            " (SELECT max(id) - floor(random() * 200) FROM shop.orders) AND state = 'placed'",
        )
        if order:
            lines = connection.execute("DELETE FROM shop.order_lines WHERE order_id = %s", (order,)).rowcount
            connection.execute("DELETE FROM shop.orders WHERE id = %s", (order,))
            self.rows.update(orders=1, order_lines=lines)
            self.said = f"order {order} cancelled"

    def _visit(self, connection: psycopg.Connection) -> None:
        page = self._dice.choice(("/", "/basket", "/search", f"/products/{self._dice.randint(1, 200)}"))
        connection.execute(
            "INSERT INTO shop.visits (customer_id, page) VALUES (%s, %s)", (self._dice.randint(1, 1000), page)
        )
        self.rows.update(visits=1)

    def _sign_up(self, connection: psycopg.Connection) -> None:
        number = self._dice.getrandbits(48)
        connection.execute(
            "INSERT INTO shop.customers (name, email, password_hash) VALUES (%s, %s, md5(random()::text))",
            (f"Zoë Ünal {number % 97}", f"{number:x}@example.com"),
        )
        self.rows.update(customers=1)
        self.said = f"{number:x}@example.com signed up"

    def _change_address(self, connection: psycopg.Connection) -> None:
        customer, number = self._dice.randint(1, 1000), self._dice.getrandbits(48)
        connection.execute("UPDATE shop.customers SET email = %s WHERE id = %s", (f"{number:x}@example.org", customer))
        self.rows.update(customers=1)
        self.said = f"customer {customer} has a new address"

    def _reprice(self, connection: psycopg.Connection) -> None:
        product = self._dice.randint(1, 200)
        connection.execute(
            "UPDATE shop.products SET price = round(price * %s::numeric, 2) + 0.01, stock = stock + 50 WHERE id = %s",
            (str(round(self._dice.uniform(0.9, 1.1), 2)), product),
        )
        self.rows.update(products=1)
        self.said = f"product {product} has a new price"


def _one_of(connection: psycopg.Connection, query: str, *values: object) -> int:
    row = connection.execute(query.encode(), values).fetchone()
    return int(row[0]) if row else 0
