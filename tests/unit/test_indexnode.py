"""The index node: from a stored segment to a stored index object."""

import asyncio
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from vector_reference import all_scores, best, bits, clustered, recall

from core import failpoints
from core.errors import Corrupted, Unavailable
from core.ids import FieldId, IndexId
from core.manifest import IndexFile, ObjectRef
from core.schema import Field, Schema
from core.settings import IndexNodeSettings
from core.types import DataType
from engine.vector.build import open_index
from engine.vector.metric import Metric
from indexnode import service
from indexnode.service import IndexNodeService
from rpc.roles import IndexTask
from storage.objects.folder import FolderObjects
from storage.segment_file import POSITION, TS, digest_file, write_segment

ROWS, DIM = 3000, 16


async def store_segment(objects: FolderObjects, folder: Path, vectors: np.ndarray, data_type: DataType) -> ObjectRef:
    """A stored segment with the column ``v``."""
    rows = len(vectors)
    bits_or_floats = vectors.shape[1] * (8 if data_type is DataType.BINARY_VECTOR else 1)
    field = Field(FieldId(101), "v", data_type, dim=bits_or_floats)
    schema = Schema((Field(FieldId(100), "id", DataType.INT64, primary=True), field))
    flat = pa.array(vectors.ravel())
    if data_type is DataType.BINARY_VECTOR:
        column = pa.Array.from_buffers(field.arrow_type, rows, [None, pa.py_buffer(vectors.tobytes())])
    else:
        column = pa.FixedSizeListArray.from_arrays(flat, type=field.arrow_type)
    zeros = pa.array(np.zeros(rows, np.int64))
    names = ["id", "v", POSITION, TS]
    table = pa.table([pa.array(np.arange(rows)), column, zeros, zeros], names=names)
    written = write_segment(folder / "segment", table, schema)
    await objects.put("c/segment-1.parquet", folder / "segment")
    return ObjectRef("c/segment-1.parquet", written.bytes, written.digest)


def make_task(source: ObjectRef, target: str = "c/segment-1.index-2-3", **changes: object) -> IndexTask:
    values = dict(
        source=source, column="v", column_type=DataType.FLOAT_VECTOR, dim=DIM, field_id=FieldId(101),
        index_id=IndexId(2), type="HNSW", metric="L2", params=(("M", "8"),), target=target,
    )  # fmt: skip
    return IndexTask(**(values | changes))


@pytest.fixture
async def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


@pytest.fixture
async def node(tmp_path: Path, objects: FolderObjects):
    node = IndexNodeService(IndexNodeSettings(threads=1), objects, tmp_path / "scratch")
    await node.start()
    yield node
    await node.close()


async def check_file(objects: FolderObjects, built: IndexFile) -> Path:
    path = await objects.fetch(built.object.name)
    assert path.stat().st_size == built.object.bytes
    assert digest_file(path) == built.object.digest
    return path


async def test_builds_and_stores(node: IndexNodeService, objects: FolderObjects, tmp_path: Path) -> None:
    vectors = clustered(ROWS, DIM)
    source = await store_segment(objects, tmp_path, vectors, DataType.FLOAT_VECTOR)
    built = await node.build(make_task(source))
    assert (built.field_id, built.index_id, built.object.name) == (101, 2, "c/segment-1.index-2-3")
    index = open_index(await check_file(objects, built))
    assert index.engine == built.engine
    _, found = index.search(vectors[:50], 5, {})
    assert recall(found, best(all_scores(vectors, vectors[:50], Metric.L2), 5, Metric.L2)) >= 0.95
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_builds_over_binary_vectors(node: IndexNodeService, objects: FolderObjects, tmp_path: Path) -> None:
    vectors = bits(500, 64)
    source = await store_segment(objects, tmp_path, vectors, DataType.BINARY_VECTOR)
    task = make_task(source, column_type=DataType.BINARY_VECTOR, dim=64, type="BIN_FLAT", metric="HAMMING", params=())
    index = open_index(await check_file(objects, await node.build(task)))
    scores, found = index.search(vectors[7:8], 1, {})
    assert (found[0, 0], scores[0, 0]) == (7, 0)


async def test_tasks_wait_for_each_other(
    node: IndexNodeService, objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await store_segment(objects, tmp_path, clustered(ROWS, DIM), DataType.FLOAT_VECTOR)
    running, most, real = 0, 0, service.build

    def counted(*args: object, **kwargs: object) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return real(*args, **kwargs)
        finally:
            running -= 1

    monkeypatch.setattr(service, "build", counted)
    await asyncio.gather(*(node.build(make_task(source, f"c/segment-1.index-2-{i}")) for i in range(4)))
    assert most == 1


async def test_a_damaged_segment_is_told(node: IndexNodeService, objects: FolderObjects, tmp_path: Path) -> None:
    source = await store_segment(objects, tmp_path, clustered(ROWS, DIM), DataType.FLOAT_VECTOR)
    wrong = ObjectRef(source.name, source.bytes, source.digest ^ 1)
    with pytest.raises(Corrupted, match="segment-1"):
        await node.build(make_task(wrong))
    await node.build(make_task(source))


async def test_a_failure_before_storing_leaves_nothing(
    node: IndexNodeService, objects: FolderObjects, tmp_path: Path
) -> None:
    source = await store_segment(objects, tmp_path, clustered(ROWS, DIM), DataType.FLOAT_VECTOR)
    failpoints.arm("index.before_put=fail")
    try:
        with pytest.raises(failpoints.InjectedFailure):
            await node.build(make_task(source))
    finally:
        failpoints.arm("")
    assert [o.name async for o in objects.list("")] == [source.name]
    assert list((tmp_path / "scratch").iterdir()) == []
    await node.build(make_task(source))


async def test_closing_ends_a_build(objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = IndexNodeService(IndexNodeSettings(threads=1), objects, tmp_path / "scratch")
    await node.start()
    source = await store_segment(objects, tmp_path, clustered(30_000, DIM), DataType.FLOAT_VECTOR)
    begun, real = threading.Event(), service.build

    def told(*args: object, **kwargs: object) -> str:
        begun.set()
        return real(*args, **kwargs)

    monkeypatch.setattr(service, "build", told)
    params = (("M", "64"), ("efConstruction", "2000"))
    tasks = [asyncio.create_task(node.build(make_task(source, f"c/x-{i}", params=params))) for i in range(2)]
    await asyncio.to_thread(begun.wait, 30)
    await asyncio.wait_for(node.close(), 60)
    for task in tasks:
        with pytest.raises(Unavailable, match=r"clos|cancel"):
            await task
    with pytest.raises(Unavailable):
        await node.build(make_task(source))
    assert [o.name async for o in objects.list("")] == [source.name]


async def test_builds_run_at_a_lower_priority_than_the_server(objects: FolderObjects, tmp_path: Path) -> None:
    node = IndexNodeService(IndexNodeSettings(), objects, tmp_path / "scratch")
    before = os.getpriority(os.PRIO_PROCESS, 0)
    own = node._builder.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
    if sys.platform == "linux":
        assert own == min(19, before + service.NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    await node.close()
