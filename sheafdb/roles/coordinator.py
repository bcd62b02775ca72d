"""A coordinator: leads, or stands by."""

from coordinator.service import CoordinatorService
from rpc.coordinator import coordinator_handlers
from sheafdb.wiring import Place, Wiring


def wire(place: Place) -> Wiring:
    settings, store = place.settings, place.store
    service = CoordinatorService(
        settings.coordinator,
        settings.index_node,
        place.node,
        store.meta,
        store.log,
        store.objects,
        place.nodes,
        place.clock,
        settings.query_node.spread_bytes,
    )
    return Wiring([("coordinator", service)], coordinator_handlers(service), resign=service.resign)
