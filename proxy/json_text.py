"""JSON values as they come from clients: checked, and made compact."""

import re
from collections.abc import Sequence

import numpy as np
import orjson

from core.errors import InvalidArgument
from core.limits import JSON_BYTES_MAX, JSON_DEPTH_MAX

STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def compact(field: str, texts: Sequence[bytes], *, objects: bool = False) -> list[bytes]:
    """The same values as compact UTF-8 text.

    objects: every value must be an object (the dynamic field). Raises ``InvalidArgument`` naming
    field and row for text that is no JSON, too long or nested deeper than ``JSON_DEPTH_MAX``.
    """
    longest = max(map(len, texts), default=0)
    if longest > JSON_BYTES_MAX:
        _refuse_length(field, longest, objects)
    # Depth d takes at least 2d bytes, so short texts need no look.
    if longest > 2 * JSON_DEPTH_MAX:
        for row, text in enumerate(texts):
            if len(text) > 2 * JSON_DEPTH_MAX and _depth(text) > JSON_DEPTH_MAX:
                raise InvalidArgument(f"JSON of field {field} in row {row} is nested deeper than {JSON_DEPTH_MAX}")
    try:
        # map() over C functions: no Python frame per row.
        out = list(map(orjson.dumps, map(orjson.loads, texts)))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        _name_row(field, texts)
        raise
    if objects and not {text[:1] for text in out} <= {b"{"}:
        row = next(i for i, text in enumerate(out) if text[:1] != b"{")
        raise InvalidArgument(f"the dynamic field of row {row} is not a JSON object: invalid parameter")
    return out


def _refuse_length(field: str, length: int, dynamic: bool) -> None:
    if dynamic:
        raise InvalidArgument(
            f"the length ({length}) of dynamic field exceeds max length ({JSON_BYTES_MAX}): "
            "invalid parameter[expected=valid length dynamic field][actual=length exceeds max length]"
        )
    raise InvalidArgument(
        f"the length ({length}) of json field ({field}) exceeds max length ({JSON_BYTES_MAX}): "
        "invalid parameter[expected=valid length json string][actual=length exceeds max length]"
    )


def _depth(text: bytes) -> int:
    if text.count(b"[") + text.count(b"{") <= JSON_DEPTH_MAX:
        return 0
    raw = np.frombuffer(STRINGS.sub(b"", text), np.uint8)
    # "[" and "{" differ from each other, and "]" from "}", in bit 0x20 alone.
    folded = raw & 0xDF
    steps = (folded == ord("[")).astype(np.int32) - (folded == ord("]"))
    return int(np.cumsum(steps).max(initial=0))


def _name_row(field: str, texts: Sequence[bytes]) -> None:
    for row, text in enumerate(texts):
        try:
            orjson.dumps(orjson.loads(text))
        except (orjson.JSONDecodeError, orjson.JSONEncodeError) as e:
            raise InvalidArgument(f"field {field}, row {row}: not valid JSON: {e}") from e
