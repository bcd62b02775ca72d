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


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


def fill(value: Any, out: Message) -> None:
    for name in _names(type(value)):
        item = getattr(value, name)
        if isinstance(item, tuple):
            target = getattr(out, name)
            for element in item:
                if is_dataclass(element):
                    fill(element, target.add())
                elif isinstance(element, tuple):
                    target.add(key=element[0], value=element[1])
                else:
                    target.append(element)
        elif is_dataclass(item):
            target = getattr(out, name)
            target.SetInParent()
            fill(item, target)
        elif isinstance(item, Enum):
            setattr(out, name, item.value)
        else:
            setattr(out, name, item)


@cache
def _reader(cls: type) -> Decoder:
    """A function from a message to a value of the class: made once, for stores hold a million of some."""
    hints = typing.get_type_hints(cls)
    decoders = {f"decode_{f.name}": _decoder(hints[f.name]) for f in fields(cls)}
    taken = [
        f"m.{f.name}" if decoders[f"decode_{f.name}"] is None else f"decode_{f.name}(m.{f.name})" for f in fields(cls)
    ]
    return eval(f"lambda m: cls({', '.join(taken)})", {"cls": cls, **decoders})  # noqa: S307, names of fields


def _decoder(hint: Any) -> Decoder | None:
    """None: what the message has is the value."""
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        if typing.get_origin(inner) is tuple:
            return lambda items: tuple((i.key, i.value) for i in items)
        one = _decoder(inner)
        return tuple if one is None else (lambda items: tuple(map(one, items)))
    if is_dataclass(hint):
        return _reader(typing.cast(type, hint))
    return hint if isinstance(hint, type) and issubclass(hint, Enum) else None


def from_message(cls: type[T], message: Message) -> T:
    """The dataclass value a message holds."""
    return _reader(cls)(message)
