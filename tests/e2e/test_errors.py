"""The codes and wordings that clients and their test suites look for."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from pymilvus import DataType, MilvusClient, MilvusException

from tests.e2e.tables import ID, create, vector_field
from tests.e2e.wire import METHODS, SERVICE
from tests.served import Served

Call = Callable[[MilvusClient, str], Any]
ZERO = [[0.0] * 4]
UNKNOWN = r"collection not found\[database=default\]\[collection=nope\]"


def search(limit: int = 10, **options: Any) -> Call:
    return lambda c, n: c.search(n, limit=limit, **{"data": ZERO, **options})


CASES: dict[str, tuple[Call, int | None, str]] = {
    "describe unknown collection": (lambda c, n: c.describe_collection("nope"), 100, UNKNOWN),
    "search unknown collection": (lambda c, n: c.search("nope", ZERO), 100, UNKNOWN),
    "query unknown collection": (lambda c, n: c.query("nope", filter="id > 0"), 100, UNKNOWN),
    "insert into unknown collection": (lambda c, n: c.insert("nope", [{"id": 1}]), 100, UNKNOWN),
    "delete in unknown collection": (lambda c, n: c.delete("nope", filter="id > 0"), 100, UNKNOWN),
    "load unknown collection": (lambda c, n: c.load_collection("nope"), 100, UNKNOWN),
    "release unknown collection": (lambda c, n: c.release_collection("nope"), 100, UNKNOWN),
    "flush unknown collection": (lambda c, n: c.flush("nope"), 100, UNKNOWN),
    "statistics of unknown collection": (lambda c, n: c.get_collection_stats("nope"), 100, UNKNOWN),
    "partitions of unknown collection": (lambda c, n: c.list_partitions("nope"), 100, UNKNOWN),
    "search with too few numbers": (search(data=[[0.0] * 3]), None, "dim"),
    "search limit 16385": (
        search(16385),
        None,
        r"topk \[16385\] is invalid, top k should be in range \[1, 16384\], but got 16385",
    ),
    "search unknown vector field": (search(anns_field="zz"), None, "zz"),
    "search a scalar field": (search(anns_field="n"), None, "n"),
    "search wrong metric": (search(search_params={"metric_type": "IP"}), None, "metric type"),
    "search ef below limit": (search(50, search_params={"params": {"ef": 7}}), None, "ef"),
    "bad filter": (lambda c, n: c.query(n, filter="id >"), None, "cannot parse expression: id >"),
    "unknown field in filter": (
        lambda c, n: c.query(n, filter="zz == 1"),
        None,
        "cannot parse expression: zz == 1.*field zz not exist",
    ),
    "bad filter in search": (search(filter="id >> 1 >"), None, "cannot parse expression"),
    "filter of the wrong type": (lambda c, n: c.query(n, filter="n == 'text'"), None, "cannot parse expression"),
    "query without filter and limit": (
        lambda c, n: c.query(n, filter=""),
        None,
        "empty expression should be used with limit",
    ),
    "query window too large": (
        lambda c, n: c.query(n, filter="id > 0", offset=20000, limit=10),
        None,
        r"offset\+limit\) should be in range \[1, 16384\], but got 20010",
    ),
    "search window too large": (search(10, search_params={"offset": 16380}), None, r"16384"),
    "unknown output field in query": (
        lambda c, n: c.query(n, filter="id > 0", output_fields=["zz"]),
        None,
        "field zz not exist",
    ),
    "unknown output field in search": (search(output_fields=["zz"]), None, "field zz not exist"),
    "unknown partition": (
        lambda c, n: c.insert(n, [{"id": 1, "n": 1, "vector": ZERO[0]}], partition_name="zz"),
        200,
        r"partition not found\[partition=zz\]",
    ),
    "delete with a bad filter": (
        lambda c, n: c.delete(n, filter="id >"),
        None,
        "failed to create expr plan, expr = id >|cannot parse expression: id >",
    ),
    "missing template value": (lambda c, n: c.query(n, filter="id == {key}"), None, "key"),
}


@pytest.fixture
def table(client: MilvusClient, name: str) -> str:
    index = {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}}
    create(client, name, [ID, ("n", DataType.INT64, {}), vector_field(4)], {"vector": index})
    return name


@pytest.mark.parametrize("case", CASES)
def test_code_and_wording(client: MilvusClient, table: str, case: str) -> None:
    call, code, message = CASES[case]
    with pytest.raises(MilvusException, match=message) as e:
        call(client, table)
    assert e.value.code == code if code is not None else e.value.code != 0
    assert e.value.is_input_error
    assert not e.value.retriable


def test_dropped_and_unknown_things_are_success_where_milvus_says_so(client: MilvusClient, table: str) -> None:
    client.drop_collection("nope")
    client.drop_index(table, "nope")
    client.drop_partition(table, "nope")
    assert client.describe_index(table, "nope") is None
    assert client.get_load_state("nope")["state"].name == "NotExist"


def test_every_rpc_answers(server: Served) -> None:
    """Empty requests to all unary calls: a Status that says what is wrong, or at once that nobody serves this."""
    channel, unserved = server.channel(), set()
    for name in METHODS:
        method = SERVICE.methods_by_name[name]
        call = channel.unary_unary(
            f"/{SERVICE.full_name}/{name}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        try:
            reply = call(GetMessageClass(method.input_type)(), timeout=5)
        except grpc.RpcError as e:
            unserved.add((name, e.code()))
            continue
        # Connect, list and describe calls succeed on an empty request; the others say why not.
        status = next((getattr(reply, f) for f in ("status", "alter_status") if hasattr(reply, f)), reply)
        assert hasattr(status, "code"), name
        assert status.code == 0 or status.reason, name
    assert {code for _, code in unserved} <= {grpc.StatusCode.UNIMPLEMENTED}
    assert len(unserved) < 30, "only what no client calls is left unanswered"
