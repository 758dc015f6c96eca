"""Suites that every sink, store and source passes: subclass one in a test and give it your end.

They are plain classes for pytest; a method whose name begins with `test_` is a claim that holds for every system.
"""

import pytest

pytest.register_assert_rewrite(*[f"{__name__}.{suite}" for suite in ("sinks", "sources", "stores")])
