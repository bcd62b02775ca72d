"""The worker: holds sealed segments for the leaders of other nodes and answers for them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from core.catalog import Collection
from core.errors import NotHeld, Unavailable
from core.ids import Position, SegmentId, ShardId
from querynode import keys as pk
from querynode.growing import Growing
from querynode.memory import needed_bytes
from querynode.opening import Opener
from querynode.prepared import ViewSearch
from querynode.reader import Reader
from querynode.sealed import SealedSegment
from querynode.shares import places, places_of_parts, places_of_rows
from querynode.view import View
from querynode.waiting import Signal, until
from rpc.reads import QueryReply
from rpc.workers import (
    SESSION_TTL_S,
    Forward,
    Hold,
    Kills,
    QueryShare,
    Room,
    SearchShare,
    SearchShareReply,
    Session,
)

FOREVER = float("inf")


class HeldShard:
    """What is held of one shard for one leader."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.sealed: dict[SegmentId, SealedSegment] = {}
        self._nothing_growing = Growing(collection.schema)
        self.opening = asyncio.Lock()
        self.bad_indexes: set[str] = set()
        self.newest: View | None = None
        """The view that was asked for last, until something changes."""

    def view(self, segments: tuple[SegmentId, ...], frontier: Position) -> View:
        """What the leader's view sees of these segments, which are held; the same one until something changes."""
        view = self.made_view(segments, frontier)
        if view is None:
            view = self.newest = View(
                0,
                frontier,
                partitions=frozenset(),
                known=frozenset(),
                sealed=tuple(self.sealed[id] for id in segments),
                growing=self._nothing_growing,
                order=segments,
            )
        return view

    def made_view(self, segments: tuple[SegmentId, ...], frontier: Position) -> View | None:
        """The same, if it was asked for last, and nothing has changed since. Any thread may ask."""
        view = self.newest
        return view if view and view.order == segments and view.frontier == frontier else None

    def changed(self) -> None:
        """What is held is no longer what a view saw."""
        self.newest = None

    def kill(self, kills: Kills) -> None:
        keys = pk.keys_of(kills.keys)
        if not len(keys):
            return
        self.changed()
        first, last = pk.span(keys)
        for segment in self.sealed.values():
            if segment.first <= last and first <= segment.last:
                segment.kill(keys, kills.positions)

    def release(self, segments: Iterable[SegmentId]) -> None:
        self.changed()
        for id in segments:
            self.sealed.pop(id, None)


class LeaderSession:
    """What one life of a leader's connection has had held. applied: number of the last message."""

    def __init__(self, heard_s: float) -> None:
        self.applied = 0
        self.heard_s = heard_s
        self.ended = False
        self.moved = Signal()
        self.shards: dict[ShardId, HeldShard] = {}

    def end(self) -> None:
        self.ended = True
        self.shards.clear()
        self.moved.notify()

    async def reach(self, number: int, deadline: float) -> None:
        """Waits until the message of that number is applied. Raises ``NotHeld``, ``Timeout``."""
        if self.applied < number:
            await until(lambda: self._reached(number), lambda: self.moved, deadline, f"message {number} of the leader")

    def _reached(self, number: int) -> bool:
        if self.ended:
            raise NotHeld("the leader's session has ended")
        return self.applied >= number


class PreparedShare:
    """Implements ``rpc.workers.PreparedShare``."""

    def __init__(self, session: LeaderSession, held: HeldShard, view: View, search: ViewSearch) -> None:
        self._session, self._held, self._view, self._search = session, held, view, search
        self._places = places_of_parts(search.parts, view)

    @property
    def queries_max(self) -> int:
        return self._search.queries_max

    def keep(self) -> None:
        self._search.keep(self)

    @property
    def holds(self) -> bool:
        return self._held.newest is self._view and not self._session.ended

    def start(self, queries: np.ndarray, sizes: Sequence[int] = ()) -> Callable[[], SearchShareReply]:
        def search() -> SearchShareReply:
            found = self._search.found(queries, sizes)
            return SearchShareReply(found.reply, places_of_rows(found, self._places))

        return search


