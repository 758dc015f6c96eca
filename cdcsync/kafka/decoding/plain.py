"""Values that are no changes of anything: each record of JSON or of text is a row that is inserted, and stays.

The table is the topic. A row has its place, `_partition` and `_offset`, as its key: written twice it is there once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cdcsync.change import Change, Column, Operation, Table
from cdcsync.kafka.decoding.columns import TEXT, Layout
from cdcsync.kafka.decoding.connect import layout_declared
from cdcsync.kafka.decoding.opening import fields_in
from cdcsync.kafka.decoding.records import Decoded, Malformed, Record, table_of_topic
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    from cdcsync.change import Row
    from cdcsync.kafka.decoding.layouts import Layouts
    from cdcsync.kafka.decoding.opening import Opener

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLACE: Final = (
    Column("_partition", Type(Kind.INTEGER, bits=32), nullable=False),
    Column("_offset", Type(Kind.INTEGER, bits=64), nullable=False),
    Column("_time", Type(Kind.TIMESTAMPTZ, precision=3), nullable=False),
    Column("_key", TEXT),
)
_KEY: Final = ("_partition", "_offset")


class Text:
    """Decodes records whose value is UTF-8 text: columns `_partition, _offset, _time, _key, value`."""

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}

    def decode(self, record: Record) -> Decoded:
        """Return the insert of one row; a record without a value is a row without a value."""
        table = table_of(self._tables, record.topic, Column("value", TEXT))
        value = None if record.value is None else text_in(record.value, "value")
        return Decoded([Change(table, Operation.INSERT, None, (*place_of(record), value))], record.time_us)


class JsonRows:
    """Decodes records whose value is JSON: the columns that the file declares, else one column `value`."""

    def __init__(self, values: Opener, layouts: Layouts) -> None:
        self._values = values
        self._layouts = layouts
        self._tables: dict[str, Table] = {}
        self._rows: dict[str, tuple[Table, Layout]] = {}

    def decode(self, record: Record) -> Decoded:
        """Return the insert of one row."""
        place = place_of(record)
        said = self._layouts.declaration(table_of_topic(record.topic))
        payload = None if record.value is None else self._values.open(record.value).payload
        if said is None or not said.columns:
            table = table_of(self._tables, record.topic, Column("value", Type(Kind.JSON)))
            value = None if record.value is None else text_in(record.value, "value")
            return Decoded([Change(table, Operation.INSERT, None, (*place, value))], record.time_us)
        table, layout = self._declared(record.topic)
        fields = {} if payload is None else fields_in(payload, "value")
        try:
            row = layout.row(fields)
        except ValueError as error:
            raise Malformed(str(error)) from error
        return Decoded([Change(table, Operation.INSERT, None, (*place, *row))], record.time_us)

    def _declared(self, topic: str) -> tuple[Table, Layout]:
        found = self._rows.get(topic)
        if found is None:
            place = table_of_topic(topic)
            said = self._layouts.declaration(place)
            columns = said.columns if said is not None else {}
            layout = layout_declared(columns, place, (), None, self._layouts.binary)
            key = said.key if said is not None and said.key is not None else _KEY
            found = self._rows[topic] = (Table(*place, (*_PLACE, *layout.table.columns), key), layout)
        return found


def table_of(known: dict[str, Table], topic: str, value: Column) -> Table:
    """Return the table of a topic's plain values, the same object each time."""
    found = known.get(topic)
    if found is None:
        found = known[topic] = Table(*table_of_topic(topic), (*_PLACE, value), _KEY)
    return found


def place_of(record: Record) -> Row:
    """Return the first four values of a row. Raises Malformed when the key is no text."""
    moment = (_EPOCH + timedelta(microseconds=record.time_us)).isoformat()
    time = moment.removesuffix("+00:00").rstrip("0").rstrip(".") if "." in moment else moment.removesuffix("+00:00")
    key = None if record.key is None else text_in(record.key, "key")
    return record.partition, record.offset, f"{time}Z", key


def text_in(raw: bytes, what: str) -> str:
    """Return the text of UTF-8. Raises Malformed."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        msg = f"its {what} is not UTF-8"
        raise Malformed(msg) from error
