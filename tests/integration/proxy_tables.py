"""Collections that the proxy's tests make by the real client, and rows for them."""

from typing import Any

import numpy as np
from pymilvus import (
    DataType,
    MilvusClient,
)

DIM = 8


def vectors(rows: int, dim: int = DIM) -> list[list[float]]:
    return np.random.default_rng(rows).random((rows, dim), np.float32).tolist()


def indexed(client: MilvusClient, name: str, schema: Any, index: Any, **options: Any) -> None:
    """Creates, indexes and loads; without the client's half second of waiting per index."""
    client.create_collection(name, schema=schema, **options)
    client.create_index(name, index, sync=False)
    client.load_collection(name)


def quick(
    client: MilvusClient, rows: int = 20, *, auto_id: bool = False, metric_type: str = "COSINE", **options: Any
) -> list[list[float]]:
    """Collection "quick", as ``create_collection(dimension=)`` makes it, with ``rows`` rows of id, vector
    and dynamic keys."""
    schema = MilvusClient.create_schema(enable_dynamic_field=True, auto_id=auto_id)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    index = MilvusClient.prepare_index_params()
    index.add_index("vector", metric_type=metric_type)
    indexed(client, "quick", schema, index, **({"consistency_level": "Bounded"} | options))
    data = vectors(rows)
    if rows:
        client.insert("quick", [{"id": i, "vector": v, "color": f"c{i % 3}", "n": i} for i, v in enumerate(data)])
    return data


def declared(client: MilvusClient, name: str = "declared", **options: Any) -> None:
    """A collection with a field of every served type, loaded."""
    schema = MilvusClient.create_schema(enable_dynamic_field=True)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=20)
    schema.add_field("flag", DataType.BOOL, nullable=True)
    schema.add_field("tiny", DataType.INT8)
    schema.add_field("small", DataType.INT16, default_value=7)
    schema.add_field("medium", DataType.INT32, nullable=True)
    schema.add_field("large", DataType.INT64)
    schema.add_field("single", DataType.FLOAT)
    schema.add_field("double", DataType.DOUBLE)
    schema.add_field("text", DataType.VARCHAR, max_length=10, nullable=True)
    schema.add_field("doc", DataType.JSON)
    schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=10)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("bits", DataType.BINARY_VECTOR, dim=16)
    index = MilvusClient.prepare_index_params()
    index.add_index("dense", index_type="HNSW", metric_type="L2", params={"M": 8, "efConstruction": 100})
    index.add_index("bits", index_type="BIN_FLAT", metric_type="HAMMING")
    indexed(client, name, schema, index, **options)


def row(key: str, **changes: Any) -> dict[str, Any]:
    values = {
        "pk": key,
        "flag": True,
        "tiny": -5,
        "small": 300,
        "medium": 70_000,
        "large": 2**40,
        "single": 0.5,
        "double": 0.1,
        "text": "hi",
        "doc": {"a": [1, {"b": None}]},
        "tags": ["x", "y"],
        "dense": [1.0] * DIM,
        "bits": b"\x0f\xf0",
        "extra": 1,
    }
    return values | changes
