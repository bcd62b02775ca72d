"""Input nobody should send: a clear Status within a second, memory bounded, the server alive."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
import pytest
from pymilvus import MilvusClient, MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

from tests.e2e.tables import count
from tests.e2e.wire import (
    DIM,
    KEPT,
    TABLE,
    in_time,
    insert,
    json_column,
    placeholder,
    search,
    status_of,
    text_column,
    vector_column,
)
from tests.served import Served

SEGMENTS = 40


def refused(call: Callable[[], Any]) -> common_pb2.Status:
    """The Status of a call that must fail clearly and at once."""
    status = status_of(in_time(lambda _: call()))
    assert status.code != 0
    assert status.error_code != 0
    assert status.reason
    assert len(status.reason) < 5000
    return status


NAN, INF = np.full((1, DIM), np.nan, "f4"), np.full((1, DIM), np.inf, "f4")

BAD_INSERTS: dict[str, Callable[[], milvus_pb2.InsertRequest]] = {
    "wrong dim": lambda: insert(vector=vector_column(np.zeros((1, DIM + 1), "f4"))),
    "dim that lies": lambda: insert(vector=vector_column(np.zeros((1, DIM - 1), "f4"), dim=DIM)),
    "dim zero": lambda: insert(vector=vector_column(np.zeros((1, DIM), "f4"), dim=0)),
    "dim negative": lambda: insert(vector=vector_column(np.zeros((1, DIM), "f4"), dim=-4)),
    "dim huge": lambda: insert(vector=vector_column(np.zeros((1, DIM), "f4"), dim=2**62)),
    "nan": lambda: insert(vector=vector_column(NAN)),
    "infinite": lambda: insert(vector=vector_column(-INF)),
    "too few rows": lambda: insert(2, text=text_column("one")),
    "too many rows": lambda: insert(1, text=text_column("one", "two")),
    "long string": lambda: insert(text=text_column("x" * 51)),
    "very long string": lambda: insert(text=text_column("x" * 5_000_000)),
    "long in bytes only": lambda: insert(text=text_column("ü" * 30)),
    "missing column": lambda: insert(n=None),
    "wrong type": lambda: insert(n=text_column("one")),
    "no payload": lambda: insert(n=schema_pb2.FieldData(type=schema_pb2.DataType.Int64)),
    "unknown type number": lambda: insert(n=schema_pb2.FieldData(type=987)),
    "unknown column": lambda: insert(surprise=text_column("x")),
    "not JSON": lambda: insert(doc=json_column(b"{not json")),
    "JSON not UTF-8": lambda: insert(doc=json_column(b'{"a": "\xff\xfe"}')),
    "JSON nested 100,000 deep": lambda: insert(doc=json_column(b"[" * 100_000 + b"]" * 100_000)),
    "JSON objects 10,000 deep": lambda: insert(doc=json_column(b'{"a":' * 10_000 + b"1" + b"}" * 10_000)),
    "JSON too large": lambda: insert(doc=json_column(json.dumps({"a": "x" * 70_000}).encode())),
    "JSON with NaN": lambda: insert(doc=json_column(b'{"a": NaN}')),
    "validity too short": lambda: insert(2, n=schema_pb2.FieldData(type=schema_pb2.DataType.Int64, valid_data=[True])),
    "rows without end": lambda: milvus_pb2.InsertRequest(collection_name=TABLE, num_rows=2**32 - 1),
    "no collection": lambda: milvus_pb2.InsertRequest(num_rows=1),
    "control characters as a name": lambda: milvus_pb2.InsertRequest(collection_name="\x00\n../../x", num_rows=1),
}


@pytest.mark.parametrize("case", BAD_INSERTS)
def test_bad_inserts(stub: milvus_pb2_grpc.MilvusServiceStub, case: str) -> None:
    request = BAD_INSERTS[case]()
    refused(lambda: stub.Insert(request, timeout=10))
    upsert = milvus_pb2.UpsertRequest(
        collection_name=request.collection_name, num_rows=request.num_rows, fields_data=request.fields_data
    )
    refused(lambda: stub.Upsert(upsert, timeout=10))


BAD_SEARCHES: dict[str, Callable[[], milvus_pb2.SearchRequest]] = {
    "wrong dim": lambda: search(placeholder_group=placeholder(bytes(12))),
    "odd bytes": lambda: search(placeholder_group=placeholder(bytes(13))),
    "no bytes": lambda: search(placeholder_group=placeholder(b"")),
    "nan": lambda: search(placeholder_group=placeholder(NAN.tobytes())),
    "infinite": lambda: search(placeholder_group=placeholder(INF.tobytes())),
    "unknown placeholder type": lambda: search(placeholder_group=placeholder(bytes(16), type=9999)),
    "binary for float": lambda: search(placeholder_group=placeholder(bytes(16), type=100)),
    "garbage placeholder": lambda: search(placeholder_group=os.urandom(200)),
    "no placeholder": lambda: search(placeholder_group=b""),
    "too many queries": lambda: search(nq=17_000, placeholder_group=placeholder(*[bytes(16)] * 17_000)),
    "topk zero": lambda: search(params={"topk": 0}),
    "topk negative": lambda: search(params={"topk": -5}),
    "topk huge": lambda: search(params={"topk": 10**30}),
    "topk not a number": lambda: search(params={"topk": "many"}),
    "offset negative": lambda: search(params={"offset": -1}),
    "offset huge": lambda: search(params={"offset": 10**30}),
    "params not JSON": lambda: search(params={"params": "{ef"}),
    "params a list": lambda: search(params={"params": "[1]"}),
    "params deep": lambda: search(params={"params": '{"a":' * 5000 + "1" + "}" * 5000}),
    "ef huge": lambda: search(params={"params": json.dumps({"ef": 10**12})}),
    "ef negative": lambda: search(params={"params": json.dumps({"ef": -1})}),
    "ef of text": lambda: search(params={"params": json.dumps({"ef": "x"})}),
    "radius nan": lambda: search(params={"params": '{"radius": NaN}'}),
    "round_decimal": lambda: search(params={"round_decimal": 10**6}),
    "group by unknown": lambda: search(params={"group_by_field": "zz"}),
    "group size huge": lambda: search(params={"group_by_field": "n", "group_size": 10**12}),
    "metric": lambda: search(params={"metric_type": "Ω"}),
    "field": lambda: search(params={"anns_field": "x" * 100_000}),
    "output field": lambda: search(output_fields=["\x00" * 1000]),
    "partition": lambda: search(partition_names=["no\x00such"]),
    "iterator token": lambda: search(
        params={"iterator": "True", "search_iter_v2": "True", "search_iter_batch_size": 10, "search_iter_id": "zz"}
    ),
}


@pytest.mark.parametrize("case", BAD_SEARCHES)
def test_bad_searches(stub: milvus_pb2_grpc.MilvusServiceStub, case: str) -> None:
    request = BAD_SEARCHES[case]()
    refused(lambda: stub.Search(request, timeout=10))


BAD_FILTERS = {
    "deep parentheses": "(" * 50_000 + "n > 1" + ")" * 50_000,
    "unclosed parentheses": "(" * 50_000 + "n > 1",
    "deep not": "not " * 50_000 + "n > 1",
    "deep minus": "n == " + "-" * 50_000 + "1",
    "deep brackets": "n in " + "[" * 50_000 + "]" * 50_000,
    "too many terms": " or ".join(f"n == {i}" for i in range(100_000)),
    "longer than allowed": "n == 1" + " " * 1_100_000,
    "only noise": "\x00\x01 ; drop table",
    "unknown function": "sleep(1000) == 1",
    "text for a number": "n == 'x'",
    "number out of range": "n == " + "9" * 10_000,
    "exponent": "n == 1e999999999",
    "power": "n ** 999999 ** 999999 > 1",
    "unfinished string": "text == 'abc",
    "unicode": "n == ①",
    "template without value": "n == {x}",
    "backslashes": "text like '" + "\\" * 10_001 + "'",
}


@pytest.mark.parametrize("case", BAD_FILTERS)
def test_bad_filters(stub: milvus_pb2_grpc.MilvusServiceStub, case: str) -> None:
    text = BAD_FILTERS[case]
    refused(lambda: stub.Query(milvus_pb2.QueryRequest(collection_name=TABLE, expr=text), timeout=10))
    refused(lambda: stub.Search(search(dsl=text), timeout=10))
    refused(lambda: stub.Delete(milvus_pb2.DeleteRequest(collection_name=TABLE, expr=text), timeout=10))


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        (" or ".join(f"n == {i}" for i in range(5000)), 100),
        (" and ".join(f"n != {i}" for i in range(50, 5050)), 50),
        (" or ".join(f"array_contains(tags, {i})" for i in range(2500)), 100),
        (" or ".join(f"text like '{i}%'" for i in range(5000)), 100),
        ("n in [" + ",".join(str(i) for i in range(50, 20_050)) + "]", 50),
        ("(" * 100 + "n < 7" + ")" * 100, 7),
        ("text like '" + "%" * 1000 + "9'", 10),
        ("text like '" + "%9" * 40 + "'", 0),
        ("doc" + '["a"]' * 50_000 + " == 1", 0),
    ],
    ids=[
        "5,000 or",
        "5,000 and",
        "2,500 calls",
        "5,000 patterns",
        "in 20,000",
        "100 parentheses",
        "1,000 wildcards",
        "backtracking wildcards",
        "deep path",
    ],
)
def test_large_but_sound_filters_are_answered_in_time(hostile: Served, text: str, matches: int) -> None:
    client = hostile.client()
    # A filter of its own for every try: none finds it compiled.
    assert in_time(lambda attempt: count(client, TABLE, f"({text}) and {KEPT} and n != {-attempt - 1}")) == matches


def test_huge_but_allowed_limits(hostile: Served) -> None:
    client = hostile.client()
    assert len(client.search(TABLE, [[0.0] * DIM], limit=16_384, search_params={"params": {"ef": 16_384}})[0]) >= 100
    assert len(client.query(TABLE, filter="", limit=16_384)) >= 100
    with pytest.raises(MilvusException):
        client.query(TABLE, filter="", limit=16_385)


def test_schemas_that_are_no_schemas(stub: milvus_pb2_grpc.MilvusServiceStub) -> None:
    kind = schema_pb2.DataType
    key = schema_pb2.FieldSchema(name="id", data_type=kind.Int64, is_primary_key=True)

    def vector(dim: str) -> schema_pb2.FieldSchema:
        params = [common_pb2.KeyValuePair(key="dim", value=dim)]
        return schema_pb2.FieldSchema(name="v", data_type=kind.FloatVector, type_params=params)

    unknown = schema_pb2.FieldSchema(name="u", data_type=12345)
    for fields in (
        [],
        [key],
        [vector("4")],
        [key, key, vector("4")],
        [key, vector("x")],
        [key, vector("-1")],
        [key, vector("9" * 5000)],
        [key, vector("4"), unknown],
        [key, vector("4"), *[schema_pb2.FieldSchema(name=f"f{i}", data_type=kind.Int8) for i in range(1000)]],
        [key, vector("4"), schema_pb2.FieldSchema(name="x" * 100_000, data_type=kind.Int8)],
    ):
        schema = schema_pb2.CollectionSchema(name="bad", fields=fields).SerializeToString()
        for shards in (1, 10**6, -1):
            request = milvus_pb2.CreateCollectionRequest(collection_name="bad", schema=schema, shards_num=shards)
            refused(lambda request=request: stub.CreateCollection(request, timeout=10))
    refused(
        lambda: stub.CreateCollection(
            milvus_pb2.CreateCollectionRequest(collection_name="bad", schema=os.urandom(500)), timeout=10
        )
    )


def test_wide_searches_of_many_small_segments(hostile: Served, stub: milvus_pb2_grpc.MilvusServiceStub) -> None:
    """What they find in each segment must not add up in memory, nor keep others waiting while it is merged."""
    client = hostile.client()
    for first in range(10_000, 10_000 + 3 * SEGMENTS, 3):
        rows = [
            {"id": n, "n": 1, "text": "", "doc": {}, "tags": [], "vector": [1e3] * DIM} for n in range(first, first + 3)
        ]
        client.insert(TABLE, rows)
        client.flush(TABLE)
    wide = search(nq=1000, placeholder_group=placeholder(*[bytes(16)] * 1000), params={"topk": 100})
    running = [stub.Search.future(wide, timeout=60) for _ in range(30)]
    while not all(reply.done() for reply in running):
        assert in_time(lambda _: stub.Search(search(), timeout=10)).status.code == 0
        time.sleep(0.05)
    assert all(sum(reply.result().results.topks) == 100_000 for reply in running)


def test_half_requests_and_many_connections(hostile: Served, stub: milvus_pb2_grpc.MilvusServiceStub) -> None:
    """Deadlines that pass and connections that go leave nothing behind."""
    heavy = search(nq=1000, placeholder_group=placeholder(*[bytes(16)] * 1000), params={"topk": 100})
    for n in range(50):
        with suppress(grpc.RpcError):
            stub.Search(heavy, timeout=0.0002 * n)
    for _ in range(100):
        channel = hostile.channel()
        milvus_pb2_grpc.MilvusServiceStub(channel).Search.future(heavy, timeout=30)
        channel.close()
    client: MilvusClient = hostile.client()
    assert len(client.search(TABLE, [[0.0] * DIM], limit=3)[0]) == 3
    # A long filter waits for a thread: it would wait for all of the searches that nobody waits for.
    began = time.monotonic()
    assert count(client, TABLE, f"n in {list(range(50, 20_050))} and {KEPT}") == 50
    assert time.monotonic() - began < 5
