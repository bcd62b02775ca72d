"""Requests no honest client sends: each gets a clear Status, soon, and never an internal error."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pymilvus import DataType, MilvusClient
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from core.clock import HybridClock
from core.settings import Settings
from proxy.service import Proxy
from proxy.status import INTERNAL
from proxy.wire import input_class, output_class
from storage.catalog import Catalog
from tests.fakes import FakeCoordinator, FakeLog, FakeMeta, FakeNodes, FakeQueryNode

BUDGET_S = 8.0
SLOWEST_S = 2.0
NAMES = ["c", "c", "c", "id", "text", "doc", "tags", "dense", "bits", "$meta", "_default", "zz", "", "*", "count(*)"]


METADATA = (("dbname", ""), ("client-request-id", "hostile"))


class Target:
    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    async def answer(self, rpc: str, data: bytes) -> bytes:
        """As a listener has it done."""
        method = self.proxy.methods[rpc]
        return method.at_once([(data, METADATA, None)])[0] or await method.answer((data, METADATA, None))

    async def raw(self, rpc: str, data: bytes) -> Any:
        started = time.monotonic()
        reply = output_class(rpc).FromString(await self.answer(rpc, data))
        assert time.monotonic() - started < SLOWEST_S, f"{rpc} was slow"
        return reply

    async def status(self, rpc: str, request: Message) -> Any:
        return status_of(await self.raw(rpc, request.SerializeToString()))


def status_of(reply: Any) -> Any:
    if isinstance(reply, common_pb2.Status) or reply.DESCRIPTOR.full_name.endswith("common.Status"):
        return reply
    return reply.alter_status if "alter_status" in reply.DESCRIPTOR.fields_by_name else reply.status


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    clock, meta, log = HybridClock(), FakeMeta(), FakeLog()
    catalog = Catalog(meta)
    await catalog.start()
    node = FakeQueryNode(catalog, log)
    proxy = Proxy(Settings(), catalog, FakeCoordinator(meta, clock), FakeNodes(node), log, clock)
    await proxy.start()
    target = Target(proxy)
    schema = MilvusClient.create_schema(enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=10, nullable=True)
    schema.add_field("tiny", DataType.INT8, nullable=True)
    schema.add_field("doc", DataType.JSON, nullable=True)
    schema.add_field("tags", DataType.ARRAY, element_type=DataType.INT16, max_capacity=3, nullable=True)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=4)
    schema.add_field("bits", DataType.BINARY_VECTOR, dim=16)
    for rpc, request in (
        ("CreateCollection", Prepare.create_collection_request("c", schema)),
        ("CreateIndex", Prepare.create_index_request("c", "dense", {"metric_type": "L2"})),
        ("CreateIndex", Prepare.create_index_request("c", "bits", {})),
        ("LoadCollection", Prepare.load_collection("c")),
        ("Insert", insert(1)),
    ):
        assert (await target.status(rpc, request)).code == 0, rpc
    yield target
    await proxy.close()
    await catalog.close()


def column(name: str, kind: DataType, **scalars: Any) -> Any:
    return schema_pb2.FieldData(type=kind.value, field_name=name, scalars=schema_pb2.ScalarField(**scalars))


def insert(rows: int, *more: Any, dense: list[float] | None = None) -> Any:
    """A valid insert of ``rows`` rows, with further columns."""
    request = milvus_pb2.InsertRequest(collection_name="c", num_rows=rows)
    request.fields_data.append(column("id", DataType.INT64, long_data=schema_pb2.LongArray(data=range(rows))))
    vector = request.fields_data.add(type=DataType.FLOAT_VECTOR.value, field_name="dense")
    vector.vectors.dim = 4
    vector.vectors.float_vector.data.extend([0.5] * (4 * rows) if dense is None else dense)
    bits = request.fields_data.add(type=DataType.BINARY_VECTOR.value, field_name="bits")
    bits.vectors.dim = 16
    bits.vectors.binary_vector = b"ab" * rows
    request.fields_data.extend(more)
    return request


def json_column(*texts: bytes, name: str = "doc") -> Any:
    data = column(name, DataType.JSON, json_data=schema_pb2.JSONArray(data=texts))
    data.is_dynamic = name == "$meta"
    return data


def strings(*values: str) -> Any:
    return column("text", DataType.VARCHAR, string_data=schema_pb2.StringArray(data=values))


def numbers(name: str, kind: DataType, *values: int) -> Any:
    return column(name, kind, int_data=schema_pb2.IntArray(data=values))


def array(*cells: list[int]) -> Any:
    data = column("tags", DataType.ARRAY, array_data=schema_pb2.ArrayArray(element_type=DataType.INT16.value))
    for cell in cells:
        data.scalars.array_data.data.add().int_data.data.extend(cell)
    return data


BAD_ROWS: list[tuple[Callable[[], Any], str]] = [
    (lambda: insert(0), "num_rows should be greater than 0"),
    (lambda: insert(2, dense=[0.5] * 4), r"the num_rows (1) of field (dense) is not equal to passed num_rows (2)"),
    (lambda: insert(1, dense=[0.5] * 3), "the length(3) of float data should divide the dim(4)"),
    (lambda: insert(2, dense=[0.5] * 6 + [float("nan"), 0.5]), "field (dense), row 1"),
    (lambda: insert(1, dense=[0.5, float("inf"), 0.5, 0.5]), "'inf' is not a number or infinity"),
    (lambda: insert(2, strings("ok", "x" * 11)), "the length (11) of 1th string exceeds max length (10)"),
    (lambda: insert(1, strings("ö" * 6)), "the length (12) of 0th string exceeds max length (10)"),
    (lambda: insert(1, numbers("tiny", DataType.INT8, 128)), "the 0th element (128) out of range: [-128, 127]"),
    (lambda: insert(1, numbers("text", DataType.VARCHAR, 1)), "field (text) has type VarChar"),
    (lambda: insert(1, numbers("tiny", DataType.VARCHAR, 1)), "has type Int8, the data passed has type VarChar"),
    (lambda: insert(1, numbers("zz", DataType.INT8, 1)), "fieldName zz not exist in collection schema"),
    (lambda: insert(1, array([1, 2, 3, 4])), "the length (4) of 0th array exceeds max capacity (3)"),
    (lambda: insert(1, array([40_000])), "the 0th element (40000) out of range"),
    (lambda: insert(1, json_column(b"{")), "field doc, row 0: not valid JSON"),
    (lambda: insert(1, json_column(b"\xff")), "not valid JSON"),
    (lambda: insert(1, json_column(b"[" * 65 + b"]" * 65)), "nested deeper than 64"),
    (lambda: insert(1, json_column(b'[{"a":' * 5000 + b"1" + b"}]" * 5000)), "nested deeper than 64"),
    (lambda: insert(1, json_column(json.dumps("x" * 70_000).encode())), "exceeds max length (65536)"),
    (lambda: insert(1, json_column(b"[1]", name="$meta")), "the dynamic field of row 0 is not a JSON object"),
    (lambda: insert(2, json_column(b"1")), "the num_rows (1) of field (doc)"),
    (lambda: insert(1, strings("a"), strings("b")), "passed twice"),
]


@pytest.mark.parametrize(("request_", "message"), BAD_ROWS, ids=[m for _, m in BAD_ROWS])
async def test_bad_rows(target: Target, request_: Callable[[], Any], message: str) -> None:
    status = await target.status("Insert", request_())
    assert message in status.reason
    assert (status.code // 10, status.extra_info["is_input_error"], status.retriable) == (110, "true", False)


async def test_deep_brackets_in_a_string_are_no_depth(target: Target) -> None:
    text = json.dumps({"a": "[{" * 200 + '"'}).encode()
    assert (await target.status("Insert", insert(1, json_column(text)))).code == 0


async def test_missing_and_null_columns(target: Target) -> None:
    request = insert(1)
    del request.fields_data[1]
    assert "fieldSchema(dense) has no corresponding fieldData" in (await target.status("Insert", request)).reason
    request = insert(2)
    request.fields_data[0].valid_data.extend([True, False])
    assert "is not nullable" in (await target.status("Insert", request)).reason
    for sent in (["a"], ["a", ""]):
        text = strings(*sent)
        text.valid_data.extend([True, False])
        assert (await target.status("Insert", insert(2, text))).code == 0
    text.valid_data.append(True)
    assert "the length of valid_data (3)" in (await target.status("Insert", insert(2, text))).reason


async def test_broken_bytes(target: Target) -> None:
    # Field 3 of an InsertRequest is the collection's name; this one is not UTF-8.
    status = status_of(await target.raw("Insert", b"\x1a\x02\xff\xfe"))
    assert status.code == 1100
    assert "not a valid message" in status.reason
    request = milvus_pb2.CreateCollectionRequest(collection_name="d", schema=b"\xff\xff\xff")
    assert "not a valid CollectionSchema" in (await target.status("CreateCollection", request)).reason
    search = milvus_pb2.SearchRequest(collection_name="c", placeholder_group=b"\xff\xff\xff")
    for key, value in (("topk", "1"), ("anns_field", "dense")):
        search.search_params.add(key=key, value=value)
    assert "placeholder group is not a valid message" in (await target.status("Search", search)).reason


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("topk", "-1"),
        ("topk", "9" * 30),
        ("topk", "1e3"),
        ("offset", "-5"),
        ("offset", "99999999"),
        ("round_decimal", "7"),
        ("params", "{"),
        ("params", "[]"),
        ("params", '{"radius":"far"}'),
        ("params", '{"ef":"many"}'),
        ("params", "[" * 5000),
        ("group_size", "0"),
        ("search_iter_batch_size", "0"),
        ("search_iter_last_bound", "nan"),
        ("search_iter_id", "zz"),
        ("search_iter_id", "0" * 32),
    ],
)
async def test_bad_search_parameters(target: Target, key: str, value: str) -> None:
    vector = common_pb2.PlaceholderValue(tag="$0", type=101, values=[b"\0" * 16])
    group = common_pb2.PlaceholderGroup(placeholders=[vector]).SerializeToString()
    request = milvus_pb2.SearchRequest(collection_name="c", placeholder_group=group)
    params = {"topk": "3", "anns_field": "dense", "search_iter_v2": "True", "iterator": "True"}
    if key == "group_size":
        params = {"topk": "3", "anns_field": "dense", "group_by_field": "id"}
    for k, v in (params | {key: value}).items():
        request.search_params.add(key=k, value=v)
    status = await target.status("Search", request)
    assert status.code in (1100, 1102), status


async def test_too_many_queries_and_entries(target: Target) -> None:
    async def search(nq: int, topk: int) -> Any:
        vector = common_pb2.PlaceholderValue(tag="$0", type=101, values=[b"\0" * 16] * nq)
        group = common_pb2.PlaceholderGroup(placeholders=[vector]).SerializeToString()
        request = milvus_pb2.SearchRequest(collection_name="c", placeholder_group=group, nq=nq)
        for k, v in (("topk", str(topk)), ("anns_field", "dense")):
            request.search_params.add(key=k, value=v)
        return await target.status("Search", request)

    assert "nq [16385] is invalid" in (await search(16_385, 1)).reason
    assert "nq [0] is invalid" in (await search(0, 1)).reason
    assert "number of result entries is too large" in (await search(1000, 16_384)).reason


# --- anything at all -----------------------------------------------------------------------------
def scribble(message: Any, rng: random.Random, depth: int = 0) -> None:
    """Fills a message with what its types allow and no sense demands."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < (0.45 if depth else 0.25):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        repeated = field.is_repeated
        for _ in range(rng.choice((1, 1, 2, 5)) if repeated else 1):
            if field.message_type is not None:
                inner = getattr(message, field.name).add() if repeated else getattr(message, field.name)
                if depth < 4:
                    scribble(inner, rng, depth + 1)
            elif repeated:
                getattr(message, field.name).append(value_for(field, rng))
            else:
                setattr(message, field.name, value_for(field, rng))


