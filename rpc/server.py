"""The gRPC server of a node: its RPCs, each also through lines, and its health."""

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2

from core.errors import SheafError, StartRefused
from rpc.answering import Handler, Handlers, LineEnd, begin, complete
from rpc.batching import LONGEST_S
from rpc.channel import LINE, OPTIONS, REQUEST_ID
from rpc.errors import trailer

HEALTH = "/grpc.health.v1.Health/Check"
SERVER_OPTIONS = (
    *OPTIONS,
    # Clients ask for a sign of life every few seconds, also without calls.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)
DETAILS_MAX = 200
"""Characters of an error in the call's status, for those who look at the wire; the whole of it is in
the trailing metadata."""

Ready = Callable[[], str]
"""Gives "" when the node serves, else why it does not."""


class RpcServer:
    """Bound to ``port`` when made, answers from ``start`` until ``drain``."""

    def __init__(self, host: str, port: int) -> None:
        """Raises ``StartRefused`` when the port is taken."""
        self._server = aio.server(options=SERVER_OPTIONS)
        self._lines: set[LineEnd] = set()
        self._draining = False
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as e:
            raise StartRefused(f"can't listen on {host}:{port}: {e}") from e

    async def start(self, handlers: Handlers, ready: Ready) -> None:
        """Accepts calls when it returns. ``ready`` is asked by ``grpc.health.v1``."""
        methods = {method: grpc.unary_unary_rpc_method_handler(_unary(method, h)) for method, h in handlers.items()}
        methods[LINE] = grpc.stream_stream_rpc_method_handler(self._converse(handlers))
        methods[HEALTH] = grpc.unary_unary_rpc_method_handler(_check(self._readiness(ready), handlers))
        services: dict[str, dict[str, grpc.RpcMethodHandler]] = defaultdict(dict)
        for path, method in methods.items():
            _, service, name = path.split("/")
            services[service][name] = method
        register: Any = self._server.add_registered_method_handlers  # pyright: ignore[reportAttributeAccessIssue] (not in the stubs)
        for service, named in services.items():
            register(service, named)
        await self._server.start()

    async def drain(self, grace_s: float) -> None:
        """Sends new requests away, finishes running ones within ``grace_s``, closes the port."""
        self._draining = True
        for line in self._lines:
            line.close_soon()
        await self._server.stop(grace_s)

    def _converse(self, handlers: Handlers) -> Callable[[Any, Any], Awaitable[None]]:
        async def converse(_requests: Any, context: Any) -> None:
            line = LineEnd(handlers, context)
            self._lines.add(line)
            try:
                await line.run()
            finally:
                self._lines.discard(line)

        return converse

    def _readiness(self, ready: Ready) -> Ready:
        return lambda: "draining" if self._draining else ready()


def _unary(method: str, handle: Handler) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def serve(request: bytes, context: Any) -> bytes:
        left_s = context.time_remaining()
        deadline = time.monotonic() + (LONGEST_S if left_s is None else left_s)
        id = next((value for key, value in context.invocation_metadata() if key == REQUEST_ID), "")
        try:
            reply = begin(handle, method, request, deadline)
            return reply if isinstance(reply, bytes) else await complete(reply, method, deadline, id)
        except SheafError as e:
            await context.abort(_status(e), str(e)[:DETAILS_MAX], trailer(e))
            raise AssertionError("abort raises") from e

    return serve


def _status(error: SheafError) -> grpc.StatusCode:
    """For tools that look at the wire; nodes read the trailing metadata."""
    if error.caller_mistake:
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.UNAVAILABLE if error.retriable else grpc.StatusCode.INTERNAL


def _check(ready: Ready, handlers: Handlers) -> Callable[[bytes, Any], Awaitable[bytes]]:
    services = {"", *(path.split("/")[1] for path in handlers)}

    async def check(data: bytes, context: Any) -> bytes:
        service = health_pb2.HealthCheckRequest.FromString(data).service
        if service not in services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {service}")
        states = health_pb2.HealthCheckResponse.ServingStatus
        status = states.NOT_SERVING if ready() else states.SERVING
        return health_pb2.HealthCheckResponse(status=status).SerializeToString()

    return check
