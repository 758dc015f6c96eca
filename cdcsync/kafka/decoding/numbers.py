"""JSON whose numbers keep every digit: a fraction is read as its text."""

from __future__ import annotations

import json
from typing import Any


class Number(str):
    """The text of a number that JSON had with a fraction or an exponent; a plain str is a string of JSON."""

    __slots__ = ()


def loads(text: bytes) -> Any:
    """Return what the text holds; integers of any size, fractions as Number. Raises ValueError."""
    return json.loads(text, parse_float=Number)