class SegmentWorker:
    """Implements ``rpc.workers.Worker``."""

    def __init__(self, opener: Opener, reader: Reader, now: Callable[[], float] = time.monotonic) -> None:
        self._opener, self._reader, self._now = opener, reader, now
        self._sessions: dict[Session, LeaderSession] = {}
        self._closed = False

    @property
    def segments(self) -> int:
        """How many segments are held, for all leaders."""
        return sum(len(h.sealed) for s in self._sessions.values() for h in s.shards.values())

    @property
    def bytes(self) -> int:
        """Memory they take."""
        held = (h for s in self._sessions.values() for h in s.shards.values())
        return sum(segment.bytes for h in held for segment in h.sealed.values())

    def expire(self) -> None:
        """Lets go of what leaders that fell silent had held here."""
        oldest = self._now() - SESSION_TTL_S
        self._end([id for id, session in self._sessions.items() if session.heard_s < oldest])

    def close(self) -> None:
        self._closed = True
        self._end(list(self._sessions))

    def _end(self, ids: Iterable[Session]) -> None:
        for id in ids:
            self._sessions.pop(id).end()

    # --- Worker ---------------------------------------------------------------------------------
    async def forward(self, message: Forward) -> Room:
        self._apply(message)
        return self._opener.memory.room

    def _apply(self, message: Forward) -> None:
        if self._closed:
            raise Unavailable("this node is about to end")
        if message.number == 0 and message.session not in self._sessions:
            self._end([id for id in self._sessions if id.leader == message.session.leader])
            self._sessions[message.session] = LeaderSession(self._now())
        session = self._session(message.session)
        session.heard_s = self._now()
        if message.number <= session.applied:
            return
        if message.number > session.applied + 1:
            raise NotHeld(f"messages up to {message.number} are missing")
        for kills in message.kills:
            if held := session.shards.get(kills.shard):
                held.kill(kills)
        for release in message.releases:
            if held := session.shards.get(release.shard):
                held.release(release.segments)
                if not held.sealed and not held.opening.locked():
                    del session.shards[release.shard]
        session.applied = message.number
        session.moved.notify()

    async def hold(self, hold: Hold) -> None:
        session = self._session(hold.session)
        await session.reach(hold.after, FOREVER)
        held = session.shards.get(hold.shard)
        if held is None:
            held = session.shards[hold.shard] = HeldShard(hold.collection)
        try:
            async with held.opening:
                held.collection = hold.collection
                await self._open(held, hold)
        except Exception:
            if not session.ended:
                raise
        if session.ended:
            raise NotHeld("the leader's session has ended")
        session.shards[hold.shard] = held

    def search_share_at_once(self, share: SearchShare) -> SearchShareReply | None:
        session = self._sessions.get(share.session)
        held = session.shards.get(share.shard) if session and session.applied >= share.after else None
        if held is None or not held.sealed.keys() >= set(share.segments):
            return None
        view = held.view(share.segments, share.frontier)
        found = self._reader.found_at_once(held.collection.schema, view, share.request)
        return None if found is None else SearchShareReply(found.reply, places(found, view))

    def prepare_share(self, share: SearchShare) -> PreparedShare | None:
        session = self._sessions.get(share.session)
        held = session.shards.get(share.shard) if session and session.applied >= share.after else None
        view = held.made_view(share.segments, share.frontier) if held else None
        if session is None or held is None or view is None:
            return None
        search = self._reader.made(held.collection.schema, view, share.request)
        return PreparedShare(session, held, view, search) if search else None

    async def search_share(self, share: SearchShare) -> SearchShareReply:
        held, view = await self._view(share)
        found = await self._reader.found(held.collection.schema, view, share.request)
        return SearchShareReply(found.reply, places(found, view))

    async def query_share(self, share: QueryShare) -> QueryReply:
        held, view = await self._view(share)
        return await self._reader.matching_rows(held.collection.schema, view, share.request)

    # --- parts of the above ---------------------------------------------------------------------
    def _session(self, id: Session) -> LeaderSession:
        session = self._sessions.get(id)
        if session is None:
            raise NotHeld(f"no session of leader {id.leader} is open here")
        return session

    async def _view(self, share: SearchShare | QueryShare) -> tuple[HeldShard, View]:
        """What the leader's view sees of these segments."""
        session = self._session(share.session)
        await session.reach(share.after, share.request.deadline)
        held = session.shards.get(share.shard)
        missing = [id for id in share.segments if held is None or id not in held.sealed]
        if held is None or missing:
            raise NotHeld(f"segments {missing} of shard {share.shard} are not held here")
        return held, held.view(share.segments, share.frontier)

    async def _open(self, held: HeldShard, hold: Hold) -> None:
        opener, schema = self._opener, hold.collection.schema
        missing = [s for s in hold.segments if s.id not in held.sealed]
        present = [held.sealed[s.id] for s in hold.segments if s.id in held.sealed]
        kills = await opener.tombstones(hold.tombstones, hold.segments)
        if hold.kills:
            kills.append((pk.keys_of(hold.kills.keys), hold.kills.positions))
        # Held since an earlier hold whose answer the leader did not get, perhaps: what it is told now
        # is then news, and repeats otherwise.
        for segment in present:
            for keys, positions in kills:
                segment.kill(keys, positions)
        bytes = sum(needed_bytes(s, hold.collection) for s in missing)
        with opener.memory.opening(bytes, f"a share of shard {hold.shard}", hold.replaced_bytes):
            opened = await asyncio.gather(*(opener.segment(s, schema, kills) for s in missing))
            segments = {s.id: s for s in (*present, *opened)}
            held.bad_indexes |= await opener.indexes(
                hold.shard, hold.collection, segments, hold.segments, held.bad_indexes
            )
        held.sealed |= segments
        held.changed()
