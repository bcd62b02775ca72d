"""All five roles over one data folder in one process.

The roles meet only through the ports and each other's Protocols, exactly as they do over the
network: here the other end of a Protocol is the object itself.

Folder: ``meta.db`` and ``log.db`` (SQLite), ``objects/`` (Parquet and indexes), ``scratch/`` (emptied
at start), ``LOCK``. Only one process holds it.
"""

import asyncio
import shutil
import time
from pathlib import Path

import structlog

from coordinator.service import CoordinatorService
from core.clock import HybridClock
from core.ids import NodeId
from core.settings import Settings
from datanode.service import DataNodeService
from indexnode.service import IndexNodeService
from proxy.listener import serve
from proxy.service import Proxy
from querynode.service import QueryNodeService
from rpc.reads import ShardPhase
from sheafdb import __version__
from sheafdb.lifetime import CLOSE_DEADLINE_S, Lifetime, Part
from sheafdb.local_nodes import LocalNodes
from sheafdb.metered import metered
from sheafdb.metrics_http import MetricsServer
from sheafdb.ports import check_free
from storage.catalog import Catalog
from storage.embedded import open_store
from storage.membership import Membership
from storage.pressure import PressureSigns
from storage.store import Store

NODE = NodeId("standalone")
"""Every role's node id. The folder's lock sees to it that there is only one process of that name."""
ADDRESS = "in-process"
READY_DEADLINE_S = 10.0
"""Longest wait at start for collections to be loaded; reads of one that is not wait for it themselves."""
READY_POLL_S = 0.005

log = structlog.get_logger()


class Standalone:
    """A serving database. Made by ``open``; ``failed`` is done once a part of it has died (and was logged)."""

    def __init__(self, settings: Settings, folder: Path, store: Store) -> None:
        self._settings, self._folder = settings, folder
        self._lifetime = Lifetime()
        self.failed = self._lifetime.failed
        self._lifetime.on_close("store", store.close)
        store = metered(store)
        meta, records, objects = store.meta, store.log, store.objects
        scratch = folder / "scratch"
        clock, nodes = HybridClock(), LocalNodes()
        grace_s, lease_ttl_s = settings.coordinator.garbage_grace_s, settings.node.lease_ttl_s
        coordinator = CoordinatorService(
            settings.coordinator, settings.index_node, NODE, meta, records, objects, nodes, clock
        )
        index_node = IndexNodeService(settings.index_node, objects, scratch / "indexnode")
        data_node = DataNodeService(
            settings.data_node, grace_s, NODE, meta, records, objects, coordinator, scratch / "datanode"
        )
        self._query_node = QueryNodeService(
            settings.query_node, NODE, meta, records, objects, report_bad_index=coordinator.report_bad_index
        )
        nodes.query[NODE], nodes.data[NODE] = self._query_node, data_node
        nodes.index.append(index_node)
        self._catalog = Catalog(meta)
        pressure = PressureSigns(meta)
        self._proxy = Proxy(settings, self._catalog, coordinator, nodes, records, clock, pressure=pressure.by_channel)
        self._parts: tuple[tuple[str, Part], ...] = (
            ("coordinator", coordinator),
            ("index node", index_node),
            ("data node", data_node),
            ("data node's registration", Membership(meta, "datanode", NODE, ADDRESS, lease_ttl_s)),
            ("query node", self._query_node),
            ("query node's registration", Membership(meta, "querynode", NODE, ADDRESS, lease_ttl_s)),
            ("catalog", self._catalog),
            ("pressure", pressure),
            ("proxy", self._proxy),
        )
        self._serving = False
        self.port = self.metrics_port = 0

    @classmethod
    async def open(cls, folder: Path, settings: Settings) -> "Standalone":
        """Serves when it returns. Raises ``StartRefused``, ``Corrupted``, ``DiskFull``."""
        # Before anything is opened, and with the reason, which gRPC's own error leaves out.
        check_free(settings.server.host, settings.server.port, "server.port")
        store = await open_store(folder, settings.log)
        scratch = folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        server = cls(settings, folder, store)
        try:
            await server._start()
        except BaseException:
            await server.close()
            raise
        return server

    @property
    def uri(self) -> str:
        """What a client is given."""
        server = self._settings.server
        return f"{'https' if server.tls_cert else 'http'}://{server.host}:{self.port}"

    @property
    def metrics_uri(self) -> str:
        """Where Prometheus looks; "off" when nothing is there."""
        return f"http://{self._settings.server.host}:{self.metrics_port}/metrics" if self.metrics_port else "off"

    @property
    def ready_line(self) -> str:
        return (
            f"SheafDB {__version__} standalone is ready: {self.uri} (data: {self._folder}, metrics: {self.metrics_uri})"
        )

    async def close(self) -> None:
        """Drains running requests, then ends the parts, last started first. Seals nothing: the log has it."""
        self._serving = False
        await self._lifetime.close()

    async def _start(self) -> None:
        server = self._settings.server
        if server.metrics_port >= 0:
            http = await MetricsServer.start(server.host, server.metrics_port, self._unready)
            self._lifetime.on_close("metrics", http.close)
            self.metrics_port = http.port
        for name, part in self._parts:
            await self._lifetime.start(name, part)
        await self._until_searchable()
        listener = await serve(self._proxy, server)
        self._lifetime.on_close("listener", lambda: listener.stop(server.drain_s), server.drain_s + CLOSE_DEADLINE_S)
        self.port = listener.port
        self._serving = True

    async def _until_searchable(self) -> None:
        """Waits until every loaded collection answers searches or says why it can't, within a bound:
        one that cannot be loaded must not keep the others from their clients."""
        waiting = {shard: c.name for c in self._catalog.all() if c.loaded for shard in c.shard_ids}
        deadline = time.monotonic() + READY_DEADLINE_S
        while waiting and time.monotonic() < deadline:
            await asyncio.sleep(READY_POLL_S)
            for status in await self._query_node.shards():
                if status.phase is ShardPhase.READY or status.failure:
                    waiting.pop(status.shard, None)
        if waiting:
            log.warning(
                "serving while shards are still loading", shards=len(waiting), collections=set(waiting.values())
            )

    def _unready(self) -> str:
        return "" if self._serving else "starting or stopping"
