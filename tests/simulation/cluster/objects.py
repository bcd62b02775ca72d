"""The object store of a simulated cluster: immutable objects, read after written."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from core.errors import ObjectNotFound
from storage.objects.port import ObjectInfo
from tests.simulation.cluster.files import WRITTEN
from tests.simulation.cluster.loop import EPOCH_S
from tests.simulation.cluster.network import OBJECTS, Network


class ObjectServer:
    """putting, deleting: told of each before it happens."""

    def __init__(self, network: Network, putting: Callable[[str], None], deleting: Callable[[str], None]) -> None:
        self.network, self._putting, self._deleting = network, putting, deleting
        self.held: dict[str, Any] = {}
        self.put_s: dict[str, float] = {}

    def put(self, name: str, content: Any) -> None:
        self._putting(name)
        self.held[name] = content
        self.put_s[name] = self.network.loop.now

    def fetch(self, name: str) -> Path:
        if name not in self.held:
            raise ObjectNotFound(name)
        # Whoever fetched it may go on reading after a delete.
        WRITTEN[f"cache/{name}"] = self.held[name]
        return Path("cache") / name

    def delete(self, name: str) -> None:
        if name in self.held:
            self._deleting(name)
            del self.held[name]

    def infos(self, prefix: str) -> list[ObjectInfo]:
        names = sorted(n for n in self.held if n.startswith(prefix))
        return [ObjectInfo(n, 1, int((EPOCH_S + self.put_s[n]) * 1000)) for n in names]


class ObjectPort:
    """``storage.objects.port.ObjectStore`` as one process has it."""

    def __init__(self, server: ObjectServer) -> None:
        self._server, self._network = server, server.network

    async def put(self, name: str, data: bytes | memoryview | Path) -> None:
        content = WRITTEN.get(str(data)) if isinstance(data, Path) else data
        await self._network.call(OBJECTS, lambda: self._server.put(name, content))

    async def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        raise NotImplementedError("the simulated roles open objects by fetch")

    async def fetch(self, name: str) -> Path:
        return await self._network.call(OBJECTS, lambda: self._server.fetch(name))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        for info in await self._network.call(OBJECTS, lambda: self._server.infos(prefix)):
            yield info

    async def delete(self, name: str) -> None:
        await self._network.call(OBJECTS, lambda: self._server.delete(name))

    async def close(self) -> None:
        pass
