"""``serve``: puts a proxy on a port, with one of two gRPC servers that clients can't tell apart.

pygrpc-native (HTTP/2 and framing in Rust, outside the GIL) by default; ``grpc.aio`` where TLS is on,
where pygrpc-native is not installed, or where the settings ask for it.
"""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import grpc
from grpc import aio

from core.errors import StartRefused
from core.limits import MESSAGE_BYTES_MAX
from core.settings import ServerSettings
from proxy import health
from proxy.edge import Method
from proxy.service import Proxy
from proxy.wire import SERVICE

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # Clients ping every 10 s, also without calls; a server that minds answers with GOAWAY.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class Listener(Protocol):
    """A serving port."""

    port: int

    async def stop(self, grace_s: float) -> None:
        """Gives up the port, refuses new calls, waits up to ``grace_s`` for running ones, closes the rest."""
        ...


async def serve(proxy: Proxy, server: ServerSettings) -> Listener:
    """Listens; accepts calls when it returns. Raises ``StartRefused`` when it can't."""
    if _native(server):
        from proxy.native_listener import NativeListener  # noqa: PLC0415  # the package may be missing

        native = NativeListener(proxy.methods, server)
        native.start()
        return native
    grpc_server = aio.server(options=(*OPTIONS, ("grpc.so_reuseport", int(server.reuse_port))))
    register: Any = grpc_server.add_registered_method_handlers  # pyright: ignore[reportAttributeAccessIssue] (not in the stubs)
    register(SERVICE, {name: _unary(_serving(method)) for name, method in proxy.methods.items()})
    register(health.HEALTH, {"Check": _unary(_check_health)})
    listener = AioListener(grpc_server, _bind(grpc_server, server))
    await grpc_server.start()
    return listener


class AioListener:
    """A ``Listener`` on ``grpc.aio``."""

    def __init__(self, server: aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, grace_s: float) -> None:
        await self._server.stop(grace_s)


def _native(server: ServerSettings) -> bool:
    tls = bool(server.tls_cert or server.tls_key)
    installed = find_spec("pygrpc_native") is not None
    if server.listener == "native" and (tls or not installed):
        raise StartRefused("listener native needs the package pygrpc-native and has no TLS: use auto or grpc")
    return installed and not tls and server.listener != "grpc"


def _bind(grpc_server: aio.Server, server: ServerSettings) -> int:
    address = f"{server.host}:{server.port}"
    try:
        if server.tls_cert or server.tls_key:
            return grpc_server.add_secure_port(address, _credentials(server))
        return grpc_server.add_insecure_port(address)
    except RuntimeError as e:
        raise StartRefused(f"can't listen on {address}: {e}") from e


def _credentials(server: ServerSettings) -> grpc.ServerCredentials:
    try:
        pair = (Path(server.tls_key).read_bytes(), Path(server.tls_cert).read_bytes())
    except OSError as e:
        raise StartRefused(f"TLS needs both tls_cert and tls_key as readable files: {e}") from e
    return grpc.ssl_server_credentials([pair])


def _unary(method: Callable[[bytes, Any], Awaitable[bytes]]) -> grpc.RpcMethodHandler:
    """Bytes in, bytes out: the edge parses, so that a bad message gets a Status too."""
    return grpc.unary_unary_rpc_method_handler(method)


def _serving(method: Method) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def serve(data: bytes, context: Any) -> bytes:
        arrival = data, context.invocation_metadata() or (), context.time_remaining()
        reply = method.at_once([arrival])[0]
        return await method.answer(arrival) if reply is None else reply

    return serve


async def _check_health(data: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
    try:
        return health.check(data)
    except health.UnknownService as e:
        await context.abort(grpc.StatusCode.NOT_FOUND, str(e))
