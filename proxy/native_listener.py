"""The listener on pygrpc-native: HTTP/2 and gRPC framing in Rust, outside the GIL.

One thread takes calls as they come, as many as are there. What can be answered at once it answers itself, several
searches as one (in a cluster by asking query nodes directly, ``rpc.direct``); every other call becomes a task on the
event loop. For a single search the way to the loop and back costs as much as the search, and two such threads spend
what they gain on waiting for the GIL (docs/decisions/0020).
"""

import asyncio
import os
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import grpc
import structlog
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from core.errors import StartRefused
from core.limits import MESSAGE_BYTES_MAX
from core.settings import ServerSettings
from proxy import health
from proxy.call import Arrival
from proxy.edge import Method, Replies
from proxy.wire import SERVICE

IO_THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))
BATCH = 16
"""Calls a thread takes at a time: searches among them that differ in their vectors only run as one."""
JOIN_S = 5.0
SHORT_S = 0.1
"""When the listener ends, calls are taken until none of those that run has run for longer than this."""
SENT_S = 0.25
"""Pause between the last answer and the end of its connection: the front cannot say when it was sent, and
a client that does not get the answer to an insert sends it again."""
SENT_MAX_S = 2.0
"""The longest such pause: clients may go on to say hello."""
HELLO = "Connect"
"""What pymilvus calls first on a connection, and is the only call it never sends again: it is always answered."""
POLL_S = 0.005

log = structlog.get_logger()


