"""The leader's side of its connections to workers: one stream of kills each, and calls that end with it.

A worker is lost when the stream does not reach it, or gets no answer, for too long, or when it has
forgotten the session.
Then everything under way with it fails at once, nobody asks it again under this session, and the
shards that used it are told, to have its segments held elsewhere.
"""

import asyncio
import json
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import structlog

from core.errors import NotHeld, SheafError, Unavailable
from core.ids import NodeId, PartitionId, SegmentId, ShardId
from core.manifest import Segment
from core.schema import Schema
from rpc.workers import FindWorker, Forward, Hold, Kills, Release, Room, Session, Worker

BEAT_S = 0.5
"""Longest silence of a stream."""
ANSWER_S = 5.0
"""How long a message of the stream may go unanswered: a busy node is not a lost one."""
MET_S = 1.5
"""How long a message may meet no node: a lost connection is not a lost node."""
AGAIN_S = 0.05
"""Pause before a message that met no node is sent again."""
IDLE_S = 60.0
"""How long a connection is kept for which nothing is held."""
RETRY_S = (1.0, 30.0)
"""How long a lost worker is left alone: the first time, doubled up to the second."""

T = TypeVar("T")

log = structlog.get_logger()


class WorkerLink:
    """One session with one worker. Event loop only, but for ``let_go``."""

    def __init__(self, node: NodeId, worker: Worker, leader: NodeId, ended: Callable[["WorkerLink"], None]) -> None:
        """ended: called once, when the worker is lost or nothing was held for long."""
        self.node, self.worker = node, worker
        self.session = Session(leader, uuid.uuid4().hex)
        self.failure: SheafError | None = None
        """Why the worker is lost."""
        self.room: Room | None = None
        """What it last said it can still hold; None before it did: an older version says nothing."""
        self._opened = asyncio.Event()
        self._ended = ended
        self._sent = 0
        self._kills: list[Kills] = []
        self._releases: list[Release] = []
        self._last: dict[ShardId, int] = {}
        self._held: Counter[tuple[ShardId, SegmentId]] = Counter()
        self._calls: set[asyncio.Future[Any]] = set()
        self._wanted = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name=f"stream to worker {node}")

    # --- what goes into the stream --------------------------------------------------------------
    def kill(self, kills: Kills) -> None:
        """Forwards kills of a shard, after all that were forwarded before."""
        self._kills.append(kills)
        self._last[kills.shard] = self._sent + 1
        self._wanted.set()

    def keep(self, shard: ShardId, segment: SegmentId) -> None:
        """One more needs this segment, which the worker holds."""
        self._held[shard, segment] += 1

    def let_go(self, shard: ShardId, segment: SegmentId) -> None:
        """One fewer does; the worker is told when it was the last. Any thread may call."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._let_go, shard, segment)

    def _let_go(self, shard: ShardId, segment: SegmentId) -> None:
        self._held[shard, segment] -= 1
        if not self._held[shard, segment]:
            del self._held[shard, segment]
            self._releases.append(Release(shard, (segment,)))
            self._wanted.set()

    def after(self, shard: ShardId) -> int:
        """The number of the last message that kills rows of this shard."""
        return self._last.get(shard, 0)

    @property
    def opened(self) -> bool:
        """Whether the worker ever answered."""
        return self._opened.is_set()

    def after_all(self) -> int:
        """The number of the last message."""
        return self._sent + 1 if self._kills or self._releases else self._sent

    # --- calls ----------------------------------------------------------------------------------
    async def hold(self, hold: Hold) -> None:
        """Has segments held, once the worker knows the session. Raises as ``result``."""

        async def once_open() -> None:
            await self._opened.wait()
            await self.worker.hold(hold)

        if self.failure:
            raise self._lost()
        await self.result(self.begin(once_open()))

    def begin(self, work: Awaitable[T]) -> asyncio.Future[T]:
        """A call to the worker, which is not lost: for ``result``."""
        call = asyncio.ensure_future(work)
        self._calls.add(call)
        call.add_done_callback(self._over)
        return call

    def _over(self, call: asyncio.Future[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # whoever asked may have left

    async def result(self, call: asyncio.Future[T]) -> T:
        """What the call gives. Raises ``Unavailable`` at once when the worker is lost."""
        try:
            return await call
        except asyncio.CancelledError:
            if self.failure and call.cancelled() and not _cancelled():
                raise self._lost() from None
            raise
        except NotHeld as e:
            self._end(e)
            raise self._lost() from None
        except Unavailable:
            self._wanted.set()  # the stream finds out whether the worker is lost
            raise

    def _lost(self) -> Unavailable:
        return Unavailable(f"worker {self.node} is lost: {self.failure}")

    async def close(self) -> None:
        self._end(Unavailable("closed"))
        await asyncio.gather(self._task, return_exceptions=True)

    # --- the stream -----------------------------------------------------------------------------
    async def _run(self) -> None:
        idle_since = time.monotonic()
        try:
            await self._send(Forward(self.session, 0))
            self._opened.set()
            while True:
                try:
                    async with asyncio.timeout(BEAT_S):
                        await self._wanted.wait()
                except TimeoutError:
                    pass
                self._wanted.clear()
                kills, self._kills = tuple(self._kills), []
                releases, self._releases = tuple(self._releases), []
                self._sent += 1
                await self._send(Forward(self.session, self._sent, kills, releases))
                now = time.monotonic()
                idle_since = now if self._held or self._calls else idle_since
                if now - idle_since > IDLE_S:
                    self._end(Unavailable("nothing held"))
        except SheafError as e:
            self._end(e)
        except Exception as e:
            log.exception("stream to worker failed", worker=self.node)
            self._end(Unavailable(str(e)))

    async def _send(self, message: Forward) -> None:
        """Until it is applied: repeating it changes nothing."""
        given_up_s = time.monotonic() + MET_S
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    try:
                        room = await self.worker.forward(message)
                        self.room = room if room.limit else None
                        return
                    except Unavailable as e:
                        if isinstance(e, NotHeld) or time.monotonic() > given_up_s:
                            raise
                    await asyncio.sleep(AGAIN_S)
        except TimeoutError:
            raise Unavailable(f"no answer for {ANSWER_S} s") from None

    def _end(self, error: SheafError) -> None:
        if self.failure:
            return
        self.failure = error
        for call in list(self._calls):
            call.cancel()
        if self._task is not asyncio.current_task():
            self._task.cancel()
        self._ended(self)


class RemoteSegment:
    """A sealed segment that a worker holds. Views and running reads may need it longer than the shard:
    the last one lets it go.

    bytes: memory it takes there. indexes: names of the index objects the worker was told of.
    """

    def __init__(self, segment: Segment, bytes: int, link: WorkerLink, shard: ShardId, schema: Schema) -> None:
        self.id: SegmentId = segment.id
        self.partition: PartitionId = segment.partition
        self.rows, self.bytes = segment.rows, bytes
        self.link = link
        self.indexes: tuple[str, ...] = ()
        keys = next((s for s in segment.stats if s.field_id == schema.primary.id and s.min and s.max), None)
        self._span = (json.loads(keys.min), json.loads(keys.max)) if keys else None
        link.keep(shard, segment.id)
        weakref.finalize(self, link.let_go, shard, segment.id).atexit = False

    def may_hold(self, first: Any, last: Any) -> bool:
        """Whether it may hold a key between these two."""
        return self._span is None or (self._span[0] <= last and first <= self._span[1])


class Links:
    """A leader's connections to workers, made when first needed.

    changed: called when a worker was lost, and when a lost one may be tried again.
    """

    def __init__(self, leader: NodeId, find: FindWorker | None, changed: Callable[[], None]) -> None:
        """find: None = there are no other nodes."""
        self._leader, self._find, self._changed = leader, find, changed
        self._links: dict[NodeId, WorkerLink] = {}
        self._pause_s: dict[NodeId, float] = {}
        self._left_alone: set[NodeId] = set()
        self._closed = False

    def usable(self, nodes: Iterable[NodeId]) -> list[NodeId]:
        """Those that are not known to be lost."""
        return [n for n in nodes if n not in self._left_alone] if self._find else []

    def room(self, node: NodeId) -> Room | None:
        """What a worker can still hold, as far as known."""
        link = self._links.get(node)
        return link.room if link else None

    def get(self, node: NodeId) -> WorkerLink:
        """Raises ``Unavailable``."""
        link = self._links.get(node)
        if link is None:
            if self._find is None or self._closed:
                raise Unavailable(f"no connection to worker {node}")
            try:
                worker = self._find(node)
            except Unavailable:
                self._leave_alone(node)
                raise
            link = self._links[node] = WorkerLink(node, worker, self._leader, self._on_end)
        return link

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(link.close() for link in list(self._links.values())))

    def _on_end(self, link: WorkerLink) -> None:
        del self._links[link.node]
        if self._closed:
            return
        log.info("connection to worker ended", worker=link.node, error=str(link.failure))
        if link.opened:
            self._pause_s.pop(link.node, None)
        self._leave_alone(link.node)
        self._changed()

    def _leave_alone(self, node: NodeId) -> None:
        pause_s = min(self._pause_s.get(node, RETRY_S[0] / 2) * 2, RETRY_S[1])
        self._pause_s[node] = pause_s
        self._left_alone.add(node)
        asyncio.get_running_loop().call_later(pause_s, self._try_again, node)

    def _try_again(self, node: NodeId) -> None:
        self._left_alone.discard(node)
        if not self._closed:
            self._changed()


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
