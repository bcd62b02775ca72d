"""Collections, vectors and exact answers that several end-to-end tests use."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

FieldSpec = tuple[str, DataType, dict[str, Any]]

ID: FieldSpec = ("id", DataType.INT64, {"is_primary": True})


def vector_field(dim: int, name: str = "vector") -> FieldSpec:
    return name, DataType.FLOAT_VECTOR, {"dim": dim}


def create(
    client: MilvusClient,
    name: str,
    fields: Sequence[FieldSpec],
    indexes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    auto_id: bool = False,
    dynamic: bool = False,
    **options: Any,
) -> None:
    """Creates a collection of these fields; loads it when ``indexes`` (by field name) are given."""
    schema = client.create_schema(auto_id=auto_id, enable_dynamic_field=dynamic)
    for field, data_type, more in fields:
        schema.add_field(field, data_type, **more)
    params = None
    if indexes:
        params = client.prepare_index_params()
        for field, index in indexes.items():
            params.add_index(field, **index)
    client.create_collection(name, schema=schema, index_params=params, **options)


def vectors(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    """float32 [rows, dim], normal."""
    return np.random.default_rng(seed).standard_normal((rows, dim), np.float32)


def bits(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    """uint8 [rows, dim / 8]."""
    return np.random.default_rng(seed).integers(0, 256, (rows, dim // 8), np.uint8)


def scores(metric: str, base: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """float64 [queries, base]: every score, straight from the definition."""
    if metric in ("HAMMING", "JACCARD"):
        b, q = np.unpackbits(base, axis=1), np.unpackbits(queries, axis=1)
        both = (q[:, None] & b[None]).sum(2)
        either = (q[:, None] | b[None]).sum(2)
        return (either - both).astype(float) if metric == "HAMMING" else 1 - both / np.maximum(either, 1)
    b, q = base.astype(np.float64), queries.astype(np.float64)
    if metric == "L2":
        return ((q[:, None] - b[None]) ** 2).sum(2)
    if metric == "COSINE":
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    return q @ b.T


def best(metric: str, all_scores: np.ndarray, k: int) -> np.ndarray:
    """int64 [queries, k]: the columns with the best scores, best first."""
    order = -all_scores if metric in ("IP", "COSINE") else all_scores
    return np.argsort(order, axis=1, kind="stable")[:, :k]


def recall(found: Iterable[Iterable[int]], truth: np.ndarray) -> float:
    """Share of the true neighbours that were found."""
    return float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found, truth.tolist(), strict=True)]))


def ids(result: Sequence[Sequence[Mapping[str, Any]]], key: str = "id") -> list[list[Any]]:
    return [[hit[key] for hit in hits] for hits in result]


def distances(result: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[float]]:
    return [[hit["distance"] for hit in hits] for hits in result]


def count(client: MilvusClient, name: str, filter: str = "", **options: Any) -> int:
    """The exact number of rows that match."""
    rows = client.query(name, filter=filter, output_fields=["count(*)"], consistency_level="Strong", **options)
    return rows[0]["count(*)"]
