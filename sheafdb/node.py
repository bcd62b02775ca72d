"""One role of a cluster as a process.

The roles meet through the same ports and Protocols as in ``sheafdb.standalone``; here the other end of
a Protocol is a connection. What is particular to a role is in ``sheafdb.roles``, one file each.
"""

import asyncio
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import structlog

from core.clock import HybridClock
from core.errors import InvalidArgument
from core.ids import NodeId
from core.settings import NodeSettings, Settings
from rpc.direct import DirectServer
from rpc.server import RpcServer
from sheafdb import __version__
from sheafdb.draining import Drain
from sheafdb.leading_coordinator import LeadingCoordinator
from sheafdb.lifetime import CLOSE_DEADLINE_S, Lifetime
from sheafdb.metered import metered
from sheafdb.metrics_http import MetricsServer
from sheafdb.ports import check_free
from sheafdb.registration import FORMAT, Registration
from sheafdb.remote_nodes import RemoteNodes
from sheafdb.wiring import Front, Place, Wiring
from storage.distributed import open_store
from storage.membership import Membership
from storage.store import Store

ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104  # compared with, not bound to
SHARE_DEADLINE_S = 60.0
SHARE_POLL_S = 0.05
ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = structlog.get_logger()


class Node:
    """A serving role. Made by ``open``; ``failed`` is done once a part of it has died (and was logged)."""

    def __init__(self, role: str, settings: Settings) -> None:
        self._role, self._settings = role, settings
        self.id = node_id(settings.node)
        self._lifetime = Lifetime()
        self.failed = self._lifetime.failed
        self._state = "starting"
        self._address = ""
        self._metrics_port = self._direct_port = 0
        self._cluster = ""

    @classmethod
    async def open(cls, role: str, settings: Settings) -> "Node":
        """Serves, and is known to the others, when it returns. Raises ``StartRefused``, ``InvalidArgument``."""
        at, server = settings.node, settings.server
        if role == "proxy":
            check_free(server.host, server.port, "server.port", reuse_port=server.reuse_port)
        else:
            check_free(at.host, at.port, "node.port")
        node = cls(role, settings)
        try:
            await node._start()
        except BaseException:
            await node._lifetime.close()
            raise
        return node

    @property
    def ready_line(self) -> str:
        metrics = f"http://{self._settings.server.host}:{self._metrics_port}/metrics" if self._metrics_port else "off"
        return (
            f"SheafDB {__version__} {self._role} {self.id} is ready: {self._address}"
            f" (cluster: {self._cluster}, metrics: {metrics})"
        )

    async def close(self) -> None:
        """Leaves: hands over what it has, finishes what runs, goes. Each step is bounded."""
        self._state = "leaving"
        await self._lifetime.close()

    async def _start(self) -> None:
        server = self._settings.server
        if server.metrics_port >= 0:
            http = await MetricsServer.start(server.host, server.metrics_port, lambda: self._state)
            self._lifetime.on_close("metrics", http.close)
            self._metrics_port = http.port
        store = await open_store(self._settings)
        self._lifetime.on_close("store", store.close)
        self._cluster = store.cluster.id
        place = await self._place(metered(store))
        wiring: Wiring = import_module(f"sheafdb.roles.{self._role}").wire(place)
        for name, part in wiring.parts:
            await self._lifetime.start(name, part)
        await self._listen(wiring)
        await self._join(place, wiring)
        if wiring.awaited:
            await self._take_share(wiring.awaited)
        self._state = ""

    async def _place(self, store: Store) -> Place:
        nodes = RemoteNodes(store.meta)
        await self._lifetime.start("nodes", nodes)
        coordinator = LeadingCoordinator(store.meta, nodes)
        await self._lifetime.start("leading coordinator", coordinator)
        scratch = Path(self._settings.cache.dir) / ".scratch" / f"{self._role}-{self.id}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        return Place(self._settings, self.id, store, nodes, coordinator, HybridClock(), scratch)

    async def _listen(self, wiring: Wiring) -> None:
        front: Front
        if wiring.listen:
            front = await wiring.listen()
            host = self._settings.server.host
        else:
            host = self._settings.node.host
            front = server = RpcServer(host, self._settings.node.port)
            await server.start(wiring.handlers, lambda: self._state)
            self._listen_for_direct_calls(wiring)
        self._lifetime.on_close("port", partial(front.drain, self._drain_s), self._drain_s + CLOSE_DEADLINE_S)
        self._address = advertised(self._settings.node, host, front.port)

    def _listen_for_direct_calls(self, wiring: Wiring) -> None:
        at = self._settings.node
        if not wiring.direct_handlers or at.direct_port < 0:
            return
        server = DirectServer(at.host, at.direct_port, wiring.direct_handlers)
        server.start()
        self._direct_port = server.port
        self._lifetime.on_close("direct calls", partial(asyncio.to_thread, server.close))

    async def _join(self, place: Place, wiring: Wiring) -> None:
        """Registers. What comes last here is the first thing done when the node leaves."""
        meta = place.store.meta
        drain = Drain(meta, place.nodes, self._role, self.id)
        self._lifetime.on_close("wish to drain", drain.close)
        text = Registration(self._address, FORMAT, __version__, secrets.token_hex(8), self._direct_port).text()
        place.nodes.watch_over(self._role, self.id, text, self._replaced)
        registration = Membership(meta, self._role, self.id, text, self._settings.node.lease_ttl_s)
        await self._lifetime.start("registration", registration)
        if wiring.holds:
            self._on_leaving("hand-over", partial(drain.run, wiring.holds, self._drain_s))
        if wiring.resign:
            self._on_leaving("leadership", wiring.resign)

    async def _take_share(self, awaited: Callable[[], str]) -> None:
        """Not ready before, so that a rolling restart goes on to the next node only then; but not for ever,
        so that nodes which wait for each other all come up."""
        end = time.monotonic() + SHARE_DEADLINE_S
        while reason := awaited():
            self._state = reason
            if time.monotonic() > end:
                log.warning("ready before it has its share", role=self._role, node=self.id, reason=reason)
                return
            await asyncio.sleep(SHARE_POLL_S)

    def _on_leaving(self, name: str, leave: Callable[[], Awaitable[None]]) -> None:
        async def unless_failed() -> None:
            if self.failed.cancelled():
                await leave()

        self._lifetime.on_close(name, unless_failed, self._drain_s + CLOSE_DEADLINE_S)

    def _replaced(self, other: str) -> None:
        log.error("another process runs under this node's id, this one ends", node=self.id, other=other)
        self._lifetime.fail("registration")

    @property
    def _drain_s(self) -> float:
        return self._settings.server.drain_s


def node_id(settings: NodeSettings) -> NodeId:
    """The id in the settings, or one of this process. Raises ``InvalidArgument``."""
    id = settings.id or f"{socket.gethostname()}-{os.getpid()}"
    if not ID.fullmatch(id):
        raise InvalidArgument(f"node.id = {id!r}: expected up to 128 letters, digits, dots, dashes and underscores")
    return NodeId(id)


def advertised(settings: NodeSettings, host: str, port: int) -> str:
    """host:port at which others reach what listens on ``host`` and ``port``."""
    name = settings.advertise or (socket.gethostname() if host in ANY_ADDRESS else host)
    if re.fullmatch(r"[^:]+:[0-9]+|\[.*\]:[0-9]+", name):
        return name
    return f"[{name}]:{port}" if ":" in name and not name.startswith("[") else f"{name}:{port}"
