"""A connection to a cluster of etcd: one link at a time, to a member that answers; failing over."""

import asyncio
import random
from typing import Any

import structlog
from aetcd import rpc

from core.errors import SheafError, StartRefused, Unavailable
from core.settings import EtcdSettings
from storage.meta.etcd_errors import AccessRefused, LinkLost
from storage.meta.etcd_link import REQUIRE_LEADER, Link, Rpc, credentials

PULSE_S = 1.0
"""Pause between checks that the member answers."""
PULSE_TIMEOUT_S = 2.0
LEADERLESS_MAX = 3
"""Pulses in a row at which a member may know no leader: an election takes 1 to 2 s."""
REDIAL_S = (0.1, 1.0)
"""Pause after a round over all endpoints: the first one, doubled up to the second."""
REPEAT_S = 0.05

log = structlog.get_logger()


class Connection:
    """Made by ``open``. A background task keeps a link to one of the endpoints; when the member stops
    answering (also silently: a stopped process, a half-open connection) the link is closed within
    ``PULSE_S + PULSE_TIMEOUT_S`` and the next endpoint is tried, for ever.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings, self._tls = settings, credentials(settings)
        self.prefix = prefix(settings)
        """In front of every key; ends with a slash unless it is empty."""
        self._endpoints = endpoints(settings)
        # Processes spread over the members.
        random.shuffle(self._endpoints)
        self._link: Link | None = None
        self._cluster = 0
        self._revision = 0
        self._trouble = ""
        self._changed = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: EtcdSettings) -> "Connection":
        """Raises ``Unavailable`` saying what each endpoint answered, ``StartRefused`` for what no retry
        can mend (credentials, settings)."""
        connection = cls(settings)
        try:
            connection._link = await connection._dial()
        except AccessRefused as e:
            raise StartRefused(str(e)) from e
        connection._task = asyncio.create_task(connection._keep(), name="etcd connection")
        return connection

    # --- using it ----------------------------------------------------------------------------
    async def link(self, timeout_s: float | None) -> Link:
        """The present link; waits for one. Raises ``Unavailable``."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._closed:
                    if self._link is not None:
                        return self._link
                    await self._changed.wait()
        except TimeoutError:
            raise Unavailable(f"waited {timeout_s:.1f} s for etcd: {self._trouble}") from None
        raise Unavailable("the metadata store is closed")

    async def call(self, call: Rpc, *, repeat: bool) -> Any:
        """Runs an RPC within ``request_timeout_s``.

        repeat: after a failure it is run again, on whatever member answers, while there is time. Without, an
        ``Unavailable`` leaves open whether it happened, unless there was no link to begin with.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + self._settings.request_timeout_s
        while True:
            link = await self.link(max(0.0, end - clock()))
            try:
                response = await link.call(call, max(0.0, end - clock()))
            except Unavailable as e:
                if isinstance(e, LinkLost):
                    self.lose(link, e)
                if not repeat or end - clock() <= REPEAT_S:
                    raise
                await asyncio.sleep(REPEAT_S)
                continue
            self._revision = max(self._revision, response.header.revision)
            return response

    def lose(self, link: Link, why: SheafError) -> None:
        """Gives a link up; the next endpoint's turn."""
        if link.lost.is_set():
            return
        log.warning("connection to etcd lost", endpoint=link.endpoint, error=str(why))
        self._trouble = str(why)
        link.drop()
        if self._link is link:
            self._link = None

    async def close(self) -> None:
        self._closed = True
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._wake()

    # --- keeping it --------------------------------------------------------------------------
    async def _keep(self) -> None:
        while True:
            link = self._link or await self._redial()
            self._link = link
            self._wake()
            pulse = asyncio.create_task(self._pulse(link), name=f"etcd pulse {link.endpoint}")
            try:
                await link.ended()
                self.lose(link, LinkLost(f"etcd {link.endpoint} closed the connection"))
            finally:
                self._link = None
                pulse.cancel()
                await asyncio.gather(pulse, return_exceptions=True)
                await link.close()

    async def _pulse(self, link: Link) -> None:
        """Loses a link whose member does not answer or is cut off from the others."""
        leaderless = 0
        while not link.lost.is_set():
            await asyncio.sleep(PULSE_S)
            try:
                status = await link.call(_status, PULSE_TIMEOUT_S)
            except SheafError as e:
                self.lose(link, e)
                return
            leaderless = 0 if status.leader else leaderless + 1
            if leaderless == LEADERLESS_MAX:
                self.lose(link, LinkLost(f"etcd {link.endpoint} knows no leader"))

    async def _redial(self) -> Link:
        pause, most = REDIAL_S
        while True:
            try:
                return await self._dial()
            except SheafError as e:
                log.warning("etcd does not answer, trying again", error=str(e))
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  # spreads load, guards nothing
            pause = min(2 * pause, most)

    async def _dial(self) -> Link:
        """A link to the first endpoint that serves. Each try sends its endpoint to the end of the queue."""
        reasons: list[str] = []
        refused = False
        for endpoint in tuple(self._endpoints):
            self._endpoints.append(self._endpoints.pop(0))
            try:
                link = await self._connect(endpoint)
            except SheafError as e:
                refused |= isinstance(e, AccessRefused)
                reasons.append(str(e))
                continue
            log.info("connected to etcd", endpoint=endpoint)
            return link
        self._trouble = "; ".join(reasons)
        raise (AccessRefused if refused else Unavailable)(self._trouble)

    async def _connect(self, endpoint: str) -> Link:
        link = Link(endpoint, self._settings, self._tls)
        timeout_s = self._settings.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await link.authenticate(timeout_s)
                response = await link.run(self._probe, timeout_s)
            self._check(endpoint, response.header)
        except (TimeoutError, LinkLost) as e:
            await link.close()
            why = str(e) or f"etcd {endpoint} did not answer within {timeout_s} s"
            raise Unavailable(f"{why} ({'with' if self._tls else 'without'} TLS)") from None
        except BaseException:
            await link.close()
            raise
        return link

    async def _probe(self, link: Link, timeout_s: float) -> Any:
        """A linearizable read: only a member that reaches the others can answer, with the newest revision."""
        request = rpc.RangeRequest(key=self.prefix or b"\0", keys_only=True)
        return await link.kv.Range(request, timeout=timeout_s, metadata=(*link.metadata, *REQUIRE_LEADER))

    def _check(self, endpoint: str, header: Any) -> None:
        """An etcd that is another one, or an older one, than this process has seen must not be believed."""
        if self._cluster and header.cluster_id != self._cluster:
            raise Unavailable(f"etcd {endpoint} belongs to another cluster of etcd than the other endpoints")
        if header.revision < self._revision:
            raise Unavailable(
                f"etcd {endpoint} is at revision {header.revision}, this process has seen {self._revision}: it was"
                " emptied or restored; stop every process of this cluster before they start again"
            )
        self._cluster = header.cluster_id

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _status(link: Link, timeout_s: float) -> Any:
    return await link.maintenance.Status(rpc.StatusRequest(), timeout=timeout_s, metadata=link.metadata)


def endpoints(settings: EtcdSettings) -> list[str]:
    """host:port of each member. Raises ``StartRefused``."""
    found = [e.strip() for e in settings.endpoints.split(",") if e.strip()]
    for endpoint in found:
        host, _, port = endpoint.rpartition(":")
        if not host or not port.isdigit() or "/" in endpoint:
            raise StartRefused(f"etcd.endpoints: expected host:port, found {endpoint!r} (etcd.tls_ca turns TLS on)")
    if not found:
        raise StartRefused("etcd.endpoints is empty: expected host:port,host:port,...")
    return found


def prefix(settings: EtcdSettings) -> bytes:
    """What is put in front of every key. Raises ``StartRefused``."""
    name = settings.prefix.strip("/")
    if not name.isascii() or not name.isprintable() or " " in name:
        raise StartRefused(f"etcd.prefix: expected printable ASCII without spaces, found {settings.prefix!r}")
    return f"{name}/".encode() if name else b""
