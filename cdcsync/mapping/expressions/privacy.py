"""Functions that keep what is personal out of a target."""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from cdcsync.mapping.expressions.numbers import _quantized
from cdcsync.mapping.expressions.registry import define
from cdcsync.mapping.expressions.texts import bounded, left
from cdcsync.mapping.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

SECTION: Final = "Hashes and masks"
BLOCK: Final = 64
"""Bytes of a block of SHA-256."""
_sha256: Final = hashlib.sha256


def sha256(value: str) -> str:
    """Return the hash of a text's UTF-8 in hexadecimal."""
    return _sha256(value.encode()).hexdigest()


@lru_cache(maxsize=64)
def _keyed(secret: bytes) -> tuple[Any, Any]:
    """Return the two hashes that a key begins (RFC 2104): copying them takes half the time of `hmac.digest`."""
    key = (_sha256(secret).digest() if len(secret) > BLOCK else secret).ljust(BLOCK, b"\0")
    return _sha256(bytes(byte ^ 0x36 for byte in key)), _sha256(bytes(byte ^ 0x5C for byte in key))


def hmac_sha256(value: str, secret: bytes) -> str:
    """Return the keyed hash of a text's UTF-8 in hexadecimal."""
    inner, outer = _keyed(secret)
    first, second = inner.copy(), outer.copy()
    first.update(value.encode())
    second.update(first.digest())
    made: str = second.hexdigest()
    return made


def masked(text: str, keep_first: int, keep_last: int, fill: str) -> str:
    """Return it with all but the kept characters replaced; all of them where little else would be left."""
    first, last = max(keep_first, 0), max(keep_last, 0)
    bounded(len(fill) * len(text))
    hidden = len(text) - first - last
    if hidden <= 0:
        return fill * len(text)
    return text[:first] + fill * hidden + text[len(text) - last :]


def encoded(form: str) -> Callable[[bytes], str]:
    """Return what writes bytes as text. Raises ValueError."""
    forms: dict[str, Callable[[bytes], str]] = {
        "hex": bytes.hex,
        "base64": lambda value: base64.b64encode(value).decode(),
    }
    if form not in forms:
        raise ValueError("write hex or base64")
    return forms[form]


def decoded(form: str) -> Callable[[str], bytes]:
    """Return what reads bytes from text. Raises ValueError."""
    forms: dict[str, Callable[[str], bytes]] = {
        "hex": bytes.fromhex,
        "base64": lambda text: base64.b64decode(text, validate=True),
    }
    if form not in forms:
        raise ValueError("write hex or base64")
    read = forms[form]

    def checked(text: str) -> bytes:
        try:
            return read(text)
        except (ValueError, binascii.Error) as error:
            msg = f"the text is no {form}"
            raise Failure(msg) from error

    return checked


define(
    SECTION,
    "sha256(text) -> text",
    sha256,
    "SHA-256 in hexadecimal. Guessable values stay guessable: use hmac_sha256 for those.",
    ("left(sha256('abc'), 8)", "ba7816bf"),
)
define(
    SECTION,
    "sha256(bytes) -> text",
    lambda value: _sha256(value).hexdigest(),
    "SHA-256 in hexadecimal.",
    ("left(sha256(decode('00', 'hex')), 8)", "6e340b9c"),
)
define(
    SECTION,
    "md5(text) -> text",
    lambda value: hashlib.md5(value.encode(), usedforsecurity=False).hexdigest(),
    "MD5 in hexadecimal, for joining with what others made.",
    ("left(md5('abc'), 8)", "90015098"),
)
define(
    SECTION,
    "hmac_sha256(text, secret) -> text",
    hmac_sha256,
    "HMAC-SHA-256 in hexadecimal with a secret of the pipeline's file; equal values stay equal, and nobody without the secret can try values out.",
    ("left(hmac_sha256('abc', secret('pii')), 8)", "4a01fd8e"),
    duckdb="-",
)
define(
    SECTION,
    "mask(text, keep_first integer = 0, keep_last integer = 0, fill text = '*') -> text",
    masked,
    "All but the kept characters replaced; everything where the text is not longer than what is kept.",
    ("mask('4111111111111234', keep_last => 4)", "************1234"),
    duckdb="-",
)
define(
    SECTION,
    "truncate(text, integer) -> text",
    left,
    "The first characters.",
    ("truncate('10115', 2)", "10"),
    duckdb="-",
)
define(
    SECTION,
    "truncate(decimal, integer = 0) -> decimal",
    lambda value, digits: _quantized(value, digits, "ROUND_DOWN"),
    "So many digits after the point, or before it when negative.",
    ("truncate(5237.19, -2)", "5200"),
    duckdb="-",
)
define(
    SECTION,
    "encode(bytes, form 'text) -> text",
    encoded,
    "As hex or base64.",
    ("encode(decode('0aff', 'hex'), 'base64')", "Cv8="),
    duckdb="-",
)
define(
    SECTION,
    "decode(text, form 'text) -> bytes",
    decoded,
    "From hex or base64.",
    ("decode('0aff', 'hex')", "0aff"),
    duckdb="-",
)
