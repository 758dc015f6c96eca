"""How DuckDB says what it has no function of the same name and meaning for."""

from __future__ import annotations

import hashlib
from typing import Final

SECRET: Final = "pii"
"""The name of the secret, which is its value too."""


def _pad(byte: int) -> str:
    return bytes(each ^ byte for each in SECRET.encode().ljust(hashlib.sha256().block_size, b"\0")).hex()


_HMAC: Final = f"sha256(from_hex('{_pad(0x5C)}') || from_hex(sha256(from_hex('{_pad(0x36)}') || encode({{0}}))))"
"""RFC 2104 by hand."""
_KINDS: Final = (
    "case json_type({0}) when 'OBJECT' then 'object' when 'ARRAY' then 'array' when 'VARCHAR' then 'string' "
    "when 'BOOLEAN' then 'boolean' when 'NULL' then 'null' when null then null "
    "else case when {0} is null then null else 'number' end end"
)
_BUCKET: Final = (
    "case when {0} is null or {1} is null or {2} is null or {3} is null then null "
    "when {1} >= {2} then error('bounds') when {0} < {1} then 0 when {0} >= {2} then {3} + 1 "
    "else cast(trunc(({0} - {1}) * {3} / ({2} - {1})) as bigint) + 1 end"
)
_MASK: Final = (
    "case when {3} is null then null when length({0}) <= greatest({1}, 0) + greatest({2}, 0) "
    "then repeat({3}, length({0})) else left({0}, greatest({1}, 0)) || "
    "repeat({3}, length({0}) - greatest({1}, 0) - greatest({2}, 0)) || right({0}, greatest({2}, 0)) end"
)
_WORDS: Final = (
    "array_to_string(list_transform(regexp_extract_all({0}, '[\\pL\\pN]+|[^\\pL\\pN]+'), "
    "lambda w: upper(left(w, 1)) || lower(substring(w, 2))), '')"
)
COUNTERPARTS: Final = {
    "make_date(integer, integer, integer) -> date": "make_date({0}, {1}, {2})",
    "to_timestamp(decimal) -> timestamptz": "to_timestamp({0})",
    "json_array_length(json) -> integer": "case when json_type({0}) = 'ARRAY' then json_array_length({0}) end",
    "json_typeof(json) -> text": _KINDS,
    "json_valid(text) -> boolean": "json_valid({0})",
    "json_merge_patch(json, json) -> json": (
        "case when {0} is null or {1} is null then null else "
        "json_merge_patch(case when json_type({0}) = 'OBJECT' then {0} else cast('{{}}' as json) end, {1}) end"
    ),
    "json_has_key(json, text) -> boolean": (
        "case when {0} is null or {1} is null then null else coalesce(list_contains(json_keys({0}), {1}), false) end"
    ),
    "json_keys(json) -> text[]": "case when json_type({0}) = 'OBJECT' then json_keys({0}) end",
    "initcap(text) -> text": _WORDS,
    "reverse(text) -> text": "reverse({0})",
    "split_part(text, text, integer) -> text": "split_part({0}, {1}, {2})",
    "chr(integer) -> text": "chr({0})",
    "regexp_substr(text, pattern text, group integer = 0) -> text": (
        "case when regexp_matches({0}, {1}) then regexp_extract({0}, {1}, {2}) end"
    ),
    "array_position(T[], T) -> integer": "case when {1} is null then null else list_position({0}, {1}) end",
    "array_to_string(text[], text) -> text": (
        "case when {0} is null or {1} is null then null else coalesce(array_to_string({0}, {1}), '') end"
    ),
    "string_to_array(text, text) -> text[]": (
        "case when {0} is null or {1} is null then null when {0} = '' then cast([] as varchar[]) "
        "when {1} = '' then [{0}] else string_split({0}, {1}) end"
    ),
    "round(decimal, integer = 0) -> decimal": "round({0}, {1})",
    "trunc(decimal, integer = 0) -> decimal": "trunc({0}, {1})",
    "mod(integer, integer) -> integer": "({0} % {1})",
    "mod(decimal, decimal) -> decimal": "({0} % {1})",
    "width_bucket(decimal, decimal, decimal, integer) -> integer": _BUCKET,
    "hmac_sha256(text, secret) -> text": _HMAC,
    "mask(text, keep_first integer = 0, keep_last integer = 0, fill text = '*') -> text": _MASK,
    "truncate(text, integer) -> text": "left({0}, {1})",
    "truncate(decimal, integer = 0) -> decimal": "trunc({0}, {1})",
    "encode(bytes, form text) -> text": "case {1} when 'hex' then lower(hex({0})) else base64({0}) end",
    "decode(text, form text) -> bytes": "case {1} when 'hex' then from_hex({0}) else from_base64({0}) end",
}
"""By signature; every other function has its own words, or the same."""
