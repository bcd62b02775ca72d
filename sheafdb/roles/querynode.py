"""A query node: ready once it has its share; others lead its shards and hold that share before it leaves."""

from querynode.service import QueryNodeService
from rpc.direct import Handler
from rpc.query_node import query_node_direct_handlers, query_node_handlers
from rpc.remote_worker import worker_direct_handlers, worker_handlers
from sheafdb.wiring import Place, Wiring


def wire(place: Place) -> Wiring:
    store = place.store
    service = QueryNodeService(
        place.settings.query_node,
        place.node,
        store.meta,
        store.log,
        store.objects,
        report_bad_index=place.coordinator.report_bad_index,
        find_worker=place.nodes.worker,
    )
    handlers = {**query_node_handlers(service), **worker_handlers(service.worker)}

    async def holds() -> bool:
        return bool(service.worker.segments or await service.shards())

    def direct_handlers() -> dict[str, Handler]:
        return {**query_node_direct_handlers(service), **worker_direct_handlers(service.worker)}

    return Wiring([("query node", service)], handlers, direct_handlers, awaited=service.awaited, holds=holds)
