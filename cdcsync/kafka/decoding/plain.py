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
        table = self._tables.get(record.topic)
        if table is None:
            table = self._tables[record.topic] = text_table(record.topic)
        value = None if record.value is None else text_in(record.value, "value")
        return Decoded([Change(table, Operation.INSERT, None, (*place_of(record), value))], record.time_us)


class JsonRows:
    """Decodes records whose value is JSON: the columns that the file declares, else one column `value`."""

    def __init__(self, values: Opener, layouts: Layouts) -> None:
        self._values = values
        self._layouts = layouts
        self._found: dict[str, tuple[Table, Layout | None]] = {}

    def decode(self, record: Record) -> Decoded:
        """Return the insert of one row."""
        place = place_of(record)
        found = self._found.get(record.topic)
        if found is None:
            found = self._found[record.topic] = json_table(record.topic, self._layouts)
        table, layout = found
        payload = None if record.value is None else self._values.open(record.value).payload
        if layout is None:
            value = None if record.value is None else text_in(record.value, "value")
            return Decoded([Change(table, Operation.INSERT, None, (*place, value))], record.time_us)
        fields = {} if payload is None else fields_in(payload, "value")
        try:
            row = layout.row(fields)
        except ValueError as error:
            raise Malformed(str(error)) from error
        return Decoded([Change(table, Operation.INSERT, None, (*place, *row))], record.time_us)


def text_table(topic: str) -> Table:
    """Return the table of a topic of texts."""
    return Table(*table_of_topic(topic), (*_PLACE, Column("value", TEXT)), _KEY)


def json_table(topic: str, layouts: Layouts) -> tuple[Table, Layout | None]:
    """Return the table of a topic of JSON, and how its declared columns are read, None where none are."""
    place = table_of_topic(topic)
    said = layouts.declaration(place)
    if said is None or not said.columns:
        return Table(*place, (*_PLACE, Column("value", Type(Kind.JSON))), _KEY), None
    layout = layout_declared(said.columns, place, (), None, layouts.how)
    return Table(*place, (*_PLACE, *layout.table.columns), said.key if said.key is not None else _KEY), layout


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
