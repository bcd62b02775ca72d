"""``Proxy``: what a listener serves."""

from core.clock import HybridClock
from core.ids import Channel
from core.pressure import Pressure
from core.settings import Settings
from proxy.call import Handlers
from proxy.collections import Collections
from proxy.definitions import Definitions
from proxy.edge import Method, methods
from proxy.ids import AutoIds
from proxy.indexes import Indexes
from proxy.loading import Loading
from proxy.partitions import Partitions
from proxy.query import Query
from proxy.reads import Shards
from proxy.search import Search
from proxy.snapshots import Snapshots
from proxy.threads import Threads
from proxy.upkeep import Upkeep
from proxy.writes import Writes
from rpc.roles import Coordinator, Nodes
from storage.catalog import Catalog
from storage.log.port import Log


class Proxy:
    """Speaks the Milvus protocol over the catalog, the log, the coordinator and the query nodes.

    Owns no state: the catalog it mirrors and the ids it leases can be had again at any time.
    """

    def __init__(  # noqa: PLR0917 (one per seam)
        self,
        settings: Settings,
        catalog: Catalog,
        coordinator: Coordinator,
        nodes: Nodes,
        log: Log,
        clock: HybridClock,
        *,
        in_process: bool = True,
        pressure: dict[Channel, Pressure] | None = None,
    ) -> None:
        """pressure: of the channels whose readers fill up, kept current by whoever gives it; None = none ever.
        in_process: whether all roles run in this process. Then there is no other proxy, and searches can run in the
        thread in which they arrive; connections to query nodes elsewhere belong to the event loop."""
        definitions = Definitions(catalog, coordinator, alone=in_process)
        shards, snapshots = Shards(catalog, nodes), Snapshots(log, clock)
        self._threads = Threads()
        query = Query(definitions, shards, snapshots, self._threads)
        search = Search(definitions, shards, snapshots, self._threads, in_process=in_process)
        ids = AutoIds(coordinator, settings.proxy.id_lease)
        handlers: Handlers = {}
        for part in (
            Collections(definitions),
            Partitions(definitions),
            Loading(definitions),
            Indexes(definitions),
            Upkeep(definitions, clock),
            Writes(
                definitions=definitions,
                log=log,
                ids=ids,
                clock=clock,
                query=query,
                threads=self._threads,
                pressure={} if pressure is None else pressure,
            ),
            query,
            search,
        ):
            handlers |= {rpc: definitions.current(rpc, handler) for rpc, handler in part.handlers().items()}
        self.methods: dict[str, Method] = methods(
            handlers, settings.proxy, search.prompt_handlers(), search.group_handlers()
        )
        """Every RPC of MilvusService that gets an answer, by name."""

    async def start(self) -> None:
        """Ready to serve when it returns. The catalog must be started already."""

    async def close(self) -> None:
        """Ends background work. Idempotent."""
        self._threads.close()
