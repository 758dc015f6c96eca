"""A change as one line of JSON: what the jsonl sink, the dead letters and `tail` write.

Line: `table, operation, key, before, after, unchanged, commit_time, transaction, position, version`. Values:
integers are numbers, decimals strings, bytes base64, dates and times ISO 8601, JSON columns JSON, arrays JSON
arrays (`{"bounds": [0], "values": [..]}` where lower bounds are not 1), NaN and infinite floats strings. `unchanged`
names the columns of `after` that the log did not carry; they are absent from it, as those not carried in `before`
are absent from that.
A truncate has no rows. Other items have lines of their own, with these operations and fields beside `table` and
the transaction's: `copy` (`again`), `schema` (`columns`, `key`, `statement`), `message` (`prefix`, `content`).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from cdcsync.change import UNCHANGED, Change, CopyStart, Operation, SchemaChange
from cdcsync.types import BoundedArray, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Item, Message, Row, Table, Transaction, Value
    from cdcsync.types import Type

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_dumps: Final = orjson.dumps
_missing: Final = UNCHANGED
_ALL: Final = b',"unchanged":[]'


class Lines:
    """Encodes changes, with one plan per table version. Not for several threads at once."""

    def __init__(self) -> None:
        self._plans: dict[Table, Plan] = {}
        self._second = -1
        self._second_text = b""

    def encode(self, transaction: Transaction) -> bytes:
        """Return the lines of all items in order, each with its newline."""
        pieces: list[bytes] = []
        tail = self._tail(transaction)
        end = _ALL + tail
        table = None
        plan = _NOTHING
        for item in transaction.items:
            if type(item) is not Change:
                pieces.append(_other(item, tail))
                continue
            if item[0] is not table:
                table = item[0]
                plan = self._plan(table)
            plan.put(pieces, end, item[1], item[2], item[3])
        return b"".join(pieces)

    def _tail(self, transaction: Transaction) -> bytes:
        """Return what all lines of the transaction end with; commits of one second share its text."""
        second = transaction.commit_time_us // 1_000_000
        if second != self._second:
            self._second = second
            self._second_text = commit_time(second * 1_000_000)[: -len(".000000Z")].encode()
        return b',"commit_time":"%b.%06dZ","transaction":%b,"position":%b,"version":%d}\n' % (
            self._second_text,
            transaction.commit_time_us - second * 1_000_000,
            _dumps(transaction.id),
            _dumps(transaction.position.encode()),
            transaction.version,
        )

    def _plan(self, table: Table) -> Plan:
        plan = self._plans.get(table)
        if plan is None:
            plan = self._plans[table] = Plan(table)
        return plan


class Plan:
    """How the rows of one table version are written."""

    def __init__(self, table: Table, *, exact: bool = False) -> None:
        self._names = tuple(column.name for column in table.columns)
        self._converters = {
            index: converter
            for index, column in enumerate(table.columns)
            if (converter := _converter(column.type, exact=exact)) is not None
        }
        self._object = _maker(self._names, self._converters)
        """Builds a whole row's object; None when a value was not carried."""
        self._key_at = table.key_at
        self._key_head = b"{" + _name(table.key[0]) + b":" if len(table.key) == 1 else b""
        rest = [index for index in range(len(table.columns)) if index not in table.key_at]
        self._rest = itemgetter(*rest) if rest else None
        """Picks the columns beside the key."""
        self._no_rest = (_missing,) * len(rest) if len(rest) > 1 else _missing
        """What it gives of a row whose key alone was carried."""
        self._heads = {
            operation: b'{"table":%s,"operation":%s,"key":' % (_dumps(table.qualified), _dumps(operation.value))
            for operation in Operation
        }

    def put(self, pieces: list[bytes], end: bytes, operation: Operation, before: Row | None, after: Row | None) -> None:
        """Append one change's line; `end` is that of a line with nothing unchanged."""
        head = self._heads[operation]
        if after is None:
            if before is None:
                pieces += (head, b'null,"before":null,"after":null', end)
            else:
                key = self.key(before)
                pieces += (head, key, b',"before":', self._before(before, before, key), b',"after":null', end)
            return
        key = self.key(after)
        if before is None:
            pieces += (head, key, b',"before":null,"after":')
        else:
            pieces += (head, key, b',"before":', self._before(before, after, key), b',"after":')
        made = self._object(after)
        if made is None:
            pieces += (self.row(after), b',"unchanged":', _dumps(self._unchanged(after)), end[len(_ALL) :])
        else:
            pieces += (_dumps(made), end)

    def _before(self, before: Row, after: Row, key: bytes) -> bytes:
        """Return the row before; often the log carried its key alone, the same as after."""
        if self._rest is None or self._rest(before) == self._no_rest:
            for index in self._key_at:
                if before[index] is _missing or before[index] != after[index]:
                    break
            else:
                return key if self._key_at else b"{}"
        return self.row(before)

    def key(self, row: Row) -> bytes:
        """Return the key columns of a row as an object; `null` when the table has no key."""
        key_at = self._key_at
        if not key_at:
            return b"null"
        if self._key_head:
            value = row[key_at[0]]
            if type(value) is int or type(value) is str:
                return self._key_head + _dumps(value) + b"}"
        at = set(key_at)
        return self.row(tuple([value if index in at else _missing for index, value in enumerate(row)]))

    def row(self, row: Row) -> bytes:
        """Return the carried columns of a row as an object."""
        made = self._object(row)
        if made is not None:
            return _dumps(made)
        made = {}
        for index, value in enumerate(row):
            if value is not _missing:
                convert = self._converters.get(index) if value is not None else None
                made[self._names[index]] = value if convert is None else convert(value)
        return _dumps(made)

    def _unchanged(self, row: Row) -> list[str]:
        return [name for name, value in zip(self._names, row, strict=True) if value is _missing]


