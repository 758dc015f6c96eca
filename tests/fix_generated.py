"""Generated expressions over a table of every type, each in our words and in DuckDB's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fix_duckdb import COUNTERPARTS

from cdcsync.change import Column, Table
from cdcsync.mapping.expressions import kinds
from cdcsync.mapping.expressions.registry import ANY, SAME, Function, library
from cdcsync.types import Kind, Type

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

COLUMNS: Final[dict[str, tuple[Type, str]]] = {
    "i": (kinds.INTEGER, "bigint"), "j": (kinds.INTEGER, "bigint"),
    "d": (Type(Kind.DECIMAL, precision=12, scale=2), "decimal(12,2)"),
    "e": (Type(Kind.DECIMAL, precision=10, scale=3), "decimal(10,3)"),
    "f": (kinds.FLOAT, "double"), "g": (kinds.FLOAT, "double"),
    "s": (kinds.TEXT, "varchar"), "t": (kinds.TEXT, "varchar"),
    "b": (kinds.BOOLEAN, "boolean"), "c": (kinds.BOOLEAN, "boolean"),
    "y": (kinds.DATE, "date"), "z": (kinds.DATE, "date"),
    "p": (kinds.TIMESTAMP, "timestamp"), "q": (kinds.TIMESTAMP, "timestamp"),
    "w": (kinds.TIMESTAMPTZ, "timestamptz"), "x": (kinds.TIMESTAMPTZ, "timestamptz"),
    "a": (kinds.array_of(kinds.TEXT), "varchar[]"), "n": (kinds.JSON, "json"),
    "h": (kinds.UUID, "uuid"), "k": (kinds.BYTES, "blob"), "m": (kinds.TIME, "time"), "u": (kinds.INTERVAL, "interval"),
    "o": (Type(Kind.INTEGER, bits=16), "smallint"), "r": (Type(Kind.FLOAT, bits=32), "real"),
    "v": (Type(Kind.TEXT, length=5), "varchar(5)"), "l": (kinds.array_of(kinds.INTEGER), "bigint[]"),
}  # fmt: skip
WIDENED: Final = {"o": "cast(o as bigint)", "r": "cast(r as double)"}
"""Columns that are computed with as wider than they are, in DuckDB's words."""
TABLE: Final = Table("", "t", tuple(Column(name, kind) for name, (kind, _) in COLUMNS.items()))
VALUES: Final[dict[Kind, list[Any]]] = {
    Kind.INTEGER: [0, 1, -1, 2, 3, -7, 10, 17, 100, -12345, 1_000_003],
    Kind.DECIMAL: ["0.00", "1.00", "-1.50", "2.25", "12.34", "-0.05", "99.99", "1234.50", "0.50", "-2.50"],
    Kind.FLOAT: [0.0, 1.0, -1.0, 0.5, 2.5, -3.75, 1e10, 0.1, 123.456, 1e-7],
    Kind.TEXT: ["", "a", "abc", "Hello World", "x-y-z", "Äé ñ", "12", "  pad ", "a.b.c", "aaa", "%_", "2026-01-31", "日本"],
    Kind.BOOLEAN: [True, False],
    Kind.DATE: ["2026-11-23", "2024-02-29", "1999-12-31", "2000-01-01", "1970-01-01", "2026-01-05"],
    Kind.TIMESTAMP: ["2026-11-23T10:30:00", "2024-02-29T23:59:59.5", "1999-12-31T00:00:00", "2000-01-01T00:00:00.000001"],
    Kind.TIMESTAMPTZ: ["2026-11-23T10:30:00Z", "2026-07-01T23:59:59.5Z", "1999-12-31T00:00:00Z"],
    Kind.ARRAY: [(), ("a",), ("a", "b", "a"), ("x", None)],
    Kind.JSON: ['{"a":1,"b":{"c":"x"},"l":[1,2,"z"]}', '{"a":null,"b":2}', "[1,2]", '"text"', '{"a":"abc"}'],
    Kind.UUID: ["0f8fad5b-d9cb-469f-a165-70867728950e", "7c9e6679-7425-40de-944b-e07fc1f90ae7"],
    Kind.BYTES: [b"", b"\x00", b"abc", b"\xff\x00\x0a", "Äé".encode()],
    Kind.TIME: ["10:30:00", "23:59:59.5", "00:00:00", "00:00:00.000001"],
    Kind.INTERVAL: ["P1D", "P1M", "PT2H30M", "P1Y2M3D", "P-1M", "PT0.5S"],
}  # fmt: skip
NUMBERS_LISTED: Final[list[Any]] = [(), (1,), (3, 2, 3), (7, None)]
"""Values of the array of integers."""
SHORT: Final[list[Any]] = [0.0, 1.0, 0.5, -3.75, 1e10]
"""Values of the narrow float: those that are the same in binary and in their shortest text."""
INTERVALS: Final = {"P1D": "1 day", "P1M": "1 month", "PT2H30M": "2 hours 30 minutes", "P1Y2M3D": "14 months 3 days",
                    "P-1M": "-1 month", "PT0.5S": "0.5 seconds"}  # fmt: skip