def value_for(field: Any, rng: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return rng.choice((b"", b"{}", rng.randbytes(rng.choice((1, 8, 16, 300)))))
            return rng.choice((*NAMES, "1", "-1", "True", "id > 0", "{", "\U0001f600" * 70, rng.randbytes(5).hex()))
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return rng.choice((0.0, -1.5, float("nan"), float("inf"), 1e38))
        case FieldDescriptor.CPPTYPE_UINT32:
            return rng.choice((0, 1, 4, 2**32 - 1))
        case FieldDescriptor.CPPTYPE_UINT64:
            return rng.choice((0, 1, 2, 2**64 - 1))
        case FieldDescriptor.CPPTYPE_INT64:
            return rng.choice((0, 1, 4, 16, -1, 2**63 - 1, -(2**63)))
        case _:
            return rng.choice((0, 1, 5, 21, 100, 101, -1, 999, 2**31 - 1))


@pytest.mark.parametrize(
    "rpc", ["Search", "Query", "Insert", "Upsert", "Delete", "CreateCollection", "CreateIndex", ""]
)
async def test_random_requests(target: Target, rpc: str) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    end = time.monotonic() + BUDGET_S / 8
    while time.monotonic() < end:
        name = rpc or rng.choice(sorted(target.proxy.methods))
        if name in ("DropCollection", "ReleaseCollection", "ReleasePartitions"):
            continue
        request = input_class(name)()
        scribble(request, rng)
        named = request.DESCRIPTOR.fields_by_name.get("collection_name")
        if named is not None and not named.is_repeated and rng.random() < 0.9:
            request.collection_name = "c"
        if name == "Search":
            plausible_search(request, rng)
        data = request.SerializeToString()
        if rng.random() < 0.2:
            torn = bytearray(data)
            for _ in range(3):
                if torn:
                    torn[rng.randrange(len(torn))] ^= 1 << rng.randrange(8)
            data = bytes(torn)
        status = status_of(await target.raw(name, data))
        assert status.code != INTERNAL, f"seed {seed}: {name}: {status.reason}\n{request}"
        await asyncio.sleep(0)


def plausible_search(request: Any, rng: random.Random) -> None:
    """Enough sense to come past the first checks, half of the time."""
    if rng.random() < 0.5:
        return
    for part in ("function_score", "highlighter", "search_aggregation", "namespace", "sub_reqs", "function_chains"):
        request.ClearField(part)
    request.ClearField("partition_names")
    request.ClearField("output_fields")
    request.output_fields.extend(rng.sample(["*", "doc", "tags", "dense", "bits", "id", "dyn"], 2))
    request.dsl = rng.choice(("", "id > 0", 'dyn["a"] == 1'))
    value = common_pb2.PlaceholderValue(tag="$0", type=101, values=[rng.randbytes(16)])
    request.placeholder_group = common_pb2.PlaceholderGroup(placeholders=[value]).SerializeToString()
    request.ClearField("search_params")
    for k, v in (
        ("topk", "3"),
        ("anns_field", rng.choice(("dense", "bits", ""))),
        ("iterator", rng.choice(("True", ""))),
    ):
        request.search_params.add(key=k, value=v)


async def test_row_counts_that_lie(target: Target) -> None:
    for rows in (3, 2**20, 2**32 - 1):
        request = insert(1)
        request.num_rows = rows
        assert (await target.status("Insert", request)).code == 1100


async def test_a_default_is_not_multiplied_without_end(target: Target) -> None:
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True, auto_id=True)
    schema.add_field("text", DataType.VARCHAR, max_length=60_000, default_value="x" * 60_000)
    schema.add_field("bits", DataType.BINARY_VECTOR, dim=8)
    assert (await target.status("CreateCollection", Prepare.create_collection_request("d", schema))).code == 0
    request = milvus_pb2.InsertRequest(collection_name="d", num_rows=1_000_000)
    bits = request.fields_data.add(type=DataType.BINARY_VECTOR.value, field_name="bits")
    bits.vectors.dim = 8
    bits.vectors.binary_vector = bytes(1_000_000)
    status = await target.status("Insert", request)
    assert (status.code, "default of field text" in status.reason) == (1102, True)
