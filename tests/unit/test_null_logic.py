"""Properties of three-valued logic: any tree of AND, OR, NOT, IS and CASE over nulls comes to what SQL says."""

from __future__ import annotations

from typing import Any, TypeAlias

from fix_generated import TABLE
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcsync.mapping.expressions import Scope, compiled, parsed
from cdcsync.mapping.expressions.program import value_function

Tree: TypeAlias = tuple[Any, ...]
LEAVES = st.sampled_from([("b",), ("c",), ("i = 1",), ("s like 'a%'",), ("d > 1",), ("true",), ("false",), ("null",)])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["and", "or", "distinct"]), inner, inner),
        st.tuples(st.sampled_from(["not", "is null", "is true", "is not false"]), inner),
        st.tuples(st.just("case"), inner, inner, inner),
        st.tuples(st.just("coalesce"), inner, inner),
    ),
    max_leaves=12,
)
TRUTH = st.sampled_from([True, False, None])
FORMS = {
    "and": "({0} and {1})", "or": "({0} or {1})", "distinct": "({0} is distinct from {1})", "not": "(not {0})",
    "is null": "({0} is null)", "is true": "({0} is true)", "is not false": "({0} is not false)",
    "case": "case when {0} then {1} else {2} end", "coalesce": "coalesce({0}, {1})",
}  # fmt: skip


def text(tree: Tree) -> str:
    """Return the expression."""
    if len(tree) == 1:
        return f"cast({tree[0]} as boolean)"
    return FORMS[tree[0]].format(*map(text, tree[1:]))


def both(a: Any, b: Any, deciding: Any) -> Any:
    """Return AND (False decides) or OR (True decides) by the table of the standard."""
    if a is deciding or b is deciding:
        return deciding
    return None if a is None or b is None else not deciding


def value(tree: Tree, known: dict[str, Any]) -> Any:
    """Return what the standard says."""
    if len(tree) == 1:
        return known[tree[0]]
    word, a = tree[0], value(tree[1], known)
    b = value(tree[2], known) if len(tree) > 2 else None
    if word == "case":
        return b if a is True else value(tree[3], known)
    said = {
        "and": both(a, b, False), "or": both(a, b, True), "not": None if a is None else not a, "distinct": a is not b,
        "is null": a is None, "is true": a is True, "is not false": a is not False, "coalesce": b if a is None else a,
    }  # fmt: skip
    return said[word]


@settings(max_examples=400, deadline=None)
@given(TREES, TRUTH, TRUTH, TRUTH, TRUTH, TRUTH)
def test_any_tree_of_conditions_over_nulls_comes_to_what_the_standard_says(
    tree: Tree, b: Any, c: Any, i: Any, s: Any, d: Any
) -> None:
    values = {
        "b": b, "c": c, "i": None if i is None else int(i), "s": None if s is None else "a" if s else "x",
        "d": None if d is None else "2.00" if d else "0.50",
    }  # fmt: skip
    row = tuple(values.get(column.name) for column in TABLE.columns)
    known = {"b": b, "c": c, "i = 1": i, "s like 'a%'": s, "d > 1": d, "true": True, "false": False, "null": None}

    got = value_function(compiled(parsed(text(tree)), Scope(TABLE)), "t")(row, None, None)

    assert got is value(tree, known), text(tree)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_a_strict_function_of_null_is_null_whatever_stands_beside_it(tree: Tree) -> None:
    row = tuple(None for _ in TABLE.columns)
    inner = text(tree)

    for form in ("upper(s || cast({0} as text))", "i + cast({0} as integer)", "d * 2 + cast({0} as integer)", "y + i"):
        assert value_function(compiled(parsed(form.format(inner)), Scope(TABLE)), "t")(row, None, None) is None
