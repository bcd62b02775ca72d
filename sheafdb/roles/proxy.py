"""A proxy: its port is the one of the Milvus protocol."""

from dataclasses import replace

from proxy.listener import Listener, serve
from proxy.service import Proxy
from sheafdb.wiring import Place, Wiring
from storage.catalog import Catalog
from storage.pressure import PressureSigns


def wire(place: Place) -> Wiring:
    settings = place.settings
    catalog, pressure = Catalog(place.store.meta), PressureSigns(place.store.meta)
    proxy = Proxy(
        settings,
        catalog,
        place.coordinator,
        place.nodes,
        place.store.log,
        place.clock,
        in_process=False,
        pressure=pressure.by_channel,
    )

    async def listen() -> "_Front":
        # The event loop asks other nodes and answers what can't be asked directly. A thread that looks for the next
        # request without sleeping would take the interpreter's lock from it.
        return _Front(await serve(proxy, replace(settings.server, poll_us=0)))

    return Wiring([("catalog", catalog), ("pressure", pressure), ("proxy", proxy)], listen=listen)


class _Front:
    def __init__(self, listener: Listener) -> None:
        self._listener, self.port = listener, listener.port

    async def drain(self, grace_s: float) -> None:
        await self._listener.stop(grace_s)
