"""The listener on pygrpc-native: HTTP/2 and gRPC framing in Rust, outside the GIL.

One thread takes calls as they come, as many as are there. What can be answered at once it answers
itself, several searches as one; every other call becomes a task on the event loop. For a single
search the way to the loop and back costs as much as the search, and two such threads spend what
they gain on waiting for the GIL (docs/decisions/0020).
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import structlog
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from core.errors import StartRefused
from core.limits import MESSAGE_BYTES_MAX
from proxy import health
from proxy.call import Arrival
from proxy.edge import Method
from proxy.wire import SERVICE

IO_THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))
BATCH = 16
"""Calls a thread takes at a time: searches among them that differ in their vectors only run as one."""
JOIN_S = 5.0

log = structlog.get_logger()


class NativeListener:
    """Serves from ``start`` to ``stop``; belongs to the event loop it was started on."""

    def __init__(self, methods: Mapping[str, Method], address: str) -> None:
        """Raises ``StartRefused`` when the address can't be had."""
        try:
            self._front = NativeGrpcFront(address, [], call_details=True, io_threads=IO_THREADS)
        except OSError as e:
            raise StartRefused(f"can't listen on {address}: {e}") from e
        self.port: int = self._front.bound_port
        self._methods = list(methods.values())
        paths = [*(f"/{SERVICE}/{name}" for name in methods), f"/{health.HEALTH}/Check"]
        self._health_check = len(methods)
        self._front.add_methods([(path, False) for path in paths])
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._receive, name="listener", daemon=True)

    def start(self) -> None:
        """Accepts calls when it returns."""
        self._front.start()
        self._thread.start()

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, waits up to ``grace_s`` for running ones, closes the port."""
        self._stopping = True
        running = list(self._tasks.values())
        if running and grace_s > 0:
            await asyncio.wait(running, timeout=grace_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._front.close()
        self._thread.join(JOIN_S)

    # --- in the listener's thread ----------------------------------------------------------------
    def _receive(self) -> None:
        while (events := self._front.recv_batch_details(BATCH)) is not None:
            prompt: dict[Method, list[tuple[int, Arrival]]] = {}
            for kind, id, number, data, _, details in events:
                if kind == EVENT_CANCEL:
                    self._on_loop(self._cancel, id)
                elif data is None or details is None or self._refused(id, data):
                    continue
                elif number == self._health_check:
                    self._check_health(id, data)
                else:
                    method, arrival = self._methods[number], (data, details[0], details[2])
                    if method.prompt:
                        prompt.setdefault(method, []).append((id, arrival))
                    else:
                        self._on_loop(self._begin, id, method, arrival)
            for method, calls in prompt.items():
                self._answer_at_once(method, calls)

    def _answer_at_once(self, method: Method, calls: list[tuple[int, Arrival]]) -> None:
        replies = method.at_once([arrival for _, arrival in calls])
        for (id, arrival), reply in zip(calls, replies, strict=True):
            if reply is None:
                self._on_loop(self._begin, id, method, arrival)
            else:
                self._front.respond(id, reply)

    def _refused(self, id: int, data: bytes) -> bool:
        if self._stopping:
            self._fail(id, grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        elif len(data) > MESSAGE_BYTES_MAX:
            text = f"the request has {len(data)} bytes, at most {MESSAGE_BYTES_MAX} are taken"
            self._fail(id, grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        else:
            return False
        return True

    def _check_health(self, id: int, data: bytes) -> None:
        try:
            self._front.respond(id, health.check(data))
        except health.UnknownService as e:
            self._fail(id, grpc.StatusCode.NOT_FOUND, str(e))

    def _fail(self, id: int, code: grpc.StatusCode, text: str) -> None:
        self._front.fail(id, code.value[0], text)

    def _on_loop(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:  # the loop is closed, and with it everything that could answer
            self._front.close()

    # --- on the event loop --------------------------------------------------------------------------
    def _begin(self, id: int, method: Method, arrival: Arrival) -> None:
        self._tasks[id] = self._loop.create_task(self._answer(id, method, arrival))

    def _cancel(self, id: int) -> None:
        """The client left, or its deadline passed."""
        if task := self._tasks.get(id):
            task.cancel()

    async def _answer(self, id: int, method: Method, arrival: Arrival) -> None:
        try:
            self._front.respond(id, await method.answer(*arrival))
        except asyncio.CancelledError:
            # A client that is still there must not wait for its own deadline.
            self._fail(id, grpc.StatusCode.CANCELLED, "the call was cancelled")
            raise
        finally:
            del self._tasks[id]
