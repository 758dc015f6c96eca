"""The character sets of MySQL and MariaDB: which one a collation belongs to, and how its bytes are read.

Every decoder gives what `CONVERT(.. USING utf8mb4)` gives on the servers, character by character; the tests ask them
for all. What they cannot convert, and what is not well formed, raises UnicodeDecodeError.
"""

from __future__ import annotations

import codecs
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BINARY: Final = "binary"
UTF8: Final = frozenset({"utf8", "utf8mb3", "utf8mb4"})
"""Those that Python's UTF-8 reads."""

_COLLATIONS: Final[Mapping[str, tuple[int, ...]]] = {
    "armscii8": (32, 64), "ascii": (11, 65), "big5": (1, 84), "binary": (63,), "cp1250": (26, 34, 44, 66, 99),
    "cp1251": (14, 23, 50, 51, 52), "cp1256": (57, 67), "cp1257": (29, 58, 59), "cp850": (4, 80), "cp852": (40, 81),
    "cp866": (36, 68), "cp932": (95, 96), "dec8": (3, 69), "eucjpms": (97, 98), "euckr": (19, 85),
    "gb18030": (248, 249, 250), "gb2312": (24, 86), "gbk": (28, 87), "geostd8": (92, 93), "greek": (25, 70),
    "hebrew": (16, 71), "hp8": (6, 72), "keybcs2": (37, 73), "koi8r": (7, 74), "koi8u": (22, 75),
    "latin1": (5, 8, 15, 31, 47, 48, 49, 94), "latin2": (2, 9, 21, 27, 77), "latin5": (30, 78),
    "latin7": (20, 41, 42, 79), "macce": (38, 43), "macroman": (39, 53), "sjis": (13, 88), "swe7": (10, 82),
    "tis620": (18, 89), "ucs2": (35, 90, *range(128, 160)), "ujis": (12, 91),
    "utf16": (54, 55, *range(101, 128)), "utf16le": (56, 62), "utf32": (60, 61, *range(160, 192)),
    "utf8mb3": (33, 76, 83, *range(192, 224)), "utf8mb4": (45, 46, *range(224, 248), *range(255, 324)),
}  # fmt: skip
"""Collations by character set (information_schema.COLLATIONS of 5.7 to 8.4, 10.11 and 11.4)."""
_NO_PAD: Final = 1024
"""MariaDB's collation NAME_nopad is that far from NAME."""
_LATER: Final[tuple[tuple[range, str], ...]] = (
    (range(576, 608), "utf8mb3"),
    (range(608, 640), "utf8mb4"),
    (range(640, 672), "ucs2"),
    (range(672, 704), "utf16"),
    (range(736, 768), "utf32"),
    (range(2048, 2304), "utf8mb3"),
    (range(2304, 2560), "utf8mb4"),
    (range(2560, 2816), "ucs2"),
    (range(2816, 3072), "utf16"),
    (range(3072, 3328), "utf32"),
)
"""MariaDB's own and UCA 14.0.0 collations (mysys/charset-def.c, ctype-uca1400.h)."""
_BY_COLLATION: Final = {collation: charset for charset, ids in _COLLATIONS.items() for collation in ids}
_HOLE: Final = "\ufffe"
"""Where a table of codecs.charmap_decode has no character."""


def charset_of(collation: int) -> str:
    """Return the character set of a collation's number. Raises KeyError for one that no known server has."""
    for numbers, charset in _LATER:
        if collation in numbers:
            return charset
    return _BY_COLLATION[collation - _NO_PAD if collation > _NO_PAD else collation]


@cache
def text_decoder(charset: str) -> Callable[[bytes], str]:
    """Return what reads a character set's bytes. Raises KeyError for a set that no known server has."""
    if charset in UTF8:
        return bytes.decode
    if charset in _SPECIAL:
        return _SPECIAL[charset]
    if charset in _PATCHED:
        codec, patches = _PATCHED[charset]
        return _eight_bit(_table(codec, patches))
    if charset in _UPPER:
        return _eight_bit(_table("ascii", {})[:128] + _UPPER[charset])
    return _python(_CODECS[charset])


def _python(codec: str) -> Callable[[bytes], str]:
    decode = codecs.lookup(codec).decode

    def read(raw: bytes) -> str:
        return decode(raw)[0]

    return read


