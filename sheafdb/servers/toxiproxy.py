"""Toxiproxy: connections that are slow, cut, or half dead, for tests. See its README for kinds of toxics."""

import json
from collections.abc import Sequence
from typing import Any

from core.errors import Unavailable
from sheafdb.servers.install import folder_of
from sheafdb.servers.process import HOST, LocalServer, free_port, http


class Toxiproxy(LocalServer):
    """``address`` is that of its HTTP API. It forgets its detours when it ends."""

    name = "toxiproxy"

    async def detour(self, name: str, upstream: str, port: int = 0) -> "Detour":
        """A new way to ``upstream`` (host:port). Raises ``Unavailable`` when Toxiproxy refuses."""
        listen = f"{HOST}:{port or free_port()}"
        await self.ask("POST", "/proxies", {"name": name, "listen": listen, "upstream": upstream, "enabled": True})
        return Detour(self, name, listen)

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> str:
        """One call of its API; the answer. Raises ``Unavailable``."""
        status, answer = await http(self.port, method, path, json.dumps(body) if body is not None else "")
        if status >= 300:
            raise Unavailable(f"toxiproxy answered {status} to {method} {path}: {answer.strip()}")
        return answer

    def _command(self) -> Sequence[str]:
        return str(folder_of(self.name) / "toxiproxy"), "-host", HOST, "-port", str(self.port)

    async def _answers(self) -> bool:
        return (await http(self.port, "GET", "/version"))[0] == 200


class Detour:
    """An address whose connections lead to another one, as well or as badly as told. ``address``: host:port."""

    def __init__(self, proxy: Toxiproxy, name: str, address: str) -> None:
        self._proxy, self.name, self.address = proxy, name, address
        self._toxics = 0

    async def cut(self) -> None:
        """Closes all connections and refuses new ones, until ``mend``."""
        await self._proxy.ask("POST", f"/proxies/{self.name}", {"enabled": False})

    async def toxic(self, kind: str, *, stream: str = "downstream", **attributes: int) -> None:
        """Adds a fault to one direction: ``latency`` (latency, jitter: ms), ``bandwidth`` (rate: kB/s),
        ``timeout`` (timeout: ms; 0 = data vanishes, the connection stays), ``reset_peer`` (timeout: ms), ..."""
        self._toxics += 1
        toxic = {"name": f"{kind}-{self._toxics}", "type": kind, "stream": stream, "attributes": attributes}
        await self._proxy.ask("POST", f"/proxies/{self.name}/toxics", toxic)

    async def mend(self) -> None:
        """Takes all faults away."""
        for toxic in json.loads(await self._proxy.ask("GET", f"/proxies/{self.name}/toxics")):
            await self._proxy.ask("DELETE", f"/proxies/{self.name}/toxics/{toxic['name']}")
        await self._proxy.ask("POST", f"/proxies/{self.name}", {"enabled": True})