def _maker(
    names: Sequence[str], converters: Mapping[int, Callable[[Value], Any]]
) -> Callable[[Row], dict[str, Any] | None]:
    """Return a function from a row to its object, None when a value of it is UNCHANGED.

    It is written for the columns, as the standard library writes a dataclass's `__init__`: a display of known keys
    costs half of `dict(zip(..))`, which is what a line costs most.
    """
    values = [f"v{index}" for index in range(len(names))]
    fields = [
        f"{name!r}: {value if index not in converters else f'None if {value} is None else convert{index}({value})'}"
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    lines = [
        "def made(row):",
        f"    {', '.join(values)}, = row" if values else "    pass",
        f"    if {' or '.join([f'{value} is missing' for value in values]) or False}:",
        "        return None",
        f"    return {{{', '.join(fields)}}}",
    ]
    scope: dict[str, Any] = {"missing": _missing, **{f"convert{at}": each for at, each in converters.items()}}
    exec("\n".join(lines), scope)  # noqa: S102  names come in as literals alone
    made: Callable[[Row], dict[str, Any] | None] = scope["made"]
    return made


_NOTHING: Final = Plan.__new__(Plan)


def _name(name: str) -> bytes:
    return _dumps(name)


def commit_time(time_us: int) -> str:
    """Return microseconds since 1970 UTC in ISO 8601."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _other(item: Item, tail: bytes) -> bytes:
    """Return the line of an item that is not a row."""
    if isinstance(item, CopyStart):
        fields: dict[str, Any] = {"table": item.table.qualified, "operation": "copy", "again": item.again}
    elif isinstance(item, SchemaChange):
        fields = _schema(item)
    else:
        content = b64encode(cast("Message", item).content).decode()
        fields = {"table": None, "operation": "message", "prefix": cast("Message", item).prefix, "content": content}
    return _dumps(fields)[:-1] + tail


def _schema(item: SchemaChange) -> dict[str, Any]:
    table = item.new or item.old
    columns = item.new.columns if item.new else ()
    return {
        "table": table.qualified if table else None,
        "operation": "schema",
        "columns": [{"name": column.name, "type": column.type.name or column.type.kind.value} for column in columns],
        "key": list(item.new.key) if item.new else [],
        "statement": item.statement,
    }


def _converter(kind: Type, *, exact: bool) -> Callable[[Value], Any] | None:
    """Return what turns a value that orjson does not write as this module says."""
    if kind.kind in {Kind.BYTES, Kind.GEOMETRY}:
        return _from_bytes
    if kind.kind is Kind.FLOAT:
        return _from_float
    if kind.kind is Kind.JSON:
        return None if exact else _from_json
    if kind.kind is Kind.ARRAY:
        element = _converter(kind.element, exact=exact) if kind.element else None
        return partial(_from_array, element)
    return None


def _from_bytes(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _from_float(value: float) -> float | str:
    if value - value == 0:
        return value
    if value != value:  # noqa: PLR0124  only NaN is not itself
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _from_json(value: str) -> orjson.Fragment:
    """Pass the server's own text on; a line break can only be white space in it."""
    if "\n" in value or "\r" in value:
        value = value.replace("\n", " ").replace("\r", " ")
    return orjson.Fragment(value)


def _from_array(element: Callable[[Value], Any] | None, values: tuple[Value, ...]) -> list[Any] | dict[str, Any]:
    if type(values) is BoundedArray:
        return {"bounds": values.bounds, "values": _from_array(element, tuple(values))}
    return [
        _from_array(element, value)
        if isinstance(value, tuple)
        else (value if value is None or element is None else element(value))
        for value in values
    ]


def encode_row(table: Table, row: Row) -> bytes:
    """Return a row as an object that `decode_row` gives back exactly: a JSON column is a string, its text."""
    return _exact_plan(table).row(row)


def encode_key(table: Table, row: Row) -> str | None:
    """Return a row's key as text, the same for equal keys; None when the table has none."""
    return _exact_plan(table).key(row).decode() if table.key else None


_exact_plans: dict[Table, Plan] = {}
_EXACT_PLANS_MAX: Final = 1000


def _exact_plan(table: Table) -> Plan:
    plan = _exact_plans.get(table)
    if plan is None:
        plan = Plan(table, exact=True)
        if len(_exact_plans) >= _EXACT_PLANS_MAX:
            _exact_plans.clear()
        _exact_plans[table] = plan
    return plan


def decode_row(table: Table, text: bytes | str) -> Row:
    """Return the neutral row that `encode_row` wrote; columns absent from it are UNCHANGED."""
    fields: Mapping[str, Any] = orjson.loads(text)
    return tuple(
        _decode(column.type, fields[column.name]) if column.name in fields else UNCHANGED for column in table.columns
    )


def _decode(kind: Type, value: Any) -> Value:
    if value is None:
        return None
    if kind.kind in {Kind.BYTES, Kind.GEOMETRY}:
        return b64decode(value)
    if kind.kind is Kind.FLOAT:
        return float(value)
    if kind.kind is Kind.SET:
        return tuple(value)
    if kind.kind is Kind.ARRAY:
        return _decode_array(kind.element, value)
    return value


def _decode_array(element: Type | None, values: list[Any] | dict[str, Any]) -> tuple[Value, ...]:
    if isinstance(values, dict):
        return BoundedArray.of(_decode_array(element, values["values"]), tuple(values["bounds"]))
    return tuple(
        _decode_array(element, value) if isinstance(value, list) else (_decode(element, value) if element else value)
        for value in values
    )