def _eight_bit(table: str) -> Callable[[bytes], str]:
    def read(raw: bytes) -> str:
        return codecs.charmap_decode(raw, "strict", table)[0]

    return read


def _table(codec: str, patches: Mapping[int, str]) -> str:
    """Return the characters of all 256 bytes."""
    return "".join([patches.get(byte) or bytes([byte]).decode(codec, "replace") for byte in range(256)]).replace(
        "\ufffd", _HOLE
    )


def _invalid(charset: str, raw: bytes) -> UnicodeDecodeError:
    return UnicodeDecodeError(charset, raw, 0, len(raw), "not a character of the set")


def _read_ucs2(raw: bytes) -> str:
    """UCS-2 has no pairs of surrogates."""
    text = raw.decode("utf-16-be")
    if len(text) * 2 != len(raw):
        raise _invalid("ucs2", raw)
    return text


def _read_big5(raw: bytes) -> str:
    """Seven characters of ETEN's extension, and seven places that no server converts."""
    text = raw.decode("big5", "cdcsync-eten")
    if not _NOT_BIG5.isdisjoint(text):
        at = 0
        while at < len(raw):
            if raw[at : at + 2] in _NOT_BIG5_PLACES:
                raise _invalid("big5", raw)
            at += 2 if raw[at] > 0x7F else 1  # noqa: PLR2004  a lead byte
    return text


_NOT_BIG5_PLACES: Final = frozenset(
    bytes.fromhex(place) for place in ["a15a", "a1c3", "a1c5", "a1fe", "a240", "a2cc", "a2ce"]
)
_NOT_BIG5: Final = frozenset(b"".join(_NOT_BIG5_PLACES).decode("big5"))
_ETEN: Final = "\u7881\u92b9\u88cf\u58bb\u6052\u7ca7\u5afa"
"""F9D6 to F9DC."""


