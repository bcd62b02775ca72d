"""etcd as tests want it: with users, with TLS, as three members; and processes that use it and are killed."""

import asyncio
import json
import sys
import uuid
from base64 import b64encode
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from core.errors import SheafError
from core.ids import Revision
from core.settings import EtcdSettings
from sheafdb.servers import Etcd, free_port
from sheafdb.servers.child import Child
from sheafdb.servers.process import HOST, http
from storage.meta.port import Event, MetaStore, Put
from tests.waiting import until

ROOT = Path(__file__).parents[2]
TLS = ROOT / "tests" / "tls"
PATIENCE_S = 30


def settings_of(*servers: Etcd | str, **changes: object) -> EtcdSettings:
    """For these members and a prefix nobody else has."""
    addresses = ",".join(s if isinstance(s, str) else s.address for s in servers)
    given = {"endpoints": addresses, "prefix": f"test-{uuid.uuid4()}"} | changes
    return EtcdSettings(**given)  # type: ignore[arg-type]  # values of tests


async def gateway(server: Etcd, path: str, **body: object) -> dict:
    """One call of etcd's JSON interface."""
    status, answer = await http(server.port, "POST", f"/v3/{path}", json.dumps(body))
    assert status == 200, answer
    return json.loads(answer)


async def compact(server: Etcd, revision: int) -> None:
    await gateway(server, "kv/compaction", revision=revision, physical=True)


async def with_password(server: Etcd, user: str, password: str, prefix: str) -> None:
    """Turns authentication on, with a root and a user that may do everything below a prefix."""
    await gateway(server, "auth/user/add", name="root", password="root of the test")
    await gateway(server, "auth/role/add", name="root")
    await gateway(server, "auth/user/grant", user="root", role="root")
    await gateway(server, "auth/user/add", name=user, password=password)
    await gateway(server, "auth/role/add", name="ours")
    first, last = (b64encode(f"{prefix}{c}".encode()).decode() for c in "/0")
    await gateway(
        server, "auth/role/grant", name="ours", perm={"permType": "READWRITE", "key": first, "range_end": last}
    )
    await gateway(server, "auth/user/grant", user=user, role="ours")
    await gateway(server, "auth/enable")


class EtcdWithOptions(Etcd):
    """``more``: options after the usual ones, the last of a name counts."""

    more: Sequence[str] = ()

    def _command(self) -> Sequence[str]:
        return (*super()._command(), *self.more)


class FastTokens(EtcdWithOptions):
    more = ("--auth-token-ttl", "1")


class EtcdWithTls(EtcdWithOptions):
    """Asks for a client certificate as well; health is told without TLS on a port of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self._health_port = free_port()
        url = f"https://{self.address}"
        self.more = (
            *("--listen-client-urls", url, "--advertise-client-urls", url, "--client-cert-auth"),
            *("--cert-file", str(TLS / "localhost.pem"), "--key-file", str(TLS / "localhost.key")),
            *("--trusted-ca-file", str(TLS / "localhost.pem")),
            *("--listen-metrics-urls", f"http://{HOST}:{self._health_port}"),
        )

    async def _answers(self) -> bool:
        return (await http(self._health_port, "GET", "/health"))[0] == 200


class EtcdMember(EtcdWithOptions):
    """One of several; ``join`` tells each of all."""

    @staticmethod
    async def start_three(folder: Path) -> "list[EtcdMember]":
        members = [EtcdMember(folder / str(n), 0) for n in range(3)]
        peers = {f"m{n}": f"http://{HOST}:{m._peer_port}" for n, m in enumerate(members)}
        for n, member in enumerate(members):
            cluster = ",".join(f"{name}={url}" for name, url in peers.items())
            member.more = ("--name", f"m{n}", "--initial-cluster", cluster)
        await asyncio.gather(*(m._up() for m in members))
        return members

    async def leads(self) -> bool:
        status = await gateway(self, "maintenance/status")
        return status["leader"] == status["header"]["member_id"]


class Actor:
    """A process of its own at work on a store (``etcd_actor``). ``said``: its lines so far."""

    def __init__(self, folder: Path, settings: EtcdSettings, *work: str) -> None:
        name = f"{work[0]}-{uuid.uuid4()}"
        self._out = folder / f"{name}.out"
        command = [sys.executable, "-W", "error", "-m", "tests.integration.etcd_actor"]
        self.child = Child(
            [*command, settings.endpoints, settings.prefix, *work], folder / f"{name}.log", out=self._out, cwd=ROOT
        )

    @property
    def said(self) -> list[str]:
        return self._out.read_text().splitlines()

    async def says(self, line: str, patience_s: float = PATIENCE_S) -> None:
        def heard() -> bool:
            assert self.child.alive or line in self.said, self.child.last_words()
            return line in self.said

        await until(heard, f"{line!r} from a process that said {self.said}: {self.child.last_words()}", patience_s)


class Diary:
    """Every batch of a watch, as it came."""

    def __init__(self, meta: MetaStore, prefix: str, after: Revision) -> None:
        self.batches: list[Sequence[Event]] = []
        self._task = asyncio.create_task(self._write(meta, prefix, after))

    async def _write(self, meta: MetaStore, prefix: str, after: Revision) -> None:
        async with aclosing(meta.watch(prefix, after)) as batches:
            async for batch in batches:
                self.batches.append(batch)

    @property
    def revisions(self) -> list[int]:
        return [batch[0].revision for batch in self.batches]

    async def until(self, revision: int, patience_s: float = PATIENCE_S) -> None:
        def seen() -> bool:
            assert not self._task.done(), self._task
            return bool(self.batches) and self.batches[-1][0].revision >= revision

        await until(seen, f"revision {revision} to be seen", patience_s)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Writer:
    """Commits numbers to a few keys, for ever. ``done``: revision -> (key, value) of what was acknowledged."""

    def __init__(self, meta: MetaStore, prefix: str) -> None:
        self._meta, self._prefix = meta, prefix
        self.done: dict[int, tuple[str, bytes]] = {}
        self.failures = 0
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        number = 0
        while True:
            number += 1
            key, value = f"{self._prefix}{number % 7}", str(number).encode()
            try:
                self.done[await self._meta.commit([], [Put(key, value), Put(f"{key}/twin", value)])] = (key, value)
            except SheafError:
                self.failures += 1
            await asyncio.sleep(0.005)

    async def more(self, count: int = 20) -> None:
        """Returns when so many more commits were acknowledged."""
        goal = len(self.done) + count
        await until(lambda: len(self.done) >= goal, f"{count} more commits")

    async def close(self) -> int:
        """The last revision acknowledged."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return max(self.done)
