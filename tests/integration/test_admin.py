"""``sheafdb admin`` on what a server really wrote, on nodes that answer, and on real servers."""

import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from core.catalog import ChannelOwner, Placement, Replica
from core.errors import Refused, StartRefused, Timeout
from core.ids import Channel, NodeId, ShardId
from core.settings import CacheSettings, EtcdSettings, KafkaSettings, LogSettings, Settings
from rpc.query_node import query_node_handlers
from rpc.reads import ShardPhase, ShardStatus
from rpc.server import RpcServer
from sheafdb.admin import drain, statuses, survey, tables
from sheafdb.admin.access import Target, metadata, whole
from sheafdb.admin.picture import read
from sheafdb.registration import FORMAT, Registration
from sheafdb.servers import Etcd, Kafka, Minio
from storage import keys
from storage.distributed import open_store
from storage.membership import Membership
from storage.meta.port import MetaStore, Put
from storage.meta.sqlite import SqliteMeta
from tests.integration.rpc_rig import FakeNode
from tests.s3_settings import s3_settings
from tests.server import TINY, Server
from tests.unit.admin_samples import BYTES, COLLECTION, FIRST, LOG, PICTURE, SECOND, SEGMENT, fill

A, B = NodeId("a"), NodeId("b")


# --- a folder that a server wrote ------------------------------------------------------------------
def admin(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sheafdb.cli", "admin", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_a_server_wrote_and_compacted_is_whole_even_when_it_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    server = Server(folder, TINY).start()
    client = server.client()
    client.create_collection("docs", dimension=8)
    for first in range(0, 1500, 300):
        client.insert("docs", [{"id": i, "vector": [i, *[0.5] * 7]} for i in range(first, first + 300)])
        client.flush("docs")
    client.delete("docs", ids=list(range(0, 300, 2)))
    client.flush("docs")
    client.upsert("docs", [{"id": i, "vector": [0.25] * 8} for i in range(20)])
    held = admin("status", "--data", str(folder))
    assert (held.returncode, held.stdout) == (3, "")
    assert "in use by process" in held.stderr
    server.kill()
    report = json.loads(admin("verify", "--deep", "--data", str(folder), "--output", "json").stdout)
    assert report["findings"] == []
    assert report["objects"] > 0
    assert report["positions"] > 0, "the upsert is in the log only"
    (row,) = json.loads(admin("collections", "--data", str(folder), "--output", "json").stdout)
    assert (row["name"], row["loaded"]) == ("docs", "all")
    assert row["rows"] >= 1350
    assert server.start().client().query("docs", output_fields=["count(*)"])[0]["count(*)"] == 1360
    server.stop()


# --- nodes -----------------------------------------------------------------------------------------
@pytest.fixture
async def meta(tmp_path: Path) -> AsyncIterator[SqliteMeta]:
    meta = await SqliteMeta.open(tmp_path / "meta.db")
    yield meta
    await meta.close()


@asynccontextmanager
async def query_node(meta: MetaStore, id: NodeId, node: Any) -> AsyncIterator[None]:
    server = RpcServer("127.0.0.1", 0)
    await server.start(query_node_handlers(node), lambda: "")
    member = Membership(meta, "querynode", id, Registration(f"127.0.0.1:{server.port}", FORMAT, "1", "x").text(), 5.0)
    await member.start()
    try:
        yield
    finally:
        await member.close()
        await server.drain(0)


async def place(meta: MetaStore, *leaders: NodeId) -> None:
    replica = Replica(tuple(sorted(set(leaders))), leaders, leaders)
    values = {
        keys.collection(COLLECTION.id): COLLECTION,
        keys.manifest(FIRST.shard_id): FIRST,
        keys.manifest(SECOND.shard_id): SECOND,
        keys.placement(COLLECTION.id): Placement(COLLECTION.id, (replica,)),
    }
    await meta.commit([], [Put(key, keys.encode(value)) for key, value in values.items()])


async def test_shards_show_what_the_leaders_say_and_who_does_not_answer(
    meta: SqliteMeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "ANSWER_S", 2.0)
    said = ShardStatus(ShardId(COLLECTION.id, 0), ShardPhase.READY, 4, 5, 20, 3, 1000)
    await place(meta, A, B)
    async with query_node(meta, A, FakeNode(shards=[said])):
        nobody = Registration("127.0.0.1:1", FORMAT, "1", "x").text()
        await meta.commit([], [Put(keys.node("querynode", B), nobody.encode())])
        picture = await read(meta)
        first, second = tables.shards(picture, await statuses.ask(picture))
    assert (first["leader"], first["phase"], first["frontier"], first["growing_rows"]) == ("a", "ready", 5, 3)
    assert (second["leader"], second["phase"]) == ("b", "no answer")
    assert "127.0.0.1:1" in second["problem"]


async def test_a_drain_is_noted_waited_for_and_taken_back(meta: SqliteMeta) -> None:
    await place(meta, A, A)
    async with query_node(meta, A, FakeNode(shards=[])):
        with pytest.raises(Refused, match="no other querynode"):
            await drain.ask(meta, A)
        async with query_node(meta, B, FakeNode(shards=[])):
            key = await drain.ask(meta, A)
            assert await drain.ask(meta, A) == key, "asking again changes nothing"
            assert await meta.get(keys.drain("querynode", A))
            with pytest.raises(Timeout, match="it still has leads 1/0, 1/1; replicas 1"):
                await drain.until_empty(meta, key, 0.05)
            await place(meta, B, B)  # as the coordinator does
            await drain.until_empty(meta, key, 5)
    assert (await read(meta)).drains == {key}, "the wish outlives the node"
    await drain.undo(meta, A)
    assert not (await read(meta)).drains


async def test_a_data_node_is_drained_once_it_owns_no_channel(meta: SqliteMeta) -> None:
    key = ("datanode", A)
    await meta.commit([], [Put(keys.owner(Channel(1)), keys.encode(ChannelOwner(A)))])
    with pytest.raises(Timeout, match="it still has channels 1"):
        await drain.until_empty(meta, key, 0.05)
    await meta.commit([], [Put(keys.owner(Channel(1)), keys.encode(ChannelOwner(B)))])
    await drain.until_empty(meta, key, 5)


# --- Kafka, etcd, MinIO ------------------------------------------------------------------------------
@pytest.fixture
def settings(kafka_server: Kafka, etcd_server: Etcd, minio_server: Minio, tmp_path: Path) -> Settings:
    """Of a cluster that does not exist yet."""
    own = uuid.uuid4().hex
    return Settings(
        log=LogSettings(channels=LOG.channels),
        kafka=KafkaSettings(
            servers=kafka_server.address, topic=f"t-{own}", replication_factor=1, min_insync_replicas=1
        ),
        etcd=EtcdSettings(endpoints=etcd_server.address, prefix=f"e-{own}"),
        s3=s3_settings(minio_server, prefix="one"),
        cache=CacheSettings(dir=str(tmp_path / "cache")),
    )


def configured(settings: Settings, file: Path) -> tuple[str, str]:
    """The flags that name a file with these settings."""
    sections = {name: asdict(getattr(settings, name)) for name in ("log", "kafka", "etcd", "s3")}
    file.write_text(json.dumps(sections))  # JSON is YAML
    return "--config", str(file)


async def test_a_cluster_on_real_servers(settings: Settings, tmp_path: Path) -> None:
    flags = configured(settings, tmp_path / "cluster.yaml")
    refused = admin("status", *flags)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert f"prefix {settings.etcd.prefix}: no cluster is there" in refused.stderr
    target = Target(settings, None)
    for opening in (metadata, whole):
        with pytest.raises(StartRefused, match="no cluster is there; check etcd"):
            async with opening(target):
                pass
    store = await open_store(settings)
    try:
        assert store.cluster, "and a look had created none"
        await fill(store)
        async with metadata(target) as (meta, cluster):
            assert cluster == store.cluster
            assert await read(meta) == PICTURE
        async with whole(target) as seen:
            report = await survey.verify(seen, 3600, deep=True)
            assert (report.findings, report.objects, report.positions) == ((), len(BYTES), 2)
            await store.objects.delete(SEGMENT)
            (found,) = (await survey.verify(seen, 3600, deep=True)).findings
            assert (found.what, found.subject) == ("object missing", SEGMENT)
        told = admin("verify", *flags)
        assert told.returncode == 1, told.stderr
        assert f"data: object missing: {SEGMENT}" in told.stdout
        row, _ = json.loads(admin("channels", "--output", "json", *flags).stdout)
        assert (row["start"], row["checkpoint"], row["end"]) == (3, 3, 5)
    finally:
        await store.close()