"""The same in DuckDB's words."""
TYPED: Final = {
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.TIMESTAMP: "timestamp",
    Kind.TIMESTAMPTZ: "timestamptz",
    Kind.UUID: "uuid",
}
NUMBERS: Final = (Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT)
LITERALS: Final[dict[str, list[str]]] = {
    "date_trunc": ["year", "quarter", "month", "week", "day", "hour", "minute", "second"],
    "date_diff": ["year", "quarter", "month", "day", "hour", "minute", "second"],
    "strftime": ["%Y-%m-%d", "%d.%m.%y %H:%M:%S", "%j %b %a", "%f", "%I %p"],
    "timezone": ["Europe/Berlin", "America/New_York", "UTC", "Asia/Kolkata"],
    "regexp_matches": ["a+", "^[a-z]+$", "b|c", "[0-9]"],
    "regexp_extract": ["(a+)", "([a-z])-([a-z])", "(.)"],
    "regexp_replace": ["a", "[a-z]", "(.)-"],
    "regexp_substr": ["(a+)", "([a-z])-([a-z])", "(.)", "([0-9])+"],
    "encode": ["hex", "base64"],
    "decode": ["hex", "base64"],
}
ARGUMENTS: Final[dict[tuple[str, int], list[str]]] = {
    ("make_date", 0): ["2026", "1999", "2024", "9999"], ("make_date", 1): ["1", "2", "12", "13"], ("make_date", 2): ["1", "29", "31", "0"],
    ("split_part", 1): ["'-'", "'.'", "'a'", "' '"], ("split_part", 2): ["1", "2", "-1", "7"],
    ("width_bucket", 1): ["0.0", "-5.5"], ("width_bucket", 2): ["100.0", "12.5", "-7.5"], ("width_bucket", 3): ["1", "4", "10"],
    ("round", 1): ["0", "1", "2", "-1"], ("trunc", 1): ["0", "1", "2", "-1"], ("truncate", 1): ["0", "1", "2", "-1"],
    ("chr", 0): ["65", "233", "26085", "9"], ("mask", 1): ["0", "1", "-2", "3"], ("mask", 2): ["0", "2", "4"],
    ("mask", 3): ["'*'", "'xy'", "''"], ("hmac_sha256", 1): ["secret('pii')"],
    ("decode", 0): ["''", "'0aff'", "'Cv8='", "'AAAA'", "'zz'"],
    ("string_to_array", 1): ["'-'", "'.'", "''", "', '"], ("array_to_string", 1): ["'-'", "''", "', '"],
    ("json_object", 0): ["'k'"], ("json_object", 2): ["'l'"], ("json_has_key", 1): ["'a'", "'c'", "s"], ("to_timestamp", 0): ["d", "e", "1795429845.123456", "-0.5"],
}  # fmt: skip
"""What stands for an argument where any value of its kind would hardly ever fit."""
ANYTHING: Final = [Kind.TEXT, Kind.INTEGER, Kind.BOOLEAN, Kind.DATE, Kind.UUID, Kind.JSON, Kind.FLOAT]
"""Kinds of what becomes JSON: those that both write alike."""
Pair = tuple[str, str]
"""One expression in our words and in DuckDB's."""


