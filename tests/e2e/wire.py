"""Requests of the public protocol without a client library: sound ones, to be spoilt by tests."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message_factory import GetMessageClass
from pymilvus import DataType
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from tests.e2e.tables import ID, FieldSpec, vector_field

SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
METHODS = [m.name for m in SERVICE.methods if not m.client_streaming and not m.server_streaming]
CALL_S = 1.0
"""Longest time any hostile call may take."""
TRIES = 3

FINAL_CODES = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
"""gRPC errors that no client retries."""

DIM = 4
TABLE = "t"
FIELDS: list[FieldSpec] = [
    ID,
    ("n", DataType.INT64, {}),
    ("text", DataType.VARCHAR, {"max_length": 50}),
    ("doc", DataType.JSON, {}),
    ("tags", DataType.ARRAY, {"element_type": DataType.INT64, "max_capacity": 5}),
    vector_field(DIM),
]
"""The collection these requests are for."""
KEPT, KEPT_ROWS = "id >= 0 and id < 100", 100
"""The rows that no test may change; sound requests among the noise leave others beside them."""


T = TypeVar("T")


def in_time(call: Callable[[int], T]) -> T:
    """What a call gives, which is told how often it was tried.

    One of its tries must be in time: what is slow because of what was asked is slow each time, what a busy
    machine held up is not.
    """
    times: list[float] = []
    while True:
        began = time.monotonic()
        result = call(len(times))
        times.append(time.monotonic() - began)
        if times[-1] < CALL_S:
            return result
        assert len(times) < TRIES, f"took {times} s: {str(result)[:200]}"


def status_of(reply: Any) -> Any:
    """The part of a reply that says how the call went; the reply itself where it has no such part."""
    return next((getattr(reply, name) for name in ("status", "alter_status") if hasattr(reply, name)), reply)


def placeholder(*values: bytes, type: int = 101) -> bytes:
    group = common_pb2.PlaceholderGroup(
        placeholders=[common_pb2.PlaceholderValue(tag="$0", type=type, values=list(values))]
    )
    return group.SerializeToString()


def search(**changes: Any) -> milvus_pb2.SearchRequest:
    params = {"anns_field": "vector", "topk": "5", "metric_type": "L2", "params": "{}", "round_decimal": "-1"}
    params |= changes.pop("params", {})
    base: dict[str, Any] = {
        "collection_name": TABLE,
        "dsl_type": common_pb2.DslType.BoolExprV1,
        "nq": 1,
        "placeholder_group": placeholder(np.zeros(DIM, "f4").tobytes()),
        "search_params": [common_pb2.KeyValuePair(key=k, value=str(v)) for k, v in params.items()],
    }
    return milvus_pb2.SearchRequest(**{**base, **changes})


def insert(rows: int = 1, **columns: schema_pb2.FieldData) -> milvus_pb2.InsertRequest:
    """A valid insert with some columns replaced (None = left out)."""
    scalar, kind = schema_pb2.ScalarField, schema_pb2.DataType
    base = {
        "id": schema_pb2.FieldData(
            type=kind.Int64, scalars=scalar(long_data=schema_pb2.LongArray(data=range(900, 900 + rows)))
        ),
        "n": schema_pb2.FieldData(type=kind.Int64, scalars=scalar(long_data=schema_pb2.LongArray(data=[1] * rows))),
        "text": schema_pb2.FieldData(
            type=kind.VarChar, scalars=scalar(string_data=schema_pb2.StringArray(data=["x"] * rows))
        ),
        "doc": schema_pb2.FieldData(
            type=kind.JSON, scalars=scalar(json_data=schema_pb2.JSONArray(data=[b"{}"] * rows))
        ),
        "tags": schema_pb2.FieldData(
            type=kind.Array,
            scalars=scalar(
                array_data=schema_pb2.ArrayArray(
                    data=[scalar(long_data=schema_pb2.LongArray(data=[1]))] * rows, element_type=kind.Int64
                )
            ),
        ),
        "vector": vector_column(np.zeros((rows, DIM), "f4")),
    }
    fields = []
    for name, column in (base | columns).items():
        if column is not None:
            column.field_name = name
            fields.append(column)
    return milvus_pb2.InsertRequest(collection_name=TABLE, num_rows=rows, fields_data=fields)


def vector_column(values: np.ndarray, dim: int | None = None) -> schema_pb2.FieldData:
    data = schema_pb2.FloatArray(data=values.ravel().tolist())
    vectors = schema_pb2.VectorField(dim=values.shape[1] if dim is None else dim, float_vector=data)
    return schema_pb2.FieldData(type=schema_pb2.DataType.FloatVector, vectors=vectors)


def json_column(*documents: bytes) -> schema_pb2.FieldData:
    scalars = schema_pb2.ScalarField(json_data=schema_pb2.JSONArray(data=list(documents)))
    return schema_pb2.FieldData(type=schema_pb2.DataType.JSON, scalars=scalars)


def text_column(*texts: str) -> schema_pb2.FieldData:
    scalars = schema_pb2.ScalarField(string_data=schema_pb2.StringArray(data=list(texts)))
    return schema_pb2.FieldData(type=schema_pb2.DataType.VarChar, scalars=scalars)


def answer_to_bytes(channel: grpc.Channel, method: str, payload: bytes) -> None:
    """Sends a call with these bytes; it must get a reply, or a gRPC error that no client retries, in time."""
    output = SERVICE.methods_by_name[method].output_type
    call = channel.unary_unary(
        f"/{SERVICE.full_name}/{method}", response_deserializer=GetMessageClass(output).FromString
    )

    def answered(_: int) -> grpc.StatusCode | None:
        try:
            status = status_of(call(payload, timeout=10))
        except grpc.RpcError as e:
            return e.code()  # type: ignore[attr-defined] (the stubs lack it)
        assert not getattr(status, "code", 0) or status.reason, f"{method}: refused without a reason"
        return None

    code = in_time(answered)
    assert code in (None, *FINAL_CODES), f"{method}: {code}"
