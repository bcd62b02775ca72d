"""The asyncio client of pymilvus, unmodified."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pymilvus import AsyncMilvusClient, DataType, MilvusException

from tests.e2e.tables import vectors
from tests.served import Served


@pytest.fixture
async def aio(server: Served) -> AsyncIterator[AsyncMilvusClient]:
    client = AsyncMilvusClient(server.uri)
    yield client
    await client.close()


async def make(aio: AsyncMilvusClient, name: str) -> None:
    schema = aio.create_schema(enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
    params = aio.prepare_index_params()
    params.add_index("vector", index_type="HNSW", metric_type="L2", params={"M": 16, "efConstruction": 64})
    await aio.create_collection(name, schema=schema, index_params=params, consistency_level="Strong")


async def test_the_whole_path(aio: AsyncMilvusClient, name: str) -> None:
    await make(aio, name)
    base = vectors(500, 8)
    rows = [{"id": i, "vector": v.tolist(), "color": f"c{i % 3}"} for i, v in enumerate(base)]
    await asyncio.gather(*(aio.insert(name, rows[i : i + 100]) for i in range(0, 500, 100)))
    assert (await aio.query(name, filter="", output_fields=["count(*)"]))[0]["count(*)"] == 500
    await aio.flush(name)
    results = await asyncio.gather(*(aio.search(name, [base[i].tolist()], limit=3) for i in range(20)))
    assert [r[0][0]["id"] for r in results] == list(range(20))
    await aio.upsert(name, [{"id": 1, "vector": base[1].tolist(), "color": "new"}])
    assert list(await aio.get(name, [1], output_fields=["color"])) == [{"id": 1, "color": "new"}]
    await aio.delete(name, filter="color == 'c2'")
    assert (await aio.query(name, filter="color == 'c2'")) == []
    await aio.release_collection(name)
    with pytest.raises(MilvusException, match="not loaded"):
        await aio.search(name, [base[0].tolist()])
    await aio.load_collection(name)
    assert (await aio.describe_collection(name))["collection_name"] == name
    assert await aio.list_indexes(name) == ["vector"]
    assert name in await aio.list_collections()
    await aio.drop_collection(name)
    assert not await aio.has_collection(name)


async def test_quick_setup_and_partitions(aio: AsyncMilvusClient, name: str) -> None:
    await aio.create_collection(name, dimension=4)
    await aio.create_partition(name, "p")
    await aio.insert(name, [{"id": 1, "vector": [1.0, 0, 0, 0]}], partition_name="p")
    assert await aio.list_partitions(name) == ["_default", "p"]
    found = await aio.search(name, [[1.0, 0, 0, 0]], partition_names=["p"], consistency_level="Strong")
    assert [h["id"] for h in found[0]] == [1]


async def test_many_calls_at_once(aio: AsyncMilvusClient, name: str) -> None:
    await make(aio, name)
    base = vectors(200, 8)
    await asyncio.gather(*(aio.insert(name, [{"id": i, "vector": v.tolist()}]) for i, v in enumerate(base)))
    results = await asyncio.gather(*(aio.search(name, [v.tolist()], limit=1) for v in base))
    assert [r[0][0]["id"] for r in results] == list(range(200))
