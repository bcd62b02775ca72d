"""The processes of a simulated cluster: each runs the role's own service on its ports."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coordinator.service import CoordinatorService
from core.clock import HybridClock
from core.errors import SheafError
from core.ids import NodeId, Revision, SegmentId, ShardId
from core.settings import CoordinatorSettings, DataNodeSettings, IndexNodeSettings, QueryNodeSettings
from datanode.service import DataNodeService
from querynode.service import QueryNodeService
from rpc.reads import QueryReply, ShardStatus
from rpc.roles import CatalogChange
from rpc.workers import Forward, Hold, QueryShare
from storage import keys
from storage.membership import Membership
from tests.simulation.cluster.files import Scratch
from tests.simulation.cluster.log import LogPort, LogServer
from tests.simulation.cluster.loop import Process
from tests.simulation.cluster.meta import MetaPort, MetaServer
from tests.simulation.cluster.network import Network
from tests.simulation.cluster.objects import ObjectPort, ObjectServer
from tests.simulation.cluster.proxies import ProxyService

GRACE_S = 3.0
LEASE_S = 3.0
COORDINATOR = CoordinatorSettings(
    garbage_grace_s=GRACE_S,
    garbage_interval_s=1.5,
    audit_interval_s=7.0,
    orphan_grace_s=15.0,
    lease_ttl_s=2.0,
)
DATA_NODE = DataNodeSettings(
    segment_bytes=1_500,
    seal_age_s=1.0,
    buffer_bytes=4_000,
    compact_segments=3,
    compact_dead_ratio=0.05,
    compact_interval_s=0.7,
    trim_interval_s=1.3,
)
QUERY_NODE = QueryNodeSettings(session_ttl_s=600, spread_bytes=1 << 30, search_threads=1)
INDEX_NODE = IndexNodeSettings()

COORDINATORS, DATA_NODES, QUERY_NODES = ("c0", "c1"), ("d0", "d1"), ("q0", "q1", "q2")
ROLES = dict.fromkeys(COORDINATORS, "coordinator") | dict.fromkeys(DATA_NODES, "datanode")
ROLES |= dict.fromkeys(QUERY_NODES, "querynode")
PROXIES = ("p0", "p1")
ROLES |= dict.fromkeys(PROXIES, "proxy")


@dataclass
class Stores:
    """The three stores that all processes share."""

    network: Network
    meta: MetaServer
    log: LogServer
    objects: ObjectServer


@dataclass
class Node:
    """A running process of a role; ``started`` once it serves."""

    name: str
    process: Process
    service: Any
    member: Membership
    started: bool = False


class Cluster:
    """The nodes by name; a name has one process at a time."""

    def __init__(self, stores: Stores, *, spread: bool) -> None:
        """spread: whether leaders spread even the smallest shard over the nodes of its replica."""
        self.stores, self.network, self.spread = stores, stores.network, spread
        self.nodes: dict[str, Node] = {}
        self.ending: list[str] = []
        """Names of processes that are to end as soon as the loop stops."""
        self._lives = 0

    def boot(self, name: str) -> None:
        """Starts a process of that name."""
        self._lives += 1
        process = Process(name)
        meta, log, objects = MetaPort(self.stores.meta), LogPort(self.stores.log), ObjectPort(self.stores.objects)
        service = self._service(name, meta, log, objects)
        member = Membership(meta, ROLES[name], NodeId(name), f"life {self._lives}", LEASE_S)
        node = self.nodes[name] = Node(name, process, service, member)
        self.network.loop.spawn(process, self._start(node))

    def _service(self, name: str, meta: Any, log: Any, objects: Any) -> Any:
        node = NodeId(name)
        if ROLES[name] == "coordinator":
            return CoordinatorService(
                COORDINATOR, INDEX_NODE, node, meta, log, objects, RemoteNodes(self), HybridClock()
            )
        if ROLES[name] == "datanode":
            scratch = Scratch(f"scratch/{name}-{self._lives}")
            coordinator: Any = LeadingCoordinator(self)
            return DataNodeService(DATA_NODE, GRACE_S, node, meta, log, objects, coordinator, scratch)
        if ROLES[name] == "proxy":
            return ProxyService(meta, log, LeadingCoordinator(self))
        settings = replace(QUERY_NODE, spread_bytes=0) if self.spread else QUERY_NODE
        find: Any = RemoteNodes(self).query_node
        return QueryNodeService(settings, node, meta, log, objects, find_worker=find)

    async def _start(self, node: Node) -> None:
        try:
            await node.service.start()
            if ROLES[node.name] != "coordinator":  # nobody looks for those by their registration
                await node.member.start()
        except SheafError:
            self.ending.append(node.name)  # as a process that ends with an error, and is started again
            self.network.loop.stop()
        else:
            node.started = True

    def process(self, name: str) -> Process | None:
        """The living process of that name."""
        node = self.nodes.get(name)
        return node.process if node and node.process.alive else None

    def served(self, name: str, work: Callable[[Any], Awaitable[Any]]) -> Awaitable[Any]:
        """Asks a node's service over the network. Raises ``Unavailable``."""
        node, process = self.nodes.get(name), self.process(name)
        return self.network.ask(process if node and node.started else None, lambda: work(node.service))

    @property
    def leader(self) -> str:
        """The leading coordinator by the store, "" for none."""
        item = self.stores.meta.values.get(keys.LEADER)
        return item.value.decode() if item else ""


class RemoteNodes:
    """``rpc.roles.Nodes``: the others, over the network."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def query_node(self, id: NodeId) -> Any:
        return RemoteNode(self._cluster, id)

    def data_node(self, id: NodeId) -> Any:
        return RemoteNode(self._cluster, id)

    def index_nodes(self) -> Sequence[Any]:
        return ()


class RemoteNode:
    """What a coordinator asks data nodes and query nodes, and the leader of a shard its workers."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name

    async def flush(self, shards: Sequence[ShardId], timestamp: int) -> dict[ShardId, list[SegmentId]]:
        return await self._cluster.served(self._name, lambda s: s.flush(shards, timestamp))

    async def compact(self, shard: ShardId) -> int:
        return await self._cluster.served(self._name, lambda s: s.compact(shard))

    async def shards(self) -> list[ShardStatus]:
        return await self._cluster.served(self._name, lambda s: s.shards())

    async def forward(self, message: Forward) -> Any:
        return await self._cluster.served(self._name, lambda s: s.worker.forward(message))

    async def hold(self, hold: Hold) -> Any:
        return await self._cluster.served(self._name, lambda s: s.worker.hold(hold))

    async def query_share(self, share: QueryShare) -> QueryReply:
        return await self._cluster.served(self._name, lambda s: s.worker.query_share(share))


class LeadingCoordinator:
    """What data nodes and proxies ask the coordinator that leads."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def defined(self) -> Revision:
        return await self._cluster.served(self._cluster.leader, lambda s: s.defined())

    async def lease_ids(self, count: int) -> range:
        return await self._cluster.served(self._cluster.leader, lambda s: s.lease_ids(count))

    async def change(self, change: CatalogChange) -> Revision:
        return await self._cluster.served(self._cluster.leader, lambda s: s.change(change))
