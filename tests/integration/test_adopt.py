"""``sheafdb admin adopt`` from a standalone folder to real servers and back, killed on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient

from core.errors import LogTruncated
from core.ids import Position
from sheafdb.cluster import Cluster, Endpoints, Size
from sheafdb.servers import Kafka
from tests.on_kafka import A, B, collect, kafka_settings, opened
from tests.server import TINY, Server
from tests.waiting import wait_until

ONE_EACH = Size(proxy=1, querynode=1, datanode=1, indexnode=1, coordinator=1)
REFUSED = 3
RNG = np.random.default_rng(7)
VECTORS = RNG.random((1500, 8)).tolist()


def sheafdb(*arguments: object, failpoints: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sheafdb.cli", *map(str, arguments)]
    env = {**os.environ, "SHEAFDB_FAILPOINTS": failpoints}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)


def admin(*arguments: object, failpoints: str = "") -> subprocess.CompletedProcess[str]:
    return sheafdb("admin", *arguments, failpoints=failpoints)


def rows(client: MilvusClient) -> dict[int, str]:
    found = client.query("docs", filter="id >= 0", output_fields=["id", "text"], consistency_level="Strong", limit=5000)
    return {row["id"]: row["text"] for row in found}


def nearest(client: MilvusClient) -> list[list[int]]:
    answers = client.search("docs", VECTORS[:5], limit=5, consistency_level="Strong", search_params={})
    return [[hit["id"] for hit in answer] for answer in answers]


def fill(client: MilvusClient) -> dict[int, str]:
    """Segments, indexes, tombstones, a log that was trimmed, and a tail; what a query must say."""
    client.create_collection("docs", dimension=8, metric_type="L2", consistency_level="Strong")
    expected: dict[int, str] = {}

    def write(first: int, last: int, text: str) -> None:
        client.upsert("docs", [{"id": i, "vector": VECTORS[i], "text": text} for i in range(first, last)])
        expected.update(dict.fromkeys(range(first, last), text))

    for first in range(0, 1200, 300):
        write(first, first + 300, "sealed")
        client.flush("docs")
    client.delete("docs", ids=list(range(0, 300, 3)))
    for i in range(0, 300, 3):
        del expected[i]
    client.flush("docs")
    write(1100, 1500, "in the log")
    client.delete("docs", ids=[1499])
    del expected[1499]
    return expected


def channels(*where: object) -> list[dict[str, Any]]:
    return json.loads(admin("channels", *where, "--output", "json").stdout)


async def test_from_a_folder_to_a_cluster_and_back(tmp_path: Path, endpoints: Endpoints) -> None:
    folder, back = tmp_path / "laptop", tmp_path / "back"
    server = Server(folder, {**TINY, "log.channels": 2}).start()
    expected = fill(server.client())
    wait_until(lambda: server.client().list_indexes("docs"), "an index")
    held = admin("adopt", "--from", folder)
    assert (held.returncode, held.stdout) == (REFUSED, "")
    assert f"in use by process {server.process.pid}" in held.stderr
    found = nearest(server.client())
    server.kill()

    settings = {**TINY, "log.channels": 2}
    config = Cluster(tmp_path / "cluster", endpoints, settings).config
    other = admin("adopt", "--from", folder, "--config", config, "--set", "log.channels=4")
    assert (other.returncode, "set log.channels = 2" in other.stderr) == (REFUSED, True), other.stderr
    for step in ("adopt.claimed", "adopt.object", "adopt.log", "adopt.metadata"):
        killed = admin("adopt", "--from", folder, "--config", config, failpoints=f"{step}=kill")
        assert killed.returncode == -9, killed.stderr
    for command in (["datanode"], ["admin", "status"]):
        early = sheafdb(*command, "--config", config)
        assert early.returncode == REFUSED, early.stderr
        assert "run the same 'sheafdb admin adopt' again" in early.stderr
    done = admin("adopt", "--from", folder, "--config", config, "--output", "json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["collections"], summary["channels"]) == (1, 2)
    assert summary["cluster"] != summary["copied_from"]
    assert summary["records"] > 0, "the tail"
    spans = [(c["start"], c["end"]) for c in channels("--data", folder)]
    assert [(c["start"], c["end"]) for c in channels("--config", config)] == spans
    assert any(start > 0 for start, _ in spans), "positions had to be passed"
    checked = admin("verify", "--deep", "--config", config)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    again = admin("adopt", "--from", folder, "--config", config)
    assert f"belongs to cluster {summary['cluster']} already" in again.stderr

    cluster = await Cluster.start(tmp_path / "cluster", size=ONE_EACH, endpoints=endpoints, settings=settings)
    try:
        client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
        assert rows(client) == expected
        assert nearest(client) == found
        client.upsert("docs", [{"id": 5000, "vector": VECTORS[0], "text": "from the cluster"}])
        client.delete("docs", ids=[1])
        client.flush("docs")
        client.upsert("docs", [{"id": 2, "vector": VECTORS[2], "text": "after the flush"}])
        expected |= {5000: "from the cluster", 2: "after the flush"}
        del expected[1]
        assert rows(client) == expected
        client.close()
        busy = admin("adopt", "--into", back, "--config", config)
        assert (busy.returncode, "is in use, it has" in busy.stderr) == (REFUSED, True), busy.stderr
        await cluster.stop()
    finally:
        cluster.kill()
    killed = admin("adopt", "--into", back, "--config", config, failpoints="adopt.object=kill")
    assert killed.returncode == -9, killed.stderr
    early = admin("status", "--data", back)
    assert "run the same 'sheafdb admin adopt' again" in early.stderr
    returned = admin("adopt", "--into", back, "--config", config)
    assert returned.returncode == 0, returned.stderr
    home = Server(back, TINY).start()
    assert rows(home.client()) == expected
    home.stop()
    # The folder it all came from is what it was.
    server.start()
    assert set(rows(server.client())) >= {1, 1498}
    server.stop()


async def test_a_kafka_channel_begins_where_it_is_told(kafka_server: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.log.kafka.FILL_RECORDS", 1000)
    async with opened(kafka_settings(kafka_server)) as log:
        await log.append([(A, b"forgotten")] * 5)
        for position in (12_345, 12_345, 7):
            await log.begin_at(A, Position(position))
            assert (await log.start(A), await log.end([A, B])) == (12_345, [12_345, 0])
        assert await log.append([(A, b"a"), (B, b"b")]) == [12_345, 0]
        assert [(r.position, r.payload) for r in await collect(log, A, 12_346)] == [(12_345, b"a")]
        with pytest.raises(LogTruncated):
            await anext(log.read(A, Position(12_344)))