def rows(dice: random.Random, count: int) -> list[tuple[Any, ...]]:
    """Return rows; a fifth of the values are null."""
    own = {"l": NUMBERS_LISTED, "r": SHORT}
    known = [own.get(column.name, VALUES[column.type.kind]) for column in TABLE.columns]
    return [tuple(None if dice.random() < 0.2 else dice.choice(values) for values in known) for _ in range(count)]


@dataclass
class Generator:
    """Makes expressions of a wanted kind."""

    dice: random.Random
    by_return: dict[Kind, list[Function]] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)
    """How often each function was called, by signature."""

    def __post_init__(self) -> None:
        for overloads in library().values():
            for function in overloads:
                kind = Kind.TEXT if function.returns == SAME else function.returns.kind
                self.by_return.setdefault(kind, []).append(function)

    def make(self, kind: Kind, depth: int) -> Pair:
        """Return an expression of a kind."""
        if depth <= 0 or self.dice.random() < 0.15:
            return self.leaf(kind)
        ways: list[Callable[[Kind, int], Pair]] = [self.call, self.call, self.choice, self.operator, self.cast]
        return self.dice.choice(ways)(kind, depth)

    def leaf(self, kind: Kind) -> Pair:
        """Return a column or a constant."""
        names = [name for name, (given, _) in COLUMNS.items() if given.kind is kind and name != "l"]
        if names and self.dice.random() < 0.75:
            name = self.dice.choice(names)
            return name, WIDENED.get(name, name)
        if kind is Kind.INTERVAL:
            unit = self.dice.choice(["day", "month", "hour", "minute", "year"])
            return (text := f"interval '{self.dice.randint(1, 40)} {unit}'"), text
        value = self.dice.choice(VALUES[kind])
        if kind is Kind.ARRAY:
            text = ", ".join("null" if item is None else f"'{item}'" for item in value)
            return (text := f"cast(array[{text}] as text[])" if value else "a"), text
        if kind in (Kind.INTEGER, Kind.DECIMAL):
            return (text := f"({value})" if str(value)[0] == "-" else str(value)), text
        if kind is Kind.FLOAT:
            return (text := f"cast({value!r} as double precision)"), text
        if kind is Kind.BOOLEAN:
            return (text := str(value).lower()), text
        quoted = "'" + str(value).replace("'", "''") + "'"
        if kind is Kind.BYTES:
            return f"decode('{value.hex()}', 'hex')", f"from_hex('{value.hex()}')"
        if kind is Kind.JSON:
            return f"cast({quoted} as json)", f"cast({quoted} as json)"
        text = f"{TYPED[kind]} {quoted}" if kind in TYPED else quoted
        return text, text

    def call(self, kind: Kind, depth: int) -> Pair:
        """Return a call of a function of the library."""
        functions = self.by_return.get(kind)
        if not functions:
            return self.choice(kind, depth)
        return self.call_of(self.dice.choice(functions), depth)

    def call_of(self, function: Function, depth: int) -> Pair:
        """Return a call of this function."""
        self.made[function.signature] += 1
        words = COUNTERPARTS.get(function.signature, function.duckdb)
        parameters = list(function.parameters)
        if function.variadic:
            parameters += [parameters[-1]] * self.dice.randint(0, 2)
        if function.name == "json_object":
            parameters = parameters[:1] * self.dice.choice([2, 4])
        while parameters and parameters[-1].optional and self.dice.random() < 0.5:
            parameters.pop()
        numbers = function.returns.kind in (Kind.INTEGER, Kind.BOOLEAN) and self.dice.random() < 0.4
        pairs = [
            self.of_numbers(parameter.type, depth)
            if numbers and SAME in (parameter.type, parameter.type.element)
            else self.argument(function, at, depth)
            for at, parameter in enumerate(parameters)
        ]
        ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if not words:
            return f"{function.name}({', '.join(ours)})", f"{function.name}({', '.join(theirs)})"
        while len(theirs) < len(function.parameters):
            default = function.parameters[len(theirs)].default
            theirs.append(f"'{default}'" if isinstance(default, str) else str(default))
        name = "position" if function.name == "position" else function.name
        text = f"position({ours[1]} in {ours[0]})" if name == "position" else f"{name}({', '.join(ours)})"
        return text, words.format(*theirs)

    def of_numbers(self, kind: Type, depth: int) -> Pair:
        """Return the array of integers, or an integer that may be in it."""
        return ("l", "l") if kind.kind is Kind.ARRAY else self.make(Kind.INTEGER, depth - 1)

    def argument(self, function: Function, at: int, depth: int) -> Pair:
        """Return an argument of a call."""
        parameter = function.parameters[min(at, len(function.parameters) - 1)]
        if parameter.literal:
            known = LITERALS.get(function.name, [""])
            if parameter.type.kind is Kind.INTEGER:
                text = str(self.dice.choice([0, 1]))
            elif parameter.name == "flags":
                text = "'g'" if function.name == "regexp_replace" else "'i'"
            else:
                text = "'#'" if parameter.name == "replacement" else f"'{self.dice.choice(known)}'"
            return text, text
        known_values = ARGUMENTS.get((function.name, at))
        if known_values is not None:
            text = self.dice.choice(known_values)
            return text, text
        kind = parameter.type.kind
        if parameter.type in (SAME, ANY):
            kind = Kind.TEXT if parameter.type == SAME else self.dice.choice(ANYTHING)
        if kind is Kind.INTEGER and function.name in ("repeat", "lpad", "rpad", "left", "right", "substring", "chr"):
            text = str(self.dice.choice([0, 1, 2, 3, 5] if function.name == "substring" else [-2, 0, 1, 2, 3, 5]))
            return text, text
        return self.make(kind, depth - 1)

    def choice(self, kind: Kind, depth: int) -> Pair:
        """Return CASE, COALESCE or NULLIF."""
        first, second = self.make(kind, depth - 1), self.make(kind, depth - 1)
        way = self.dice.randrange(3)
        if way == 0 or kind in (Kind.JSON, Kind.INTERVAL, Kind.ARRAY, Kind.BYTES, Kind.TIME):
            test = self.make(Kind.BOOLEAN, depth - 1)
            return _each("case when {0} then {1} else {2} end", test, first, second)
        return _each("coalesce({0}, {1})" if way == 1 else "nullif({0}, {1})", first, second)

    def operator(self, kind: Kind, depth: int) -> Pair:
        """Return an operator's expression."""
        if kind is Kind.BOOLEAN:
            return self.condition(depth)

        def make(wanted: Kind) -> Pair:
            return self.make(wanted, depth - 1)

        if kind in NUMBERS:
            symbol = self.dice.choice(["+", "-", "*", "/", "%"] if kind is Kind.INTEGER else ["+", "-", "*"])
            sides = make(kind), make(kind)
            theirs = "({0} // {1})" if symbol == "/" else f"({{0}} {symbol} {{1}})"
            return _each(f"({{0}} {symbol} {{1}})", *sides)[0], _each(theirs, *sides)[1]
        if kind is Kind.TEXT and self.dice.random() < 0.5:
            return _each("({0} || {1})", make(kind), make(kind))
        if kind is Kind.TEXT:
            step = self.dice.choice(["'a'", "'b'", "'l'", "0"])
            return _each(f"({{0}} ->> {step})", make(Kind.JSON))
        if kind in (Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
            return _each(f"({{0}} {self.dice.choice('+-')} {{1}})", make(kind), self.leaf(Kind.INTERVAL))
        if kind is Kind.DATE:
            days = str(self.dice.randint(0, 400))
            return _each(f"({{0}} {self.dice.choice('+-')} {days})", make(kind))
        return self.leaf(kind)

    def condition(self, depth: int) -> Pair:
        """Return a condition."""
        way = self.dice.randrange(9)
        if way < 2:
            sides = self.make(Kind.BOOLEAN, depth - 1), self.make(Kind.BOOLEAN, depth - 1)
            return _each(f"({{0}} {self.dice.choice(['and', 'or'])} {{1}})", *sides)
        if way == 2:
            return _each("(not {0})", self.make(Kind.BOOLEAN, depth - 1))
        kind = self.dice.choice(
            [*NUMBERS, Kind.TEXT, Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.UUID, Kind.BOOLEAN, Kind.BYTES,
             Kind.TIME, Kind.INTERVAL]
        )  # fmt: skip
        first, second, third = (self.make(kind, depth - 1) for _ in range(3))
        if way == 3:
            return _each(f"({{0}} is {self.dice.choice(['', 'not '])}null)", first)
        if way == 4:
            return _each(f"({{0}} {self.dice.choice(['', 'not '])}between {{1}} and {{2}})", first, second, third)
        if way == 5:
            return _each(f"({{0}} {self.dice.choice(['', 'not '])}in ({{1}}, {{2}}))", first, second, third)
        if way == 6:
            pattern = self.dice.choice(["a%", "%a", "%b%", "_b%", "a", "%", "%_", "A%"])
            word = self.dice.choice(["like", "not like", "ilike"])
            return _each(f"({{0}} {word} '{pattern}')", self.make(Kind.TEXT, depth - 1))
        if way == 7:
            return _each(f"({{0}} is {self.dice.choice(['', 'not '])}distinct from {{1}})", first, second)
        return _each(f"({{0}} {self.dice.choice(['=', '<>', '<', '<=', '>', '>='])} {{1}})", first, second)

    def cast(self, kind: Kind, depth: int) -> Pair:
        """Return a cast to the kind, from one that has the same text in both."""
        ways: dict[Kind, list[tuple[Kind, str]]] = {
            Kind.INTEGER: [(Kind.DECIMAL, "bigint"), (Kind.BOOLEAN, "bigint"), (Kind.TEXT, "bigint")],
            Kind.DECIMAL: [(Kind.INTEGER, "decimal(20,2)"), (Kind.DECIMAL, "decimal(18,1)"), (Kind.TEXT, "decimal(10,2)")],
            Kind.FLOAT: [(Kind.INTEGER, "double precision"), (Kind.DECIMAL, "double precision")],
            Kind.TEXT: [(Kind.INTEGER, "text"), (Kind.BOOLEAN, "text"), (Kind.DATE, "text"), (Kind.TIMESTAMP, "text"), (Kind.UUID, "text")],
            Kind.DATE: [(Kind.TIMESTAMP, "date"), (Kind.TEXT, "date")],
            Kind.TIMESTAMP: [(Kind.DATE, "timestamp")],
            Kind.TIME: [(Kind.TIMESTAMP, "time")],
            Kind.UUID: [(Kind.UUID, "uuid"), (Kind.TEXT, "uuid")],
        }  # fmt: skip
        if kind not in ways:
            return self.choice(kind, depth)
        given, name = self.dice.choice(ways[kind])
        word = "try_cast" if given is Kind.TEXT and self.dice.random() < 0.7 else "cast"
        return _each(f"{word}({{0}} as {name})", self.make(given, depth - 1))


def _each(form: str, *parts: Pair) -> Pair:
    return form.format(*(part[0] for part in parts)), form.format(*(part[1] for part in parts))
