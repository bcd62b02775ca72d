"""A schema with a field of every kind, four rows of it, and which of them a filter matches."""

from typing import Any

import orjson
import pyarrow as pa

from core.ids import FieldId
from core.schema import DYNAMIC, Field, Schema
from core.types import DataType
from engine.filter import compile

FIELDS = (
    Field(FieldId(100), "id", DataType.INT64, primary=True),
    Field(FieldId(101), "age", DataType.INT8, nullable=True),
    Field(FieldId(102), "price", DataType.FLOAT),
    Field(FieldId(103), "score", DataType.DOUBLE),
    Field(FieldId(104), "name", DataType.VARCHAR, nullable=True),
    Field(FieldId(105), "sold", DataType.BOOL),
    Field(FieldId(106), "sizes", DataType.ARRAY, element_type=DataType.INT32),
    Field(FieldId(107), "tags", DataType.ARRAY, element_type=DataType.VARCHAR, nullable=True),
    Field(FieldId(108), "info", DataType.JSON, nullable=True),
    Field(FieldId(109), "vector", DataType.FLOAT_VECTOR, dim=2),
)


STRICT = Schema(FIELDS)


SCHEMA = Schema((*FIELDS, Field(FieldId(110), DYNAMIC, DataType.JSON, dynamic=True)))


ROWS: list[dict[str, Any]] = [
    {
        "id": 1,
        "age": 5,
        "price": 0.1,
        "score": -1.5,
        "name": "apple",
        "sold": True,
        "sizes": [1, 2, 3],
        "tags": ["a", "b"],
        "info": {"color": "red", "n": 1, "list": [1, "x", [2, 3]], "deep": {"x": [{"y": 7}]}, "ok": True},
        DYNAMIC: {"kind": "fruit", "rank": 1, "größe": 3},
    },
    {
        "id": 2,
        "age": -7,
        "price": 2.5,
        "score": 3.0,
        "name": "apple_pie",
        "sold": False,
        "sizes": [],
        "tags": None,
        "info": {"color": 7, "n": 2.5, "list": [], "ok": 1},
        DYNAMIC: {"kind": "cake", "rank": 2.0},
    },
    {
        "id": 3,
        "age": None,
        "price": 100.0,
        "score": float("nan"),
        "name": None,
        "sold": True,
        "sizes": [3],
        "tags": [],
        "info": None,
        DYNAMIC: {"kind": None},
    },
    {
        "id": 4,
        "age": 127,
        "price": -0.0,
        "score": 2.0**53,
        "name": '50% "off"\n\0é',
        "sold": False,
        "sizes": [3, 3, 4, 5],
        "tags": ["b"],
        "info": {"color": "blue", "n": "1", "list": "no", "big": 2**62, "0": "zero"},
        DYNAMIC: {"rank": "1"},
    },
]


def columns() -> dict[str, pa.Array]:
    result = {}
    for field in SCHEMA.fields:
        if field.is_vector:
            continue
        values = [row[field.name] for row in ROWS]
        if field.type is DataType.JSON:
            values = [None if v is None else orjson.dumps(v).decode() for v in values]
        result[field.name] = pa.array(values, field.arrow_type)
    return result


COLUMNS = columns()


def matching(text: str, params: dict[str, Any] | None = None) -> list[int]:
    found = compile(text, SCHEMA, params or {}).mask(COLUMNS.__getitem__, len(ROWS))
    return [row["id"] for row, hit in zip(ROWS, found, strict=True) if hit]
