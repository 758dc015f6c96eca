"""What a cast of a column loses without a word, told before a row is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cdcsync.mapping.expressions import kinds
from cdcsync.types import Kind

if TYPE_CHECKING:
    from cdcsync.types import Type

EXACT_BITS: Final = {32: 24, 64: 53}
"""Bits of an integer that a float of so many bits holds."""
DIGITS: Final = {8: 3, 16: 5, 24: 7, 32: 10, 64: 20}
"""Digits that an integer of so many bits has at most."""


def loss(given: Type, wanted: Type) -> str:
    """Return what happens to values of one type that the other does not hold; empty when it holds all of them."""
    ways = {Kind.INTEGER: _integer, Kind.DECIMAL: _decimal, Kind.FLOAT: _float, Kind.TEXT: _text}
    said = ways[wanted.kind](given, wanted) if wanted.kind in ways else ""
    return f"{_told(given)} becomes {_told(wanted)}: {said}" if said else ""


def _told(kind: Type) -> str:
    if kind.kind in (Kind.INTEGER, Kind.FLOAT):
        return f"{'unsigned ' if kind.unsigned else ''}{kind.kind} of {kind.bits} bits"
    if kind.kind is Kind.TEXT and kind.length is not None:
        return f"text of {kind.length} characters"
    return kinds.told(kind)


def _integer(given: Type, wanted: Type) -> str:
    if given.kind is Kind.INTEGER:
        narrower = given.bits - (not given.unsigned) > wanted.bits - (not wanted.unsigned)
        return "a row whose number is larger is rejected" if narrower else ""
    if given.kind is Kind.FLOAT or (given.kind is Kind.DECIMAL and given.scale != 0):
        return "the fraction is rounded away"
    return ""


def _decimal(given: Type, wanted: Type) -> str:
    if wanted.precision is None:
        return ""
    scale = wanted.scale or 0
    if given.kind is Kind.FLOAT or (given.kind is Kind.DECIMAL and (given.scale is None or given.scale > scale)):
        return f"it is rounded to {scale} digits after the point"
    whole = DIGITS.get(given.bits, 0) if given.kind is Kind.INTEGER else (given.precision or 0) - (given.scale or 0)
    return "a row whose number is larger is rejected" if whole > wanted.precision - scale else ""


def _float(given: Type, wanted: Type) -> str:
    exact = EXACT_BITS.get(wanted.bits, 0)
    if given.kind is Kind.INTEGER and given.bits > exact:
        return f"numbers past {exact} bits are rounded"
    if given.kind is Kind.FLOAT and given.bits > wanted.bits:
        return "it is rounded"
    return "its decimal digits are rounded to binary ones" if given.kind is Kind.DECIMAL else ""


def _text(given: Type, wanted: Type) -> str:
    if wanted.length is None or given.kind is not Kind.TEXT:
        return ""
    cut = given.length is None or given.length > wanted.length
    return f"it is cut after {wanted.length} characters" if cut else ""
