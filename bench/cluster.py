"""The cluster under measurement: real Kafka, etcd and MinIO, and one process of each role."""

import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pymilvus import MilvusClient

from rpc.channel import Peer
from rpc.query_node import RemoteQueryNode
from sheafdb.cluster import Cluster, Size
from sheafdb.cluster.__main__ import READY
from sheafdb.servers.install import install
from sheafdb.servers.progress import shown

SHARE_DEADLINE_S = 60.0
POLL_S = 0.2


class BenchCluster:
    """``with BenchCluster() as cluster``: removed with its data at the end. settings: dotted names to values."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="sheafdb-bench-cluster-")
        self._settings = {"server.metrics_port": -1, "logging.level": "warning", **settings}
        self._loop = asyncio.new_event_loop()
        self._cluster: Cluster | None = None

    def __enter__(self) -> "BenchCluster":
        with shown() as progress:
            install(("kafka", "etcd", "minio"), progress)
        self._cluster = self._loop.run_until_complete(
            Cluster.start(Path(self._temporary.name), size=Size(1, 1, 1, 1, 1), settings=self._settings)
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cluster.kill()
        self._loop.close()
        self._temporary.cleanup()

    @property
    def cluster(self) -> Cluster:
        assert self._cluster
        return self._cluster

    @property
    def address(self) -> str:
        return self.cluster.proxies[0]

    @property
    def pids(self) -> dict[str, int]:
        """Of the roles' processes, by name ("querynode-1")."""
        return {name: process.pid for name, process in self.cluster.roles.items()}

    def client(self) -> MilvusClient:
        return MilvusClient(f"http://{self.address}", dedicated=True)

    def spread(self) -> str:
        """Adds a query node; the name of the one that leads, once the other holds a share of its segments."""
        joined = self.cluster.add("querynode")
        self._loop.run_until_complete(joined.start_again())
        end = time.monotonic() + SHARE_DEADLINE_S
        while time.monotonic() < end:
            for process in self.cluster.of("querynode"):
                found = READY.search(process.ready_line)
                if found and self._loop.run_until_complete(_spreads(found[1])):
                    return process.name
            time.sleep(POLL_S)
        raise SystemExit(f"no query node held a share within {SHARE_DEADLINE_S:g} s")


async def _spreads(address: str) -> bool:
    """Whether the query node leads a shard of which another one holds a share."""
    peer = Peer(address)
    try:
        return any(holder.segments for status in await RemoteQueryNode(peer).shards() for holder in status.holders)
    finally:
        await peer.close()
