"""``serve``: puts a proxy on a port, with one of two gRPC servers that clients can't tell apart.

pygrpc-native (HTTP/2 and framing in Rust, outside the GIL) by default; ``grpc.aio`` where TLS is on,
where pygrpc-native is not installed, or where the settings ask for it.
"""

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2

from core.errors import StartRefused
from core.limits import MESSAGE_BYTES_MAX
from core.settings import ServerSettings
from proxy.service import Proxy
from proxy.wire import SERVICE

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # Clients ping every 10 s, also without calls; a server that minds answers with GOAWAY.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)
HEALTH = "grpc.health.v1.Health"


class Listener:
    """A serving port."""

    def __init__(self, server: aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, waits up to ``grace_s`` for running ones, closes the port."""
        await self._server.stop(grace_s)


async def serve(proxy: Proxy, server: ServerSettings) -> Listener:
    """Listens; accepts calls when it returns. Raises ``StartRefused`` when it can't."""
    grpc_server = _server(server)
    # Handlers registered by method: pygrpc-native serves only those itself.
    register: Any = grpc_server.add_registered_method_handlers  # pyright: ignore[reportAttributeAccessIssue] (not in the stubs)
    register(SERVICE, {name: _unary(method) for name, method in proxy.methods.items()})
    register(HEALTH, {"Check": _unary(_check_health)})
    port = _bind(grpc_server, server)
    await grpc_server.start()
    return Listener(grpc_server, port)


def _server(server: ServerSettings) -> aio.Server:
    tls = bool(server.tls_cert or server.tls_key)
    native = find_spec("pygrpc_native") is not None
    if server.listener == "native" and (tls or not native):
        raise StartRefused("listener native needs the package pygrpc-native and has no TLS: use auto or grpc")
    if native and not tls and server.listener != "grpc":
        # By full name: the package's own lazy attribute calls itself without end when asked first.
        return import_module("pygrpc_native.aio").server(options=OPTIONS)
    return aio.server(options=OPTIONS)


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


async def _check_health(data: bytes, context: Any) -> bytes:
    """``grpc.health.v1``: a listener that answers serves. Other services' names are unknown here."""
    service = health_pb2.HealthCheckRequest.FromString(data).service
    if service not in ("", SERVICE):
        await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {service}")
    serving = health_pb2.HealthCheckResponse.ServingStatus.SERVING
    return health_pb2.HealthCheckResponse(status=serving).SerializeToString()
