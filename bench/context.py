"""What every measure gets: the data, how long to measure, and where its rows go."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from bench.clients import INSERT, OPTIONS
from bench.data import Dataset, K, recall
from bench.server import Server, settle

COLLECTION = "bench"
BATCH = 1000
HNSW = {"index_type": "HNSW", "metric_type": "COSINE", "params": {"M": 16, "efConstruction": 200}}
AUTOINDEX = {"index_type": "AUTOINDEX", "metric_type": "COSINE"}
EFS = (10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256)
RECALL_MIN = 0.95
GUARANTEES = {common_pb2.Strong: 0, common_pb2.Bounded: 2, common_pb2.Eventually: 1}
"""The time stamps that stand for a consistency level on the wire."""


@dataclass(frozen=True)
class Row:
    """One line of the report. at_least, aim: the issue's bounds; None where there is none.

    smaller_is_better: how the bounds are to be read.
    """

    measure: str
    value: float
    unit: str
    at_least: float | None = None
    aim: float | None = None
    smaller_is_better: bool = False
    note: str = ""

    def meets(self, bound: float | None) -> bool | None:
        if bound is None:
            return None
        return self.value <= bound if self.smaller_is_better else self.value >= bound


@dataclass
class Bench:
    """data: what is measured on; seconds: how long each load runs; images: where pictures go (or nowhere)."""

    data: Dataset
    seconds: float
    rows: list[Row] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    """Text of the report by heading, for what is no single number."""
    images: dict[str, bytes] = field(default_factory=dict)

    def add(self, *rows: Row) -> None:
        for row in rows:
            print(f"{row.measure:55} {row.value:12,.2f} {row.unit}  {row.note}", flush=True)
            self.rows.append(row)

    @contextmanager
    def loaded(self, index: dict | None = None) -> Iterator[Server]:
        """A server that holds all rows, sealed, indexed and at rest."""
        with Server() as server:
            create(server.client(), self.data.dim, index or HNSW)
            insert_all(server.address, insert_requests(self.data))
            settle(server, COLLECTION)
            yield server


def create(client: MilvusClient, dim: int, index: dict) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("pick", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    params = client.prepare_index_params()
    params.add_index("vector", **index)
    client.create_collection(COLLECTION, schema=schema, index_params=params)


def insert_requests(data: Dataset, size: int = BATCH) -> list[milvus_pb2.InsertRequest]:
    """All rows as prepared requests of ``size`` rows; ids are row numbers."""
    requests = []
    for start in range(0, data.rows, size):
        end = min(start + size, data.rows)
        long = schema_pb2.DataType.Int64
        columns = [
            _numbers("id", long, np.arange(start, end)),
            _numbers("pick", long, data.pick[start:end]),
            schema_pb2.FieldData(
                field_name="vector",
                type=schema_pb2.DataType.FloatVector,
                vectors=schema_pb2.VectorField(
                    dim=data.dim, float_vector=schema_pb2.FloatArray(data=data.vectors[start:end].ravel())
                ),
            ),
        ]
        requests.append(milvus_pb2.InsertRequest(collection_name=COLLECTION, num_rows=end - start, fields_data=columns))
    return requests


def _numbers(name: str, kind: schema_pb2.DataType, values: np.ndarray) -> schema_pb2.FieldData:
    scalars = schema_pb2.ScalarField(long_data=schema_pb2.LongArray(data=values.tolist()))
    return schema_pb2.FieldData(field_name=name, type=kind, scalars=scalars)


def insert_all(address: str, requests: Iterable[milvus_pb2.InsertRequest]) -> float:
    """Seconds for these inserts, one after the other."""
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        started = time.perf_counter()
        for request in requests:
            insert(channel, request)
        return time.perf_counter() - started


def insert(channel: grpc.Channel, request: milvus_pb2.InsertRequest) -> None:
    """One acknowledged insert, without a client library."""
    reply = channel.unary_unary(
        INSERT,
        request_serializer=milvus_pb2.InsertRequest.SerializeToString,
        response_deserializer=milvus_pb2.MutationResult.FromString,
    )(request, timeout=60)
    if reply.status.code:
        raise RuntimeError(reply.status.reason)


def search_requests(
    queries: np.ndarray, ef: int, filter: str = "", level: common_pb2.ConsistencyLevel = common_pb2.Bounded
) -> list[bytes]:
    """One prepared Search per query, as pymilvus would send it."""
    return [search_request([query], ef, filter, level) for query in queries]


def search_request(
    queries: Sequence[np.ndarray],
    ef: int,
    filter: str = "",
    level: common_pb2.ConsistencyLevel = common_pb2.Bounded,
) -> bytes:
    """A prepared Search of these queries."""
    params = {"anns_field": "vector", "topk": K, "metric_type": "COSINE", "round_decimal": -1, "offset": 0}
    params["params"] = f'{{"ef": {ef}}}'
    pairs = [common_pb2.KeyValuePair(key=k, value=str(v)) for k, v in params.items()]
    value = common_pb2.PlaceholderValue(
        tag="$0", type=common_pb2.PlaceholderType.FloatVector, values=[query.tobytes() for query in queries]
    )
    request = milvus_pb2.SearchRequest(
        collection_name=COLLECTION,
        dsl=filter,
        dsl_type=common_pb2.DslType.BoolExprV1,
        nq=len(queries),
        placeholder_group=common_pb2.PlaceholderGroup(placeholders=[value]).SerializeToString(),
        search_params=pairs,
        guarantee_timestamp=GUARANTEES[level],
        consistency_level=level,
        use_default_consistency=False,
    )
    return request.SerializeToString()


def measured_recall(
    client: MilvusClient, data: Dataset, ef: int, filter: str = "", truth: np.ndarray | None = None
) -> float:
    """recall@K over all queries, asked one by one as they will be measured."""
    found = []
    for query in data.queries:
        hits = client.search(COLLECTION, [query], limit=K, filter=filter, search_params={"params": {"ef": ef}})[0]
        found.append([h["id"] for h in hits])
    return recall(found, data.truth if truth is None else truth)


def smallest_ef(server: Server, data: Dataset) -> tuple[int, float]:
    """The smallest ``ef`` with enough recall, and its recall."""
    client = server.client()
    try:
        for ef in EFS:
            if (reached := measured_recall(client, data, ef)) >= RECALL_MIN:
                return ef, reached
    finally:
        client.close()
    raise SystemExit(f"recall {RECALL_MIN} is not reached at ef={EFS[-1]}")
