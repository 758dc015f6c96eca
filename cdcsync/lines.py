"""A change as one line of JSON: what the jsonl sink, the dead letters and `tail` write.

Line: `table, operation, key, before, after, unchanged, commit_time, transaction, position, version`. Values:
integers are numbers, decimals strings, bytes base64, dates and times ISO 8601, JSON columns JSON, arrays JSON
arrays (`{"bounds": [0], "values": [..]}` where lower bounds are not 1), NaN and infinite floats strings. `unchanged`
names the columns of `after` that the log did not carry; they are absent from it, as those not carried in `before`
are absent from that.
A truncate has no rows. Other items have lines of their own, with these operations and fields beside `table` and
the transaction's: `copy` (`again`), `schema` (`columns`, `key`, `statement`), `message` (`prefix`, `content`), `unreadable`
(`reason`).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from cdcsync.change import UNCHANGED, Change, CopyStart, Operation, SchemaChange, Unreadable
from cdcsync.reads import Reads
from cdcsync.types import BoundedArray, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdcsync.change import Item, Message, Row, Table, Transaction, Value
    from cdcsync.types import Type

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_dumps: Final = orjson.dumps
_fragment: Final = orjson.Fragment
_missing: Final = UNCHANGED
_READ: Final = Operation.READ
_ALL: Final = b"[]"
_NEWLINE: Final = orjson.OPT_APPEND_NEWLINE


class Lines:
    """Encodes changes, with one plan per table version. Not for several threads at once."""

    def __init__(self) -> None:
        self._plans: dict[Table, Plan] = {}
        self._table: Table | None = None
        self._last = _NOTHING
        """Plan of the table asked for last; to find one costs more than a line's share of most other things."""
        self._second = -1
        self._second_text = b""

    def encode(self, transaction: Transaction) -> bytes:
        """Return the lines of all items in order, each with its newline."""
        text = bytearray()
        self.put(text, transaction)
        return bytes(text)

    def put(self, text: bytearray, transaction: Transaction) -> None:
        """Append the same lines. Small texts that live on cost more than writing them: none is kept."""
        end = self._tail(transaction)
        tail = _fragment(end)
        if type(transaction.items) is Reads:
            plan = self._plan(transaction.items.table)
            for row in transaction.items.rows:
                text += _dumps(plan.line(end, tail, _READ, None, row), None, _NEWLINE)
            return
        for item in transaction.items:
            if type(item) is not Change:
                text += _other(item, end)
                continue
            of, operation, before, after = item
            plan = self._last if of is self._table else self._plan(of)
            text += _dumps(plan.line(end, tail, operation, before, after), None, _NEWLINE)

    def _tail(self, transaction: Transaction) -> bytes:
        """Return what all lines of the transaction end with; commits of one second share its text.

        It stands where the value of the last key does.
        """
        second = transaction.commit_time_us // 1_000_000
        if second != self._second:
            self._second = second
            self._second_text = commit_time(second * 1_000_000)[: -len(".000000Z")].encode()
        return b'[],"commit_time":"%b.%06dZ","transaction":%b,"position":%b,"version":%d' % (
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
        self._table, self._last = table, plan
        return plan


class Plan:
    """How the rows of one table version are written."""

    def __init__(self, table: Table, *, exact: bool = False) -> None:
        names = tuple(column.name for column in table.columns)
        self._names = names
        self._converters = {
            index: converter
            for index, column in enumerate(table.columns)
            if (converter := _converter(column.type, exact=exact)) is not None
        }
        makers = Makers(names, self._converters)
        self._line = makers.line_maker(table.key_at)
        """Builds a line's object of a whole row; None when a value was not carried."""
        self._whole = makers.maker(range(len(names)))
        self._key = makers.maker(table.key_at)
        self._has_key = bool(table.key_at)
        self._key_at = frozenset(table.key_at)
        rest = [index for index in range(len(names)) if index not in table.key_at]
        self._rest = itemgetter(*rest) if rest else None
        """Picks the columns beside the key."""
        self._no_rest = (_missing,) * len(rest) if len(rest) > 1 else _missing
        """What it gives of a row whose key alone was carried."""
        self._heads = {
            operation: _fragment(b'%s,"operation":%s' % (_dumps(table.qualified), _dumps(operation.value)))
            for operation in Operation
        }

    def line(
        self, end: bytes, tail: Any, operation: Operation, before: Row | None, after: Row | None
    ) -> dict[str, Any]:
        """Return one change's line as an object; `tail` writes `end`, that of a line with nothing unchanged."""
        head = self._heads[operation]
        was = None if before is None else self._before(before)
        if after is None:
            key = None if before is None else self.key_object(before)
            return {"table": head, "key": key, "before": was, "after": None, "unchanged": tail}
        made = self._line(head, was, after, tail)
        if made is not None:
            return made
        unchanged = _fragment(_dumps(self._unchanged(after)) + end[len(_ALL) :])
        carried, key = self._carried(after), self.key_object(after)
        return {"table": head, "key": key, "before": was, "after": carried, "unchanged": unchanged}

    def _before(self, before: Row) -> dict[str, Any]:
        """Return the row before; often the log carried its key alone."""
        if self._has_key and (self._rest is None or self._rest(before) == self._no_rest):
            made = self._key(before)
        else:
            made = self._whole(before)
        return self._carried(before) if made is None else made

    def key_object(self, row: Row) -> dict[str, Any] | None:
        """Return the key columns of a row that were carried; None when the table has no key."""
        if not self._has_key:
            return None
        made = self._key(row)
        if made is None:
            key_at = self._key_at
            made = self._carried(tuple([value if index in key_at else _missing for index, value in enumerate(row)]))
        return made

    def row(self, row: Row) -> bytes:
        """Return the carried columns of a row as an object."""
        made = self._whole(row)
        return _dumps(self._carried(row) if made is None else made)

    def _carried(self, row: Row) -> dict[str, Any]:
        made = {}
        for index, value in enumerate(row):
            if value is not _missing:
                convert = self._converters.get(index) if value is not None else None
                made[self._names[index]] = value if convert is None else convert(value)
        return made

    def _unchanged(self, row: Row) -> list[str]:
        return [name for name, value in zip(self._names, row, strict=True) if value is _missing]


class Makers:
    """Writes functions for one table's columns, as the standard library writes a dataclass's `__init__`.

    A display of known keys costs half of `dict(zip(..))`. Each returns None when a value it needs is UNCHANGED.
    """

    def __init__(self, names: Sequence[str], converters: Mapping[int, Callable[[Value], Any]]) -> None:
        self._names = names
        self._converters = converters
        self._unpack = f"{', '.join(f'v{index}' for index in range(len(names)))}, = row" if names else "pass"

    def maker(self, columns: Sequence[int]) -> Callable[[Row], dict[str, Any] | None]:
        """Return a function from a row to the object of these columns."""
        return self._made("row", columns, self._display(columns))

    def line_maker(self, key_at: Sequence[int]) -> Callable[[Any, Any, Row, Any], dict[str, Any] | None]:
        """Return a function from head, object before, row and tail to the object of a line."""
        every = range(len(self._names))
        key = self._display(key_at) if key_at else "None"
        display = f'{{"table": head, "key": {key}, "before": was, "after": {self._display(every)}, "unchanged": tail}}'
        return self._made("head, was, row, tail", every, display)

    def _display(self, columns: Sequence[int]) -> str:
        fields = (f"{self._names[index]!r}: {self._value(index)}" for index in columns)
        return f"{{{', '.join(fields)}}}"

    def _value(self, index: int) -> str:
        return f"(None if v{index} is None else convert{index}(v{index}))" if index in self._converters else f"v{index}"

    def _made(self, parameters: str, needed: Sequence[int], display: str) -> Callable[..., dict[str, Any] | None]:
        missing = " or ".join(f"v{index} is missing" for index in needed) or "False"
        text = (
            f"def made({parameters}):\n    {self._unpack}\n    if {missing}:\n        return None\n    return {display}"
        )
        scope: dict[str, Any] = {"missing": _missing, **{f"convert{at}": each for at, each in self._converters.items()}}
        exec(text, scope)  # noqa: S102  names come in as literals alone
        made: Callable[..., dict[str, Any] | None] = scope["made"]
        return made


_NOTHING: Final = Plan.__new__(Plan)


def commit_time(time_us: int) -> str:
    """Return microseconds since 1970 UTC in ISO 8601."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _other(item: Item, end: bytes) -> bytes:
    """Return the line of an item that is not a row."""
    if isinstance(item, CopyStart):
        fields: dict[str, Any] = {"table": item.table.qualified, "operation": "copy", "again": item.again}
    elif isinstance(item, SchemaChange):
        fields = _schema(item)
    elif isinstance(item, Unreadable):
        fields = {"table": item.table.qualified, "operation": "unreadable", "reason": item.reason}
    else:
        content = b64encode(cast("Message", item).content).decode()
        fields = {"table": None, "operation": "message", "prefix": cast("Message", item).prefix, "content": content}
    return _dumps(fields)[:-1] + end[len(_ALL) :] + b"}\n"


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
    return _dumps(_exact_plan(table).key_object(row)).decode() if table.key else None


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
