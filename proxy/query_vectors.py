"""The vectors a search brings: bytes of a PlaceholderGroup to one matrix."""

from math import isfinite
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from core.errors import InvalidArgument, NotYet
from core.limits import NQ_MAX
from core.schema import Field
from core.types import TYPES, DataType
from proxy.rows_in import check_finite
from proxy.wire import common

BINARY, FLOAT = common.PlaceholderType.BinaryVector, common.PlaceholderType.FloatVector
MATCHING: dict[DataType, int] = {DataType.BINARY_VECTOR: BINARY, DataType.FLOAT_VECTOR: FLOAT}
"""The placeholder type each vector type is searched with."""


def read_vectors(group: bytes, field: Field) -> np.ndarray:
    """float32 [nq, dim], or uint8 [nq, dim/8] for a binary field; C-contiguous, read-only.

    Raises ``InvalidArgument`` for another type or dimension, NaN, infinity or a bad number of them.
    """
    try:
        placeholders = common.PlaceholderGroup.FromString(group).placeholders
    except DecodeError as e:
        raise InvalidArgument("the placeholder group is not a valid message") from e
    if len(placeholders) != 1:
        raise InvalidArgument(f"a search takes one placeholder, got {len(placeholders)}")
    _check_type(placeholders[0], field)
    values = placeholders[0].values
    check_nq(len(values))
    width = field.dim // 8 if field.type is DataType.BINARY_VECTOR else field.dim * 4
    if wrong := set(map(len, values)) - {width}:
        raise InvalidArgument(
            f"vector dimension mismatch, expected vector size(byte) {width}, actual {min(wrong)}: "
            f"field ({field.name}) has dim {field.dim}"
        )
    return as_matrix(b"".join(values), len(values), field)


def as_matrix(raw: bytes, nq: int, field: Field) -> np.ndarray:
    """As ``read_vectors``, from the bytes of nq vectors of the field's width."""
    if field.type is DataType.BINARY_VECTOR:
        return np.frombuffer(raw, np.uint8).reshape(nq, field.dim // 8)
    queries = np.frombuffer(raw, "<f4")
    # One call decides nearly always; a sum that only overflowed passes the exact look.
    if not isfinite(np.vdot(queries, queries)):
        check_finite("query vector", queries, field.dim)
    return queries.reshape(nq, field.dim)


def check_nq(nq: int) -> None:
    if not 1 <= nq <= NQ_MAX:
        raise InvalidArgument(
            f"nq [{nq}] is invalid, nq (number of search vector per search request) "
            f"should be in range [1, {NQ_MAX}], but got {nq}"
        )


def _check_type(placeholder: Any, field: Field) -> None:
    kind = placeholder.type
    if kind == MATCHING.get(field.type):
        return
    if kind == common.PlaceholderType.VarChar:
        raise NotYet("search by text is not served by this version yet")
    known = common.PlaceholderType.Name(kind) if kind in common.PlaceholderType.values() else kind
    raise InvalidArgument(
        f"vector type must be the same, field {field.name} - type {TYPES[field.type].label}, search info type {known}"
    )
