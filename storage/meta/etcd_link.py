"""One connection to one member of etcd: a gRPC channel, etcd's stubs on it, and who we are there."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import structlog
from aetcd import rpc
from grpc.aio import AioRpcError, UsageError

from core.errors import StartRefused
from core.settings import EtcdSettings
from storage.meta.etcd_errors import LinkLost, TokenRefused, translated

Rpc = Callable[["Link", float], Awaitable[Any]]
"""Runs one RPC on a link within so many seconds; etcd's response."""

CLOSE_S = 1.0
"""How long the end of a connection is waited for."""
REQUIRE_LEADER = (("hasleader", "true"),)
"""Metadata: a member that is cut off from the others refuses, and ends streams."""
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A link is for one member on loopback or in the same cluster, and dies with its connection.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)

log = structlog.get_logger()


def credentials(settings: EtcdSettings) -> grpc.ChannelCredentials | None:
    """For TLS; None = without. Raises ``StartRefused``: settings that don't go together, an unreadable file."""

    def pem(path: str) -> bytes | None:
        try:
            return Path(path).read_bytes() if path else None
        except OSError as e:
            raise StartRefused(f"TLS of etcd: {path}: {e.strerror}") from e

    if bool(settings.tls_cert) != bool(settings.tls_key) or (settings.tls_cert and not settings.tls_ca):
        raise StartRefused("etcd.tls_cert and etcd.tls_key are set together, and with etcd.tls_ca")
    if not settings.tls_ca:
        return None
    return grpc.ssl_channel_credentials(pem(settings.tls_ca), pem(settings.tls_key), pem(settings.tls_cert))


class Link:
    """``lost`` is set when it can't be used any more; running calls then end with ``LinkLost``."""

    def __init__(self, endpoint: str, settings: EtcdSettings, tls: grpc.ChannelCredentials | None) -> None:
        self.endpoint = endpoint
        self._settings = settings
        self._channel = (
            grpc.aio.secure_channel(endpoint, tls, _OPTIONS) if tls else grpc.aio.insecure_channel(endpoint, _OPTIONS)
        )
        self.kv: Any = rpc.KVStub(self._channel)
        self.lease: Any = rpc.LeaseStub(self._channel)
        self.watch: Any = rpc.WatchStub(self._channel)
        self.maintenance: Any = rpc.MaintenanceStub(self._channel)
        self._auth: Any = rpc.AuthStub(self._channel)
        self.metadata: tuple[tuple[str, str], ...] = ()
        self.lost = asyncio.Event()
        self._renewal = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None

    async def run(self, call: Rpc, timeout_s: float) -> Any:
        """Raises as ``errors`` says."""
        with self.errors():
            return await call(self, timeout_s)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Around an await of an RPC: its errors become ours."""
        try:
            yield
        except AioRpcError as e:
            raise translated(e, self.endpoint) from e
        except UsageError as e:
            raise LinkLost(f"etcd {self.endpoint}: {e}") from e
        except asyncio.CancelledError:
            task = asyncio.current_task()
            # gRPC cancels whoever awaits a call of a channel that is being closed: that is not our caller's wish.
            if self.lost.is_set() and task and not task.cancelling():
                raise LinkLost(f"etcd {self.endpoint}: connection given up") from None
            raise

    async def authenticate(self, timeout_s: float) -> None:
        """Gets a token, if there is a user. Raises ``AccessRefused``, ``Unavailable``."""
        if not self._settings.user:
            return
        request = rpc.AuthenticateRequest(name=self._settings.user, password=self._settings.password)
        with self.errors():
            try:
                self.metadata = (("token", (await self._auth.Authenticate(request, timeout=timeout_s)).token),)
            except AioRpcError as e:
                # As etcd's own client does: a server that asks nobody serves this user too.
                if "authentication is not enabled" not in (e.details() or ""):
                    raise

    async def call(self, call: Rpc, timeout_s: float) -> Any:
        """As ``run``, with a new token when the present one is refused (they age)."""
        clock = asyncio.get_running_loop().time
        end = clock() + timeout_s
        used = self.metadata
        try:
            return await self.run(call, timeout_s)
        except TokenRefused:
            async with self._renewal:
                # Asking is dear to etcd (it hashes the password): of all that were refused at once, one asks.
                if self.metadata is used:
                    await self.authenticate(max(0.0, end - clock()))
            return await self.run(call, max(0.0, end - clock()))

    async def ended(self) -> None:
        """Returns when the connection is gone, or given up. gRPC would make a new one by itself, to a member that
        may have another past: a link does not outlive its connection."""
        state = self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        either = [asyncio.ensure_future(state), asyncio.ensure_future(self.lost.wait())]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in either:
                waiting.cancel()
            await asyncio.gather(*either, return_exceptions=True)

    def drop(self) -> None:
        """Gives it up at once: running calls and streams end."""
        self.lost.set()
        self._closing = self._closing or asyncio.create_task(self._channel.close(), name=f"closing {self.endpoint}")

    async def close(self) -> None:
        """Returns soon, whatever becomes of the channel: who waits for it has another member to go to."""
        self.drop()
        assert self._closing, "dropped"
        await asyncio.wait({self._closing}, timeout=CLOSE_S)
        if not self._closing.done() or (not self._closing.cancelled() and self._closing.exception()):
            log.warning("connection to etcd was not closed in order", endpoint=self.endpoint, task=repr(self._closing))
