"""Noise in every field of every request: a clear answer within a second, the server alive.

``SHEAFDB_FUZZ_S`` sets the seconds of each fuzz, ``SHEAFDB_FUZZ_SEED`` replays one.
"""

import os
import random
import time
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from tests.e2e.wire import METHODS, TABLE, answer_to_bytes, insert, json_column, search, text_column
from tests.served import Served

FUZZ_S = float(os.environ.get("SHEAFDB_FUZZ_S", "8"))
SEED = int(os.environ.get("SHEAFDB_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


def test_strings_that_are_not_utf8(hostile: Served, stub: milvus_pb2_grpc.MilvusServiceStub) -> None:
    """The protobuf parser refuses them before any of our code: an error at once all the same."""
    for method, request in (
        ("Query", milvus_pb2.QueryRequest(collection_name="QQQQ")),
        ("Insert", insert(text=text_column("QQQQ"))),
        ("DescribeCollection", milvus_pb2.DescribeCollectionRequest(collection_name="QQQQ")),
    ):
        payload = request.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xc0\x80")
        answer_to_bytes(hostile.channel(), method, payload)


def test_random_bytes_as_requests(hostile: Served, stub: milvus_pb2_grpc.MilvusServiceStub) -> None:
    print(f"SHEAFDB_FUZZ_SEED={SEED}")
    chance, channel = random.Random(SEED), hostile.channel()
    end = time.monotonic() + FUZZ_S
    while time.monotonic() < end:
        method = chance.choice(METHODS)
        answer_to_bytes(channel, method, chance.randbytes(chance.choice([0, 1, 7, 100, 5000])))


def test_mutated_requests(hostile: Served, stub: milvus_pb2_grpc.MilvusServiceStub) -> None:
    """Valid requests with one field replaced by noise, in every place there is one."""
    print(f"SHEAFDB_FUZZ_SEED={SEED}")
    chance, channel = random.Random(SEED), hostile.channel()
    text = common_pb2.KeyValuePair(key="limit", value="5")
    seeds: dict[str, Message] = {
        "Search": search(dsl="n > 1", output_fields=["*"]),
        "Insert": insert(3, doc=json_column(b"{}", b"[1]", b"null"), text=text_column("a", "b", "c")),
        "Upsert": milvus_pb2.UpsertRequest(collection_name=TABLE, num_rows=3, fields_data=insert(3).fields_data),
        "Query": milvus_pb2.QueryRequest(
            collection_name=TABLE, expr="n > 1", output_fields=["text", "vector"], query_params=[text]
        ),
        "Delete": milvus_pb2.DeleteRequest(collection_name=TABLE, expr="id in [905, 906]"),
        "CreateIndex": milvus_pb2.CreateIndexRequest(
            collection_name=TABLE,
            field_name="vector",
            extra_params=[common_pb2.KeyValuePair(key="index_type", value="X")],
        ),
        "Flush": milvus_pb2.FlushRequest(collection_names=[TABLE]),
        "GetLoadState": milvus_pb2.GetLoadStateRequest(collection_name=TABLE, partition_names=["_default"]),
        "Connect": milvus_pb2.ConnectRequest(),
    }
    end, done = time.monotonic() + FUZZ_S, 0
    while time.monotonic() < end:
        method = chance.choice(list(seeds))
        request = type(seeds[method])()
        request.CopyFrom(seeds[method])
        for _ in range(chance.randint(1, 3)):
            mutate(request, chance)
        payload = request.SerializeToString()
        if keeps_the_table(method, request):
            answer_to_bytes(channel, method, payload)
            done += 1
    assert done > 100


def keeps_the_table(method: str, request: Any) -> bool:
    """Not a mutation that rightly changes the rows the other tests count on."""
    if method == "Delete":
        return "905" in request.expr
    if method in ("Insert", "Upsert"):
        keys = next((f.scalars.long_data.data for f in request.fields_data if f.field_name == "id"), [])
        return all(k >= 900 or k < 0 for k in keys)
    return True


def mutate(message: Any, chance: random.Random) -> None:
    """Replaces one value somewhere below a message by noise of its own type."""
    fields = [f for f in message.DESCRIPTOR.fields if f.name != "base"]
    field = chance.choice(fields)
    repeated = field.is_repeated
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if repeated:
            items = getattr(message, field.name)
            if hasattr(items, "keys"):
                return
            target = chance.choice(items) if len(items) and chance.random() < 0.8 else items.add()
        else:
            target = getattr(message, field.name)
            target.SetInParent()
        if target.DESCRIPTOR.fields and chance.random() < 0.9:
            mutate(target, chance)
    elif repeated:
        values = getattr(message, field.name)
        if len(values) and chance.random() < 0.7:
            values[chance.randrange(len(values))] = noise(field, chance)
        else:
            values.extend(noise(field, chance) for _ in range(chance.choice([1, 3, 50])))
    else:
        setattr(message, field.name, noise(field, chance))


def noise(field: FieldDescriptor, chance: random.Random) -> Any:
    size = chance.choice([0, 1, 4, 33, 4000])
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return chance.randbytes(size)
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice(["", "\x00", "id", "t", "∞", "(" * size, "9" * size, "{" * size, "not " * size])
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return chance.choice([0.0, -1.0, float("nan"), float("inf"), 3e38])
        case FieldDescriptor.CPPTYPE_UINT32:
            return chance.choice([0, 1, 2**31, 2**32 - 1])
        case FieldDescriptor.CPPTYPE_UINT64:
            return chance.choice([0, 1, 2**63, 2**64 - 1])
        case FieldDescriptor.CPPTYPE_INT64:
            return chance.choice([0, 1, -1, 2**40, 2**63 - 1, -(2**63)])
        case _:
            return chance.choice([0, 1, -1, 101, 2**31 - 1, -(2**31)])
