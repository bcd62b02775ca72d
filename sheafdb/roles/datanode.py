"""A data node: hands its channels over before it leaves."""

from core.catalog import ChannelOwner
from datanode.service import DataNodeService
from rpc.data_node import data_node_handlers
from sheafdb.wiring import Place, Wiring
from storage import keys
from storage.meta.mirror import Mirror


def wire(place: Place) -> Wiring:
    settings, store = place.settings, place.store
    service = DataNodeService(
        settings.data_node,
        settings.coordinator.garbage_grace_s,
        place.node,
        store.meta,
        store.log,
        store.objects,
        place.coordinator,
        place.scratch,
    )
    owners: Mirror[ChannelOwner] = Mirror(store.meta, keys.OWNERS, ChannelOwner)

    async def holds() -> bool:
        return any(owner.node == place.node for owner in owners.values.values())

    return Wiring([("data node", service), ("owners", owners)], data_node_handlers(service), holds=holds)