class NativeListener:
    """Serves from ``start`` to ``stop``; belongs to the event loop it was started on."""

    def __init__(self, methods: Mapping[str, Method], server: ServerSettings) -> None:
        """Raises ``StartRefused`` when the address can't be had."""
        address = f"{server.host}:{server.port}"
        others = _listening()
        try:
            self._front = NativeGrpcFront(
                address, [], call_details=True, io_threads=IO_THREADS, reuse_port=server.reuse_port
            )
        except OSError as e:
            raise StartRefused(f"can't listen on {address}: {e}") from e
        self.port: int = self._front.bound_port
        self._sockets = _listening() - others
        self._methods = list(methods.values())
        paths = [*(f"/{SERVICE}/{name}" for name in methods), f"/{health.HEALTH}/Check"]
        self._health_check = len(methods)
        self._hello = list(methods).index(HELLO)
        self._front.add_methods([(path, False) for path in paths])
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[tuple[Method, int, Arrival]] = deque()
        """Calls that the event loop is to begin, each with its id; it is told of the first one only."""
        self._told = False
        self._running: dict[int, _Running] = {}
        """By call."""
        self._taking = self._stopping = False
        self._answered = 0.0
        """When the last answer was handed over."""
        self._poll_s = server.poll_us * 1e-6
        self._brisk = self._prompt = False
        """Whether the last call came within ``_poll_s`` of the answer before it; and whether all that came with it
        were answered at once."""
        self._thread = threading.Thread(target=self._live, name="listener", daemon=True)
        self._death: asyncio.Future[None] = self._loop.create_future()

    def start(self) -> None:
        """Accepts calls when it returns."""
        self._front.start()
        self._thread.start()
        self._watch = self._loop.create_task(self._outlive(), name="listener")

    async def stop(self, grace_s: float) -> None:
        """Gives up the port, waits up to ``grace_s`` for what runs, closes the connections.

        Clients connect anew once their connection is lost, and must meet another process then: so the
        port goes first. Told instead that they should go, they would ask again on the same connection:
        calls that come late are not taken, and not answered either, for the moment that is left."""
        end = time.monotonic() + grace_s
        self._give_up_port()
        await _while(self._runs_long, end)
        self._stopping = True
        await _while(lambda: bool(self._taking or self._arrived or self._running), end)
        running = {r.task for r in self._running.values()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await _while(lambda: time.monotonic() < self._answered + SENT_S, time.monotonic() + SENT_MAX_S)
        self._watch.cancel()
        await asyncio.to_thread(self._close)

    def _give_up_port(self) -> None:
        """Takes no connection any more; those that are there stay. The front can only end both at once: its
        listening sockets are exchanged for some that nobody reaches."""
        for fd in self._sockets:
            with socket.socket() as unreachable:
                os.dup2(unreachable.fileno(), fd, inheritable=False)
        self._sockets.clear()

    def _runs_long(self) -> bool:
        before = time.monotonic() - SHORT_S
        return any(r.began < before for r in self._running.values())

    def _close(self) -> None:
        self._front.close()
        self._thread.join(JOIN_S)

    async def _outlive(self) -> None:
        """Fails when the thread does: a background task that dies ends the process."""
        await self._death

    # --- in the listener's thread ----------------------------------------------------------------
    def _live(self) -> None:
        try:
            self._receive()
        except Exception as e:
            self._on_loop(self._death.set_exception, e)

    def _receive(self) -> None:
        while (events := self._next()) is not None:
            self._taking = True  # before ``_stopping`` is looked at
            calls: dict[Method, list[tuple[int, Arrival]]] = {}
            left = {event[1] for event in events if event[0] == EVENT_CANCEL}
            for _, id, number, data, _, details in events:
                if data is None or details is None or id in left or self._late(number) or self._refused(id, data):
                    continue
                elif number == self._health_check:
                    self._check_health(id, data)
                else:
                    calls.setdefault(self._methods[number], []).append((id, (data, details[0], details[2])))
            # A list: those of the other methods are begun, too, when one has to wait.
            self._prompt = all([self._answer_or_begin(method, arrived) for method, arrived in calls.items()])
            for id in left:
                self._on_loop(self._cancel, id)
            self._answered = time.monotonic()
            self._taking = False

    def _next(self) -> list[Any] | None:
        """The next calls; None when the listener is closed.

        A thread that sleeps wakes on another core with cold caches, and the core it slept on has halted:
        on a virtual machine that costs as much as the search (docs/decisions/0028). So while calls follow
        one another closely it looks for the next one without sleeping; the lock of the interpreter is
        free meanwhile. Not while the event loop answers: looking would take time from it.
        """
        receive, since = self._front.recv_batch_details, time.monotonic()
        if self._brisk and self._prompt:
            while time.monotonic() - since < self._poll_s:
                if (events := receive(BATCH, 0)) != []:
                    return events
        events = receive(BATCH)
        self._brisk = time.monotonic() - since < self._poll_s
        return events

    def _answer_or_begin(self, method: Method, calls: list[tuple[int, Arrival]]) -> bool:
        """Whether all of them are answered."""
        replies = method.at_once([arrival for _, arrival in calls])
        for (id, arrival), reply in zip(calls, replies, strict=True):
            if reply is not None:
                self._front.respond(id, reply)
                continue
            self._arrived.append((method, id, arrival))
            if not self._told:
                self._told = True
                self._on_loop(self._begin)
        return None not in replies

    def _late(self, number: int) -> bool:
        return self._stopping and number != self._hello

    def _refused(self, id: int, data: bytes) -> bool:
        if len(data) > MESSAGE_BYTES_MAX:
            text = f"the request has {len(data)} bytes, at most {MESSAGE_BYTES_MAX} are taken"
            self._fail(id, grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            return True
        return False

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
    def _begin(self) -> None:
        self._told = False  # before the calls are taken: of one that comes now it is told again
        calls: dict[Method, list[tuple[int, Arrival]]] = {}
        while self._arrived:
            method, id, arrival = self._arrived.popleft()
            calls.setdefault(method, []).append((id, arrival))
        now = time.monotonic()
        for method, arrived in calls.items():
            for numbers, replies in method.answers([arrival for _, arrival in arrived]):
                ids = [arrived[n][0] for n in numbers]
                task = self._loop.create_task(self._answer(ids, replies))
                self._running.update(dict.fromkeys(ids, _Running(task, now, set(ids))))
                task.add_done_callback(partial(self._ended, ids, replies))

    def _cancel(self, id: int) -> None:
        """The client left, or its deadline passed."""
        if running := self._running.get(id):
            running.wanted.discard(id)
            if not running.wanted:
                running.task.cancel()

    async def _answer(self, ids: Sequence[int], replies: Replies) -> None:
        for id, reply in zip(ids, await replies, strict=True):
            self._front.respond(id, reply)

    def _ended(self, ids: Sequence[int], replies: Replies, task: "asyncio.Task[None]") -> None:
        replies.close()  # of a task that was cancelled before it began, nothing has run
        self._answered = time.monotonic()
        for id in ids:
            del self._running[id]
            if task.cancelled():
                # A client that is still there must not wait for its own deadline.
                self._fail(id, grpc.StatusCode.CANCELLED, "the call was cancelled")


class _Running(NamedTuple):
    """Answers some calls. wanted: those whose clients have not left."""

    task: "asyncio.Task[None]"
    began: float
    wanted: set[int]


async def _while(true: Callable[[], bool], end: float) -> None:
    while True:
        if not true() or time.monotonic() > end:
            return
        await asyncio.sleep(POLL_S)


def _listening() -> set[int]:
    """The descriptors of this process at which connections come in."""
    found: set[int] = set()
    for fd in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):  # closed since it was listed
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                with socket.socket(fileno=os.dup(fd)) as one:
                    if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        found.add(fd)
    return found
