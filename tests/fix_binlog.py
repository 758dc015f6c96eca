"""Reads what a server has logged straight from its files, decoded as the source decodes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdcsync.mysql import compressed
from cdcsync.mysql.config import MysqlSource, ZeroDates, from_url
from cdcsync.mysql.connection import connect
from cdcsync.mysql.copied import Answers
from cdcsync.mysql.rows import RowsDecoder
from cdcsync.mysql.select import SelectedRows, expressions
from cdcsync.mysql.table_map import MARIADB, MYSQL, Layout, parse
from cdcsync.mysql.types import ColumnHint, Hints, described, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_mysql import MysqlDatabase

    from cdcsync.change import Change, Row, Table
    from cdcsync.testing.mysql_servers import MysqlServer

TABLE_MAP = 19
ROWS = frozenset({23, 24, 25, 30, 31, 32, 39})


class Logged:
    """What a server logs from now on."""

    def __init__(self, server: MysqlServer) -> None:
        self.server = server
        self._name, self._offset = server.position()
        self.layouts: list[Layout] = []

    def events(self) -> Iterator[tuple[int, bytes]]:
        """Type and bytes of each event, without its checksum, compressed ones unpacked."""
        data = (self.server.data / self._name).read_bytes()
        at, tail = 4, 0
        while at < len(data):
            size = int.from_bytes(data[at + 9 : at + 13], "little")
            kind = data[at + 4]
            if kind == 15:
                tail = 4 if data[at + size - 5] == 1 else 0
            if at >= self._offset:
                event = data[at : at + size - tail]
                if kind in compressed.PLAIN:
                    unpack = compressed.query if kind == 165 else compressed.rows
                    event = unpack(event, len(event))
                yield event[4], event
            at += size

    def changes(self, zero_dates: ZeroDates = ZeroDates.STOP, hints: Hints | None = None) -> list[Change]:
        """All changes of tables in databases of tests; without hints by the catalogue as it is now."""
        decoders: dict[bytes, RowsDecoder] = {}
        found: list[Change] = []
        dialect = MARIADB if "mariadb" in self.server.build.name else MYSQL
        for kind, event in self.events():
            if kind == TABLE_MAP:
                layout = parse(event, 19, len(event), dialect)
                self.layouts.append(layout)
                full = described(layout, hints or hints_of(self.server, layout.schema, layout.name))
                decoders[event[19:25]] = RowsDecoder(full, table_of(full), zero_dates)
            elif kind in ROWS:
                decoder = decoders[event[19:25]]
                changes = decoder.decode(event, 19, len(event), kind)
                starts = decoder.starts
                assert decoder.count(event, 19, len(event), kind) == len(changes)
                assert decoder.starts == starts
                found += changes
        return found


def hints_of(server: MysqlServer, schema: str, name: str) -> Hints:
    """What the catalogue says of a table."""
    columns = server.query(
        "SELECT column_name, column_type, COALESCE(character_set_name, ''), is_nullable, generation_expression "
        "FROM information_schema.columns WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        [schema, name],
    )
    key = server.query(
        "SELECT column_name FROM information_schema.statistics WHERE table_schema = %s AND table_name = %s "
        "AND index_name = 'PRIMARY' ORDER BY seq_in_index",
        [schema, name],
    )
    versioned = server.query(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s "
        "AND table_type = 'SYSTEM VERSIONED'",
        [schema, name],
    )
    return Hints(
        tuple(
            ColumnHint(column, _text(declared), charset, nullable == "YES", bool(generated))
            for column, declared, charset, nullable, generated in columns
        ),
        tuple(column for (column,) in key),
        bool(versioned),
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def selected(
    database: MysqlDatabase, table: Table, order: str = "id", zero_dates: ZeroDates = ZeroDates.STOP
) -> list[Row]:
    """All rows of a table as a SELECT gives them, by the fast decoder and by the plain one."""
    config = MysqlSource.model_validate({**from_url(database.server.url()), "start": "now"})
    rows: list[Row] = []
    answers = Answers(table, zero_dates)
    with connect(config, purpose="test") as connection:
        names = ", ".join(expressions(table))
        connection.begin(f"SELECT {names} FROM `{table.schema}`.`{table.name}` ORDER BY {order}")
        while not answers.take(connection.receive(1 << 16), rows):
            pass
        plain = SelectedRows(table, zero_dates)
        executed: Any = connection.execute(f"SELECT {names} FROM `{table.schema}`.`{table.name}` ORDER BY {order}")
        assert rows == [plain.row(answer) for answer in executed]
    return rows
