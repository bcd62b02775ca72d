"""Filters of requests: template values from the wire, and compilation with Milvus's wording of errors."""

from typing import Any

import orjson

from core.errors import FilterError, InvalidArgument
from core.schema import Schema
from engine.filter import Filter
from engine.filter import compile as compile_filter

CHARACTER_BYTES = 1024
"""Parsing a character of a filter takes as long as converting this many bytes of rows (``Threads.run``)."""


def template_values(values: Any) -> dict[str, Any]:
    """``expr_template_values`` as Python values. Raises ``InvalidArgument``."""
    return {name: _value(name, v) for name, v in values.items()} if values else {}


def _value(name: str, value: Any) -> Any:
    slot = value.WhichOneof("val")
    if slot is None:
        raise InvalidArgument(f"the value of the expression template {{{name}}} is empty")
    if slot == "bytes_val":
        raise InvalidArgument(f"the value of the expression template {{{name}}} has an unsupported type: bytes")
    return _array(name, value.array_val) if slot == "array_val" else getattr(value, slot)


def _array(name: str, array: Any) -> list[Any]:
    slot = array.WhichOneof("data")
    if slot is None:
        return []
    data = getattr(array, slot).data
    if slot == "array_data":
        return [_array(name, inner) for inner in data]
    if slot == "json_data":
        try:
            return list(map(orjson.loads, data))
        except orjson.JSONDecodeError as e:
            raise InvalidArgument(f"the value of the expression template {{{name}}} is not valid JSON") from e
    return data[:]


def checked(plan: str, text: str, schema: Schema, params: dict[str, Any]) -> Filter | None:
    """The compiled filter, None for an empty text. ``plan`` is "query" or "delete", for the message."""
    if not text.strip():
        return None
    try:
        return compile_filter(text, schema, params)
    except FilterError as e:
        raise FilterError(f"failed to create {plan} plan: {e}") from e
