"""Claims about SQL expressions: what they come to, what they refuse, and what bounds them."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import pytest
from fix_expressions import ORDERS, ROW, evaluated, program, written

from cdcsync.change import UNCHANGED
from cdcsync.mapping.expressions import Failure, Fault, Scope, parsed
from cdcsync.mapping.expressions.program import Faults, value_function, why
from cdcsync.mapping.expressions.registry import Function, library
from cdcsync.mapping.failures import FAILURES

EVERY = [function for overloads in library().values() for function in overloads]


@pytest.mark.parametrize("function", EVERY, ids=lambda function: function.signature)
def test_the_example_of_every_function_comes_to_what_the_reference_says(function: Function) -> None:
    text, want = function.example

    assert written(evaluated(text)) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("price * quantity", "7.50"),
        ("price * quantity + 0.1", "7.60"),
        ("quantity / 2", 1),
        ("cast('{0F8fad5bd9cb469fa16570867728950E}' as uuid)", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("try_cast(name || '0f8fad5bd9cb469fa16570867728950e' as uuid)", None),
        ("try_cast(left(name, 0) || '0f8fad5bd9cb469fa16570867728950e}' as uuid)", None),
        ("-7 / 2", -3),
        ("price / 3", "0.83333333333333333333"),
        ("weight * 2", 1.0),
        ("price = 2.5", True),
        ("case when quantity > 5 then 'many' when quantity > 2 then 'some' else 'few' end", "some"),
        ("case quantity when 3 then 'three' end", "three"),
        ("coalesce(null, name, 'nobody')", "Ann Lee"),
        ("nullif(name, 'Ann Lee')", None),
        ("quantity between 1 and 3", True),
        ("quantity not in (1, 2)", True),
        ("price in (1, 2.5)", True),
        ("name like 'Ann%'", True),
        ("name like '_nn L%e'", True),
        ("name ilike 'ANN%'", True),
        ("'10%' like '10!%' escape '!'", True),
        ("name ~ 'L.e$'", True),
        ("name || '-' || quantity", "Ann Lee-3"),
        ("doc -> 'a' ->> 'b'", "1.50"),
        ("doc -> 'c' -> 1", '"x"'),
        ("doc ->> 'none'", None),
        ("tags[1] || tags[2]", "xy"),
        ("at + interval '1 month 02:00'", "2026-12-23T12:30:00.5Z"),
        ("date '2024-01-31' + interval '1 month'", "2024-02-29T00:00:00"),
        ("day - 1", "2026-11-22"),
        ("day - date '2026-11-20'", 3),
        ("at - interval '1' day", "2026-11-22T10:30:00.5Z"),
        ("at > '2026-11-23'", True),
        ("extract(second from at)", "0.500000"),
        ("at at time zone 'Europe/Berlin'", "2026-11-23T11:30:00.5"),
        ("cast(price as integer)", 3),
        ("'2026-11-23'::date", "2026-11-23"),
        ("cast('12.345' as decimal(6, 2))", "12.35"),
        ("try_cast(name as integer)", None),
        ("name is distinct from null", True),
        ("status = 'new' and paid", True),
        ("(paid and not paid) is false", True),
        ("_operation || _table || _schema", "insertordersshop"),
        ("_commit_time", "2026-11-24T00:00:00Z"),
        ("greatest(quantity, 5, null)", 5),
        ("array[quantity, 1]", (3, 1)),
        ("json_object('price', price, 'doc', doc)", '{"price":2.50,"doc":{"a": {"b": 1.50}, "c": [1, "x"]}}'),
        ('"name"', "Ann Lee"),
        ("NAME", "Ann Lee"),
        ("interval '1 day' * 2", "P2D"),
    ],
)
def test_an_expression_comes_to_its_value(text: str, want: object) -> None:
    assert evaluated(text) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("naem || 'x'", "there is no column naem; did you mean name?|^^^^"),
        ("uper(name)", "there is no function uper; did you mean upper?|^^^^"),
        ("price + name", "there is no decimal(10,2) + text|^^^^^^^^^^^^"),
        ("quantity > 1 and name", "a side of AND has to be true or false, and this is text|                 ^^^^"),
        ("quantity = name", "integer and text do not compare|^^^^^^^^^^^^^^^"),
        ("(select 1)", "a query is not part of an expression here|        ^"),
        ("count(*)", "* is not part of an expression here|      ^"),
        ("sum(price) over ()", "a window is not part of an expression here|^^^^^^^^^"),
        ("1 +", "something is missing after this|  ^"),
        ("name; name", "one expression is wanted|    ^"),
        ("price::date", "there is no cast from decimal(10,2) to date|^^^^^"),
        ("name ~ '('", "not a regular expression (RE2 syntax): missing ): (|       ^^^"),
        ("date_trunc('fortnight', at)", "no such unit|           ^^^^^^^^^^^"),
        ("date '2026-02-30'", "there is no such day or time|     ^^^^^^^^^^^^"),
        ("at at time zone 'Mars'", "no such time zone|                ^^^^^^"),
        ("upper(name, 1)", "upper(text, integer) is none of: upper(text) -> text|^^^^^^^^^^^^^"),
        ("secret('pii')", "a secret cannot be written to a target|^^^^^^^^^^^^"),
        ("_oepration", "there is no column _oepration; did you mean _operation?|^^^^^^^^^^"),
        ("shop.name", "there is no shop here|^^^^^^^^^"),
        ("doc = '1'", "do not compare; take a text out of it by ->>|^^^^^^^^^"),
    ],
)
def test_a_fault_is_told_with_a_caret_under_it(text: str, want: str) -> None:
    message, _, caret = want.partition("|")

    with pytest.raises(Fault) as caught:
        program(text)

    assert message in str(caught.value)
    assert caught.value.caret(text).split("\n")[1][4:].startswith(caret)


def test_every_unknown_name_of_an_expression_is_told() -> None:
    with pytest.raises(Fault, match=r"naem.*prise"):
        program("naem || prise")


def test_every_clash_of_types_in_an_expression_is_told() -> None:
    text = "case when price + name > 1 then upper(quantity) else name || (doc = '1') end"

    with pytest.raises(Faults) as caught:
        program(text)

    told = [(text[fault.start : fault.end], str(fault)[:25]) for fault in caught.value.faults]
    assert told == [
        ("price + name", "there is no decimal(10,2)"),
        ("upper(quantity)", "upper(integer) is none of"),
        ("doc = '1'", "json and text do not compa"[:25]),
    ]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("price::integer", "decimal(10,2) becomes integer of 32 bits: the fraction is rounded away|^^^^^"),
        ("price::decimal(10, 1)", "rounded to 1 digits after the point"),
        ("price::decimal(4, 2)", "a row whose number is larger is rejected"),
        ("id::smallint", "integer of 64 bits becomes integer of 16 bits: a row whose number is larger is rejected"),
        ("id::double precision", "numbers past 53 bits are rounded"),
        ("weight::real", "it is rounded"),
        ("price::double precision", "rounded to binary"),
        ("name::varchar(3)", "it is cut after 3 characters"),
        ("price::decimal(12, 2)", ""),
        ("id::decimal(20)", ""),
        ("quantity::bigint", ""),
        ("round(price)::integer", ""),
        ("name::text", ""),
        ("at::date", ""),
    ],
)
def test_what_a_cast_of_a_column_loses_is_noted(text: str, want: str) -> None:
    message, _, caret = want.partition("|")

    notes = program(text).notes

    assert [message in str(note) for note in notes] == ([True] if want else [])
    assert all(note.caret(text).split("\n")[1][4:].startswith(caret) for note in notes)


def test_a_secret_that_the_pipeline_has_not_is_named() -> None:
    with pytest.raises(Fault, match=r"no secret pij; did you mean pii\?"):
        program("hmac_sha256(name, secret('pij'))", Scope(ORDERS, secrets={"pii": b"x"}))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("quantity / (quantity - 3)", "division by zero"),
        ("cast(name as integer)", "the text is no integer"),
        ("cast(name as decimal(3, 1))", "the text is no number"),
        ("cast(price as decimal(2, 2))", "the number is out of range"),
        ("id * 9223372036854775807", "the result is out of range"),
        ("cast(name as json) ->> 'a'", "the text is no JSON"),
        ("repeat(name, 100000000)", "longer than"),
        ("sqrt(-weight)", "square root"),
        ("day + 100000000", "out of range"),
        ("cast(300 * quantity as smallint) + cast(quantity * 100000 as smallint)", "out of range"),
    ],
)
def test_a_row_that_an_expression_fails_on_is_told_without_its_values(text: str, want: str) -> None:
    made = program(text)

    with pytest.raises(FAILURES) as caught:
        value_function(made, "x")(ROW, None, None)

    said = why(made, caught.value)
    assert want in said
    assert "Ann" not in said


@pytest.mark.parametrize("text", ["name || quantity", "coalesce(name, 'x')", "name is null", "_before.name"])
def test_an_unchanged_input_makes_an_unchanged_value(text: str) -> None:
    row = (*ROW[:3], UNCHANGED, *ROW[4:])

    assert evaluated(text, row, row) is UNCHANGED


def test_a_value_of_the_row_before_is_null_where_there_is_none() -> None:
    assert evaluated("_before.quantity is null") is True
    assert evaluated("quantity > _before.quantity", before=(7, "1", 2, *ROW[3:])) is True


def test_a_branch_that_is_not_taken_is_not_computed() -> None:
    assert evaluated("case when quantity = 3 then 0 else 1 / (quantity - 3) end") == 0
    assert evaluated("quantity = 3 or 1 / (quantity - 3) = 1") is True
    assert evaluated("coalesce(quantity, 1 / (quantity - 3))") == 3


@pytest.mark.parametrize(
    "text", ["(" * 101 + "1" + ")" * 101, "not " * 3000 + "paid", "1" + " + 1" * 5000, "'" + "x" * 20_001]
)
def test_an_expression_that_is_too_large_is_refused(text: str) -> None:
    with pytest.raises(Fault):
        program(text)


LONG = "a" * 200_000
MILLIONS = "repeat(name, 50)"
BOMBS = [
    ("doc -> 'a'", "[" * 100_000 + "]" * 100_000, "deeper than 200 levels"),
    ("doc ->> 'a'", "[" * 100_000 + "]" * 100_000, "deeper than|no JSON"),
    ("doc -> 'a' is null", '{"a":' * 5000, "deeper than 200 levels"),
    ("doc -> 'a'", '{"a": 1e999999999}', "a number in the JSON is out of range"),
    ("doc ->> 'a'", '{"a": 1e-999999999}', "out of range"),
    ("cast(doc as decimal)", "1e999999999", "out of range"),
    ("cast(doc as bigint)", "9" * 100_000, "no JSON"),
    ("replace(replace(name, 'a', repeat('a', 1000)), 'a', repeat('a', 1000))", "{}", "longer than"),
    ("regexp_replace(name, 'a', '" + "x" * 1000 + "', 'g')", "{}", "longer than"),
    (f"{MILLIONS} || {MILLIONS}", "{}", "longer than"),
    (" || ".join(["name"] * 150), "{}", "longer than"),
    (f"concat({MILLIONS}, {MILLIONS})", "{}", "longer than"),
    (f"concat_ws({MILLIONS}, 'a', 'b')", "{}", "longer than"),
    (f"array_to_string(array[{', '.join(['name'] * 500)}], '')", "{}", "longer than"),
    ("mask(name, 0, 0, repeat('x', 100000))", "{}", "longer than"),
    ("lpad(name, 2000000000)", "{}", "longer than"),
    ("rpad(name, 2000000000, 'x')", "{}", "longer than"),
    ("repeat(name, 1000)", "{}", "longer than"),
    (f"json_object('a', {MILLIONS}, 'b', {MILLIONS})", "{}", "JSON would be longer than"),
    (f"json_array({', '.join(['name'] * 500)})", "{}", "JSON would be longer than"),
    (f"to_json(array[{', '.join(['name'] * 500)}])", "{}", "JSON would be longer than"),
]


@pytest.mark.parametrize(("text", "document", "want"), BOMBS, ids=lambda each: each[:30])
def test_a_bomb_fails_on_its_row_before_it_takes_the_memory(text: str, document: str, want: str) -> None:
    made = value_function(program(text), "x")
    row = (*ROW[:3], LONG, *ROW[4:6], document, *ROW[7:])

    tracemalloc.start()
    with pytest.raises(Failure, match=want):
        made(row, None, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 120 << 20


def test_patterns_take_linear_time_and_those_that_would_take_the_memory_are_refused() -> None:
    long = (*ROW[:3], LONG, *ROW[4:])

    assert evaluated("name ~ '(a*)*b'", long) is False
    assert evaluated("regexp_replace(name, 'a', 'b', 'g') = replace(name, 'a', 'b')", long) is True
    with pytest.raises(Fault, match="invalid repetition size"):
        program("name ~ '((a{1000}){1000}){1000}'")


TRUTH: list[Any] = [True, False, None]


def sql(value: Any) -> str:
    """Return a truth value as it is written."""
    return {True: "true", False: "false", None: "cast(null as boolean)"}[value]


def connected(word: str, a: Any, b: Any) -> Any:
    """Return what three-valued logic says."""
    decides = word == "or"
    if decides in (a, b) and (a is decides or b is decides):
        return decides
    return None if a is None or b is None else (a or b if decides else a and b)


@pytest.mark.parametrize(("a", "b"), list(itertools.product(TRUTH, TRUTH)))
def test_logic_has_three_values_over_columns_and_constants_alike(a: Any, b: Any) -> None:
    row = (*ROW[:3], None if b is None else ("t" if b else "f"), *ROW[4:7], a, *ROW[8:])
    second = "(name = 't')"

    for word in ("and", "or"):
        want = connected(word, a, b)
        assert evaluated(f"paid {word} {second}", row) is want
        assert evaluated(f"{sql(a)} {word} {sql(b)}", row) is want
        assert evaluated(f"not (paid {word} {second})", row) is (None if want is None else not want)
        assert evaluated(f"case when paid {word} {second} then 1 else 0 end", row) == int(want is True)
        assert evaluated(f"case when not (paid {word} {second}) then 1 else 0 end", row) == int(want is False)


def test_the_tree_is_made_of_listed_parts_alone() -> None:
    for text in ("a -- b\n; drop table x", "exists(select 1)", "$1", ":name", "a := 1", "row(1, 2)", "@x", "a.b.c.d"):
        with pytest.raises(Fault):
            program(text)
    assert parsed("a /* said */ + 1").root is not None
