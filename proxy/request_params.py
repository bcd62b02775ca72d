"""The key-value parameters of a search or query: numbers and flags that arrive as text."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from core.errors import InvalidArgument
from core.limits import RESULT_WINDOW_MAX

INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)

Params = Mapping[str, str]


def read(items: Iterable[Any]) -> dict[str, str]:
    """KeyValuePairs as a dict; the text "None" is how some clients say "not given"."""
    return {kv.key: kv.value for kv in items if kv.value != "None"}


def integer(params: Params, key: str, default: int) -> int:
    text = params.get(key, "")
    if text == "":
        return default
    if not INTEGER.fullmatch(text):
        raise InvalidArgument(f"{key} [{text:.64}] is invalid")
    return int(text)


def flag(params: Params, key: str) -> bool:
    return params.get(key, "").lower() == "true"


def json_object(params: Params, key: str) -> dict[str, Any]:
    """The JSON object under a key; {} when there is none."""
    text = params.get(key, "")
    if not text:
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise InvalidArgument(f"{key} [{text:.64}] is invalid: {e}") from e
    if not isinstance(value, dict):
        raise InvalidArgument(f"{key} [{text:.64}] is invalid: not a JSON object")
    return value


def number(values: Mapping[str, Any], key: str) -> float | None:
    """A number of the JSON parameters; None when there is none."""
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 (NaN)
        raise InvalidArgument(f"Type conflict in json: param '{key}' ({values[key]!s:.64}) should be a number")
    return float(value)


def check_window(offset: int, limit: int) -> None:
    if offset < 0:
        raise InvalidArgument(f"invalid max query result window, offset [{offset}] is invalid, should be gte than 0")
    if not 1 <= offset + limit <= RESULT_WINDOW_MAX:
        raise InvalidArgument(
            "invalid max query result window, (offset+limit) should be in range "
            f"[1, {RESULT_WINDOW_MAX}], but got {offset + limit}"
        )
