"""Between frozen dataclasses and protobuf messages of the same shape, by field name.

The dataclass is what the code works with, the ``.proto`` is the stored and wire format.
``tests/unit/test_messages.py`` holds the two against each other, field by field. Rules: the same
field names; nested dataclass = message, tuple = repeated, enum = its number, a pair of strings
``tuple[tuple[str, str], ...]`` = ``repeated KeyValue``.
"""

import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any

from google.protobuf.message import Message

Decoder = Callable[[Any], Any]
T = typing.TypeVar("T")


def to_message(value: Any, message: type[Message]) -> Message:
    """A message with the content of a dataclass value."""
    out = message()
    fill(value, out)
    return out


def fill(value: Any, out: Message) -> None:
    for f in fields(value):
        item = getattr(value, f.name)
        if isinstance(item, tuple):
            target = getattr(out, f.name)
            for element in item:
                if is_dataclass(element):
                    fill(element, target.add())
                elif isinstance(element, tuple):
                    target.add(key=element[0], value=element[1])
                else:
                    target.append(element)
        elif is_dataclass(item):
            target = getattr(out, f.name)
            target.SetInParent()
            fill(item, target)
        elif isinstance(item, Enum):
            setattr(out, f.name, item.value)
        else:
            setattr(out, f.name, item)


@cache
def _plan(cls: type) -> tuple[tuple[str, Decoder], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((f.name, _decoder(hints[f.name])) for f in fields(cls))


def _decoder(hint: Any) -> Decoder:
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        if typing.get_origin(inner) is tuple:
            return lambda items: tuple((i.key, i.value) for i in items)
        one = _decoder(inner)
        return lambda items: tuple(map(one, items))
    if is_dataclass(hint):
        return lambda m: from_message(typing.cast(type, hint), m)
    hint = getattr(hint, "__supertype__", hint)
    return hint if isinstance(hint, type) else (lambda x: x)


def from_message(cls: type[T], message: Message) -> T:
    """The dataclass value a message holds."""
    return cls(**{name: decode(getattr(message, name)) for name, decode in _plan(cls)})
