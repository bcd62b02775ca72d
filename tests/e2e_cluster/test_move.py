"""``sheafdb admin move``: leadership of a shard and a channel go to named nodes while a client writes and reads."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusClient

from sheafdb.cluster import Cluster, Endpoints, Size
from tests.e2e_cluster.test_roles import ROWS, Load, fill

SIZE = Size(proxy=1, querynode=2, datanode=2, indexnode=0, coordinator=1)


@pytest.fixture
async def cluster(tmp_path: Path, endpoints: Endpoints) -> AsyncIterator[Cluster]:
    cluster = await Cluster.start(tmp_path, size=SIZE, endpoints=endpoints)
    yield cluster
    cluster.kill()


async def admin(cluster: Cluster, *arguments: str) -> tuple[int, str, str]:
    command = ["-m", "sheafdb.cli", "admin", *arguments, "--config", str(cluster.config), "--output", "json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def shown(cluster: Cluster, *arguments: str) -> Any:
    code, out, err = await admin(cluster, *arguments)
    assert code == 0, err
    return json.loads(out)


async def test_a_shard_and_a_channel_go_where_they_are_told_while_a_client_writes_and_reads(cluster: Cluster) -> None:
    client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
    await asyncio.to_thread(fill, client)
    (row,) = await shown(cluster, "shards", "--collection", "c")
    channels = await shown(cluster, "channels")
    owner = next(c["owner"] for c in channels if c["channel"] == row["channel"])
    leader, other = row["leader"], next(p.name for p in cluster.of("querynode") if p.name != row["leader"])
    sealer = next(p.name for p in cluster.of("datanode") if p.name != owner)

    load = Load(f"http://{cluster.proxies[0]}")
    load.start()
    moved = await shown(cluster, "move", "shard", "c/0", other, "--wait", "20")
    assert (moved["pinned"], moved["with"]) == (other, [other])
    moved = await shown(cluster, "move", "channel", str(row["channel"]), sealer, "--wait", "20")
    assert (moved["pinned"], moved["with"]) == (sealer, [sealer])
    await asyncio.to_thread(client.flush, "c")
    written, deadline = load.written, time.monotonic() + 20
    while load.written < written + 5:
        assert load.failure is None, load.failure
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await asyncio.to_thread(load.stop)
    assert load.worst_s < 3, "nobody waited for a move"
    count = await asyncio.to_thread(client.query, "c", output_fields=["count(*)"])
    assert count[0]["count(*)"] == ROWS - 2 + load.written

    code, _, err = await admin(cluster, "move", "shard", "c/0", sealer)
    assert (code, f"datanode {sealer} is no querynode; there are: " in err) == (2, True), err
    # A pin keeps nothing from being served: its node dies, and it is back where it can be.
    next(p for p in cluster.of("querynode") if p.name == other).kill()
    count = await asyncio.to_thread(client.query, "c", output_fields=["count(*)"], timeout=30)
    assert count[0]["count(*)"] == ROWS - 2 + load.written
    (row,) = await shown(cluster, "shards", "--collection", "c")
    assert (row["leader"], row["pinned"]) == (leader, other)
    assert (await shown(cluster, "move", "shard", "c/0", "--undo"))["pinned"] is None
    client.close()
