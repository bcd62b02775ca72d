"""A proxy: its port is the one of the Milvus protocol."""

from proxy.listener import Listener, serve
from proxy.service import Proxy
from sheafdb.wiring import Place, Wiring
from storage.catalog import Catalog


def wire(place: Place) -> Wiring:
    settings = place.settings
    catalog = Catalog(place.store.meta)
    proxy = Proxy(settings, catalog, place.coordinator, place.nodes, place.store.log, place.clock, in_process=False)

    async def listen() -> "_Front":
        return _Front(await serve(proxy, settings.server))

    return Wiring([("catalog", catalog), ("proxy", proxy)], listen=listen)


class _Front:
    def __init__(self, listener: Listener) -> None:
        self._listener, self.port = listener, listener.port

    async def drain(self, grace_s: float) -> None:
        await self._listener.stop(grace_s)
