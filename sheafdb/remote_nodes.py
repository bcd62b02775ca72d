"""The roles' instances of a cluster, found by their registrations."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from core.errors import Corrupted, StartRefused, Unavailable
from core.ids import NodeId
from rpc.channel import Peer
from rpc.coordinator import RemoteCoordinator
from rpc.data_node import RemoteDataNode
from rpc.index_node import RemoteIndexNode
from rpc.query_node import RemoteQueryNode
from rpc.remote_worker import RemoteWorker
from rpc.roles import Coordinator, DataNode, IndexNode, QueryNode
from rpc.workers import Worker
from sheafdb.registration import FORMAT, Registration
from storage import keys
from storage.meta.mirror import Mirror
from storage.meta.port import MetaStore

LEAVE_S = 60.0
"""How long requests that a node took before it left may go on."""
LOST_S = 2.0
"""The same of a query node whose registration ended although it did not ask to drain. It hangs, or has lost
the metadata store; its connection may look well for ever. Reads can be asked again elsewhere, and wait there."""

Remote = TypeVar("Remote")

log = structlog.get_logger()


class RemoteNodes:
    """``rpc.roles.Nodes`` over connections. One connection per address, made when first used, closed
    when its node has left and what it had taken is answered."""

    def __init__(self, meta: MetaStore) -> None:
        self._mirror: Mirror[str] = Mirror(meta, keys.NODES, str)
        self._drains: Mirror[str] = Mirror(meta, keys.drain("querynode", NodeId("")), str)
        self._known: dict[tuple[str, NodeId], Registration] = {}
        self._peers: dict[str, Peer] = {}
        self._remotes: dict[tuple[object, str], Any] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._own: _Own | None = None
        self._thread = threading.current_thread()
        """The event loop's; in other ones there are only the nodes that were asked before."""

    async def start(self) -> None:
        """Knows all nodes when it returns. Raises ``StartRefused`` when one speaks another format."""
        await self._drains.start()
        await self._mirror.start()
        self._mirror.listen(self._changed)
        for (role, id), found in self._known.items():
            if not found.understood:
                raise StartRefused(f"{_strange(role, id, found)}: do not run these versions side by side")

    async def close(self) -> None:
        await self._mirror.close()
        await self._drains.close()
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))
        self._peers.clear()

    # --- Nodes ---------------------------------------------------------------------------------
    def query_node(self, id: NodeId) -> QueryNode:
        return self._remote("querynode", id, RemoteQueryNode)

    def data_node(self, id: NodeId) -> DataNode:
        return self._remote("datanode", id, RemoteDataNode)

    def index_nodes(self) -> Sequence[IndexNode]:
        """In the order of their ids."""
        return [self._remote("indexnode", id, RemoteIndexNode) for id in self.ids("indexnode")]

    # --- beside it -----------------------------------------------------------------------------
    def worker(self, id: NodeId) -> Worker:
        """The worker in a query node. Raises ``Unavailable`` as those above."""
        return self._remote("querynode", id, RemoteWorker)

    def coordinator(self, id: NodeId) -> Coordinator:
        """One coordinator, leading or not."""
        return self._remote("coordinator", id, RemoteCoordinator)

    def ids(self, role: str) -> list[NodeId]:
        """The nodes of a role that can be talked to, in order."""
        return sorted(id for (of, id), found in self._known.items() if of == role and found.understood)

    def registration(self, role: str, id: NodeId) -> Registration | None:
        """What a living node says about itself."""
        return self._known.get((role, id))

    def watch_over(self, role: str, id: NodeId, text: str, replaced: Callable[[str], None]) -> None:
        """Calls ``replaced`` with what another process registers under this node's own id, once
        ``text`` had been registered there."""
        self._own = _Own(keys.node(role, id), text, replaced)

    def _remote(self, role: str, id: NodeId, cls: Callable[[Peer], Remote]) -> Remote:
        found = self._known.get((role, id))
        if found is None:
            raise Unavailable(f"{role} {id} is not known here (any more)")
        if not found.understood:
            raise Unavailable(_strange(role, id, found))
        key = (cls, found.address)
        remote = self._remotes.get(key)
        if remote is None:
            if threading.current_thread() is not self._thread:
                raise Unavailable(f"nothing has been asked of {role} {id} yet")
            remote = self._remotes[key] = cls(self._peer(found))
        return remote

    def _peer(self, node: Registration) -> Peer:
        if node.address not in self._peers:
            self._peers[node.address] = Peer(node.address, node.direct_port)
        return self._peers[node.address]

    def _changed(self, key: str, text: str | None) -> None:
        role, _, id = key.removeprefix(keys.NODES).partition("/")
        before = self._known.pop((role, NodeId(id)), None)
        if self._own and key == self._own.key and text is not None:
            self._own.see(text)
        if text is not None:
            try:
                now = self._known[role, NodeId(id)] = Registration.parse(text)
            except Corrupted as e:
                log.warning("node left out", role=role, node=id, error=str(e))
            else:
                if now.address in self._peers:
                    self._peers[now.address].answers_directly_at(now.direct_port)
                if not now.understood:
                    log.warning("node left out", role=role, node=id, error=_strange(role, NodeId(id), now))
        if before and all(before.address != other.address for other in self._known.values()):
            asked = role != "querynode" or keys.drain(role, NodeId(id)) in self._drains.values
            self._leave(before.address, LEAVE_S if asked else LOST_S)

    def _leave(self, address: str, grace_s: float) -> None:
        peer = self._peers.pop(address, None)
        if peer is None:
            return
        self._remotes = {key: remote for key, remote in self._remotes.items() if key[1] != address}
        task = asyncio.create_task(peer.close(grace_s), name=f"leaving {address}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


@dataclass
class _Own:
    """This process's registration."""

    key: str
    text: str
    replaced: Callable[[str], None]
    seen: bool = False

    def see(self, text: str) -> None:
        if text == self.text:
            self.seen = True
        elif self.seen:
            self.replaced(text)


def _strange(role: str, id: NodeId, found: Registration) -> str:
    return f"{role} {id} (SheafDB {found.version}) speaks format {found.format}, this process {FORMAT}"
