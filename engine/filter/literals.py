"""The values written in a filter: numbers, strings with their escapes, lists of them."""

import math
import re
from typing import Any

import orjson

from core.errors import FilterError

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "?": "?",
}
_ESCAPE = re.compile(r"""\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|([abfnrtv\\"'?]))""")
_ITEM = re.compile(r"""("(?:[^"\\]|\\[\s\S])*+"|'(?:[^'\\]|\\[\s\S])*+')|([^\s,\[\]]+)""")


def string(text: str) -> str:
    """The value of a quoted string.

    An escape that means nothing stays as it is written, so that ``like "10\\%"`` needs no second
    backslash.
    """
    return _ESCAPE.sub(_unescape, text[1:-1]) if "\\" in text else text[1:-1]


def _unescape(match: re.Match[str]) -> str:
    hexadecimal, short, long, octal, other = match.groups()
    if other is not None:
        return _ESCAPES[other]
    code = int(octal, 8) if octal is not None else int(hexadecimal or short or long, 16)
    return chr(code) if code < 0x110000 else match.group()


def integer(text: str) -> int:
    """Decimal, ``0x``, ``0b``, and C's octal with a leading 0. One more than int64 holds is let
    through for the sake of ``-9223372036854775808``; the sign is applied before the range is checked."""
    try:
        value = int(text, 8) if text[0] == "0" and text.isdigit() else int(text, 0)
    except ValueError:
        raise FilterError(f"{_short(text)} is not an int64") from None
    if value > INT64_MAX + 1:
        raise FilterError(f"{_short(text)} is out of the range of int64")
    return value


def floating(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise FilterError(f"{_short(text)} is out of the range of double")
    return value


def scalar(text: str) -> bool | int | float | str:
    """The value of any literal, its sign included."""
    if text[0] in "'\"":
        return string(text)
    lower = text.lower()
    if lower in ("true", "false"):
        return lower == "true"
    return -_number(lower[1:]) if lower[0] == "-" else _number(lower)


def _number(text: str) -> int | float:
    return integer(text) if text.isdecimal() or text[:2] in ("0x", "0b") else floating(text)


def plain_list(text: str) -> list[Any]:
    """The values of a list of plain literals, ``[1, 'a', true]``."""
    if "\\" not in text and "'" not in text:
        try:
            return orjson.loads(text.encode())  # a token of the lexer is no plain str, which orjson refuses
        except orjson.JSONDecodeError:
            pass  # a trailing comma, True, or a line break within a string
    return [string(quoted) if quoted else _bare(bare) for quoted, bare in _ITEM.findall(text)]


def _bare(text: str) -> Any:
    lower = text.lower()
    if lower in ("true", "false"):
        return lower == "true"
    return floating(text) if set(lower) & set(".e") else int(text)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."
