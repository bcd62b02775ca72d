"""An index node: a build that does not end in time is done again by another one."""

from indexnode.service import IndexNodeService
from rpc.index_node import index_node_handlers
from sheafdb.wiring import Place, Wiring


def wire(place: Place) -> Wiring:
    service = IndexNodeService(place.settings.index_node, place.store.objects, place.scratch)
    return Wiring([("index node", service)], index_node_handlers(service))