def _eten(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        at = int.from_bytes(error.object[error.start : error.start + 2], "big") - 0xF9D6
        if 0 <= at < len(_ETEN):
            return _ETEN[at], error.start + 2
    raise error


def _read_cp932(raw: bytes) -> str:
    """Python's codec takes five single bytes that are no characters."""
    text = raw.decode("cp932")
    if not _NOT_CP932.isdisjoint(text):
        raise _invalid("cp932", raw)
    return text


_NOT_CP932: Final = frozenset("\x80\uf8f0\uf8f1\uf8f2\uf8f3")


def _read_gb18030(raw: bytes) -> str:
    """The servers follow the standard of 2005, Python that of 2000: one character changed places."""
    return raw.decode("gb18030").translate(_OF_2005)


_OF_2005: Final = {0xE7C7: "\u1e3f", 0x1E3F: "\ue7c7"}


def _read_sjis(raw: bytes) -> str:
    return raw.decode("shift_jis").replace("\uff3c", "\\")


def _read_ujis(raw: bytes) -> str:
    return raw.decode("euc_jp", "cdcsync-ujis").replace("\uff3c", "\\")


def _read_eucjpms(raw: bytes) -> str:
    """Microsoft's choice of characters, its tilde first: Python reads that one as ASCII's."""
    return raw.replace(b"\x8f\xa2\xb7", b"\xa1\xc1").decode("euc_jp", "cdcsync-eucjpms").translate(_MS)


_MS: Final = {
    0x301C: "\uff5e", 0x2016: "\u2225", 0x2212: "\uff0d", 0xA2: "\uffe0", 0xA3: "\uffe1", 0xAC: "\uffe2",
    0xA6: "\uffe4",
}  # fmt: skip
_ROW: Final = 94
"""Characters of a row in JIS X 0208."""
_USER_ROWS: Final = range(0xF5 - 0xA1, _ROW)
"""Rows of user-defined characters: U+E000 on in the first plane, U+E3AC on in the second (8F)."""


def _user_defined(error: UnicodeError) -> tuple[str, int]:
    """Return the user-defined character at which Python's codec stopped."""
    if isinstance(error, UnicodeDecodeError):
        raw, start = error.object, error.start
        second = raw[start] == 0x8F  # noqa: PLR2004  before the second plane
        row, cell = (each - 0xA1 for each in raw[start + second : start + second + 2].ljust(2, b"\0"))
        if row in _USER_ROWS and 0 <= cell < _ROW:
            return chr((0xE3AC if second else 0xE000) + (row - _USER_ROWS.start) * _ROW + cell), start + second + 2
    raise error


def _extended(error: UnicodeError) -> tuple[str, int]:
    """Return the user-defined, NEC's or IBM's character at which Python's codec stopped."""
    if isinstance(error, UnicodeDecodeError):
        raw, start = error.object, error.start
        for size in (2, 3):
            found = _vendors().get(raw[start : start + size])
            if found is not None:
                return found, start + size
    return _user_defined(error)


@cache
def _vendors() -> Mapping[bytes, str]:
    """Return NEC's row 13, and IBM's characters from 8FF3F3 on; code page 932 has both in the same order."""
    trails = [*range(0x40, 0x7F), *range(0x80, 0xFD)]
    nec = {
        bytes([0xAD, 0xA1 + cell]): bytes([0x87, trails[cell]]).decode("cp932", "ignore") for cell in range(_ROW - 2)
    }
    places = [bytes([lead, trail]) for lead in (0xFA, 0xFB, 0xFC) for trail in trails][: 2 * 188 + 12]
    letters = [place.decode("cp932") for place in places]
    new = [
        letter
        for letter in letters
        if letter not in "\uffe2\uffe4\u2235" and (letter == "\u2116" or not _is_euc(letter))
    ]
    cells = [(row, cell) for row in (0xF3, 0xF4) for cell in range(0xA1, 0xFF)][0xF3 - 0xA1 :]
    ibm = {bytes([0x8F, row, cell]): letter for (row, cell), letter in zip(cells, new, strict=False)}
    return {place: letter for place, letter in (nec | ibm).items() if not letter.isascii()}


def _is_euc(letter: str) -> bool:
    try:
        letter.encode("euc_jp")
    except UnicodeEncodeError:
        return False
    return True


codecs.register_error("cdcsync-eten", _eten)
codecs.register_error("cdcsync-ujis", _user_defined)
codecs.register_error("cdcsync-eucjpms", _extended)

_SPECIAL: Final[Mapping[str, Callable[[bytes], str]]] = {
    "ucs2": _read_ucs2,
    "big5": _read_big5,
    "cp932": _read_cp932,
    "gb18030": _read_gb18030,
    "sjis": _read_sjis,
    "ujis": _read_ujis,
    "eucjpms": _read_eucjpms,
}
_CODECS: Final[Mapping[str, str]] = {
    "utf16": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32-be",
    "gb2312": "gb2312",
    "gbk": "gbk",
    "euckr": "cp949",
    "hp8": "hp_roman8",
    "koi8r": "koi8_r",
    "latin2": "iso8859_2",
    "latin5": "iso8859_9",
    "latin7": "iso8859_13",
    "macce": "mac_latin2",
    "macroman": "mac_roman",
    **{name: name for name in ("ascii", "cp1250", "cp1251", "cp1257", "cp850", "cp852")},
}
_PATCHED: Final[Mapping[str, tuple[str, Mapping[int, str]]]] = {
    "latin1": ("cp1252", {byte: chr(byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}),
    "cp1256": ("cp1256", dict.fromkeys((0x8A, 0x8F, 0x98, 0x9A, 0x9F, 0xAA, 0xC0, 0xFF), _HOLE)),
    "cp866": ("cp866", {0xFC: "\u207f", 0xFD: "\xb2"}),
    "greek": ("iso8859_7", {0xA1: "\u02bd", 0xA2: "\u02bc", 0xA4: _HOLE, 0xA5: _HOLE, 0xAA: _HOLE}),
    "hebrew": ("iso8859_8", {0xAF: "\u203e"}),
    "koi8u": ("koi8_u", {0x95: "\u2022"}),
    "dec8": (
        "latin_1",
        {
            **dict.fromkeys((0xA4, 0xA6, *range(0xAC, 0xB0), 0xB4, 0xB8, 0xBE, 0xD0, 0xDE, 0xF0, 0xFE, 0xFF), _HOLE),
            0xA8: "\xa4",
            0xD7: "\u0152",
            0xDD: "\u0178",
            0xF7: "\u0153",
            0xFD: "\xff",
        },
    ),
    "swe7": (
        "ascii",
        {
            0x40: "\xc9",
            0x5B: "\xc4",
            0x5C: "\xd6",
            0x5D: "\xc5",
            0x5E: "\xdc",
            0x60: "\xe9",
            0x7B: "\xe4",
            0x7C: "\xf6",
            0x7D: "\xe5",
            0x7E: "\xfc",
            0x7F: "\ufffe",
        },
    ),
    "tis620": ("tis_620", {0xA0: _HOLE}),
}
"""The codec of Python's that is nearest, and the bytes where the servers differ."""
_UPPER: Final[Mapping[str, str]] = {
    "armscii8": (
        "\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98\x99"
        "\x9a\x9b\x9c\x9d\x9e\x9f\xa0\u2741\xa7\u0589)(\xbb\xab\u2014.\u055d,-\u055f\u2026\u055c\u055b\u055e"
        "\u0531\u0561\u0532\u0562\u0533\u0563\u0534\u0564\u0535\u0565\u0536\u0566\u0537\u0567\u0538\u0568\u0539"
        "\u0569\u053a\u056a\u053b\u056b\u053c\u056c\u053d\u056d\u053e\u056e\u053f\u056f\u0540\u0570\u0541\u0571"
        "\u0542\u0572\u0543\u0573\u0544\u0574\u0545\u0575\u0546\u0576\u0547\u0577\u0548\u0578\u0549\u0579\u054a"
        "\u057a\u054b\u057b\u054c\u057c\u054d\u057d\u054e\u057e\u054f\u057f\u0550\u0580\u0551\u0581\u0552\u0582"
        "\u0553\u0583\u0554\u0584\u0555\u0585\u0556\u0586\u2019'"
    ),
    "geostd8": (
        "\u20ac\ufffe\u201a\ufffe\u201e\u2026\u2020\u2021\ufffe\u2030\ufffe\u2039\ufffe\ufffe\ufffe\ufffe\ufffe"
        "\u2018\u2019\u201c\u201d\u2022\u2013\u2014\ufffe\ufffe\ufffe\u203a\ufffe\ufffe\ufffe\ufffe\xa0\xa1\xa2"
        "\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xab\xac\xad\xae\xaf\xb0\xb1\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xbb\xbc"
        "\xbd\xbe\xbf\u10d0\u10d1\u10d2\u10d3\u10d4\u10d5\u10d6\u10f1\u10d7\u10d8\u10d9\u10da\u10db\u10dc\u10f2"
        "\u10dd\u10de\u10df\u10e0\u10e1\u10e2\u10f3\u10e3\u10e4\u10e5\u10e6\u10e7\u10e8\u10e9\u10ea\u10eb\u10ec"
        "\u10ed\u10ee\u10f4\u10ef\u10f0\u10f5\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe"
        "\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\ufffe\u2116\ufffe\ufffe"
    ),
    "keybcs2": (
        "\u010c\xfc\xe9\u010f\xe4\u010e\u0164\u010d\u011b\u011a\u0139\xcd\u013e\u013a\xc4\xc1\xc9\u017e\u017d\xf4"
        "\xf6\xd3\u016f\xda\xfd\xd6\xdc\u0160\u013d\xdd\u0158\u0165\xe1\xed\xf3\xfa\u0148\u0147\u016e\xd4\u0161"
        "\u0159\u0155\u0154\xbc\xa1\xab\xbb\u2591\u2592\u2593\u2502\u2524\u2561\u2562\u2556\u2555\u2563\u2551"
        "\u2557\u255d\u255c\u255b\u2510\u2514\u2534\u252c\u251c\u2500\u253c\u255e\u255f\u255a\u2554\u2569\u2566"
        "\u2560\u2550\u256c\u2567\u2568\u2564\u2565\u2559\u2558\u2552\u2553\u256b\u256a\u2518\u250c\u2588\u2584"
        "\u258c\u2590\u2580\u03b1\xdf\u0393\u03c0\u03a3\u03c3\xb5\u03c4\u03a6\u0398\u03a9\u03b4\u221e\u03c6\u03b5"
        "\u2229\u2261\xb1\u2265\u2264\u2320\u2321\xf7\u2248\xb0\u2219\xb7\u221a\u207f\xb2\u25a0\xa0"
    ),
}
"""Sets of which Python has no codec: ASCII, and the characters of 80 to FF."""
