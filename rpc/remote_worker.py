"""The worker across the network, both ends. Its Protocol is in ``rpc.workers``."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from core.catalog import Collection
from core.ids import NodeId, Position, SegmentId
from core.manifest import Segment, TombstoneFile
from core.messages import fill, from_message
from rpc.answering import Handlers, Later
from rpc.arrays import columns_message, columns_of, from_bytes, to_bytes
from rpc.channel import Peer
from rpc.direct import Direct, DirectCalls
from rpc.direct import Handler as DirectHandler
from rpc.newest import Known
from rpc.pb import querynode_pb2 as pb
from rpc.query_node import read_query_reply
from rpc.read_messages import (
    query_message,
    query_reply_message,
    query_request,
    search_message,
    search_queries,
    search_reply,
    search_reply_message,
    search_request,
    search_shape,
    shape_of,
    shard_id,
    shard_message,
)
from rpc.reads import QueryReply, is_short
from rpc.workers import (
    Forward,
    Hold,
    Kills,
    PreparedShare,
    QueryShare,
    Release,
    Room,
    SearchShare,
    SearchShareReply,
    Session,
    Share,
    Worker,
)

FORWARD = "/sheafdb.v1.Worker/Forward"
HOLD = "/sheafdb.v1.Worker/Hold"
SEARCH_SHARE = "/sheafdb.v1.Worker/SearchShare"
QUERY_SHARE = "/sheafdb.v1.Worker/QueryShare"

FORWARD_S = 10.0
"""Longest wait until kills are applied; then the leader counts the worker as lost."""
HOLD_S = 600.0
"""Longest wait until segments are open: their files may have to be fetched first."""


class RemoteWorker(Worker):
    """A worker at the other end of a connection."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def forward(self, message: Forward) -> Room:
        request = forward_message(message).SerializeToString()
        reply = await self._peer.ask(FORWARD, request, time.monotonic() + FORWARD_S, pb.ForwardReply.FromString)
        return Room(reply.free_bytes, reply.limit_bytes)

    async def hold(self, hold: Hold) -> None:
        await self._peer.call(HOLD, hold_message(hold).SerializeToString(), HOLD_S)

    def search_share_at_once(self, share: SearchShare) -> SearchShareReply | None:
        return None

    def prepare_share(self, share: SearchShare) -> PreparedShare | None:
        return _DirectShare(self._peer.direct, share) if self._peer.direct else None

    def search_share(self, share: SearchShare) -> asyncio.Future[SearchShareReply]:
        request = pb.SearchShareRequest(share=_share_message(share), request=search_message(share.request))
        return self._peer.ask(SEARCH_SHARE, request.SerializeToString(), share.request.deadline, _search_reply)

    def query_share(self, share: QueryShare) -> asyncio.Future[QueryReply]:
        request = pb.QueryShareRequest(share=_share_message(share), request=query_message(share.request))
        return self._peer.ask(QUERY_SHARE, request.SerializeToString(), share.request.deadline, read_query_reply)


def _search_reply(data: bytes) -> SearchShareReply:
    reply = pb.SearchShareReply.FromString(data)
    return SearchShareReply(search_reply(reply.reply), from_bytes(reply.places, "<i4"))


class _DirectShare(Direct[SearchShareReply]):
    """Implements ``PreparedShare``."""

    def __init__(self, calls: DirectCalls, share: SearchShare) -> None:
        super().__init__(calls, SEARCH_SHARE, _search_reply)
        request = pb.SearchRequest(shape=shape_of(share.request))
        self._message = pb.SearchShareRequest(share=_share_message(share), request=request)

    def start(self, queries: np.ndarray, sizes: Sequence[int] = ()) -> Callable[[], SearchShareReply | None]:
        def write() -> bytes:
            request = self._message.request
            request.nq, request.queries, request.sizes[:] = len(queries), queries.tobytes(), sizes
            return self._message.SerializeToString()

        return self.ask(write)


def worker_direct_handlers(worker: Worker) -> Mapping[str, DirectHandler]:
    """What a ``DirectServer`` answers for ``worker``."""

    def prepare(message: bytes) -> PreparedShare | None:
        known = pb.SearchShareRequest.FromString(message)
        return worker.prepare_share(SearchShare(*_share_fields(known.share), search_shape(known.request.shape)))

    shares = Known(prepare)

    def search_share(data: bytes) -> bytes | None:
        message = pb.SearchShareRequest.FromString(data)
        request = message.request
        queries, sizes, nq = search_queries(request, search_shape(request.shape)), tuple(request.sizes), request.nq
        for name in ("nq", "queries", "sizes"):
            request.ClearField(name)
        prepared = shares.find(message.SerializeToString())
        if prepared is None or not is_short(nq, len(sizes), prepared.queries_max):
            return None
        reply = prepared.start(queries, sizes)()
        return None if reply is None else _share_reply(reply)

    return {SEARCH_SHARE: search_share}


def worker_handlers(worker: Worker) -> Handlers:
    """What a server registers to let leaders reach ``worker``."""

    async def forward(data: bytes, _deadline: float) -> bytes:
        room = await worker.forward(forward_of(pb.ForwardRequest.FromString(data)))
        return pb.ForwardReply(free_bytes=room.free, limit_bytes=room.limit).SerializeToString()

    async def hold(data: bytes, _deadline: float) -> bytes:
        await worker.hold(hold_of(pb.HoldRequest.FromString(data)))
        return pb.HoldReply().SerializeToString()

    def search_share(data: bytes, deadline: float) -> bytes | Later:
        message = pb.SearchShareRequest.FromString(data)
        share = SearchShare(*_share_fields(message.share), search_request(message.request, deadline))
        reply = worker.search_share_at_once(share)
        return search_share_later(share) if reply is None else _share_reply(reply)

    async def search_share_later(share: SearchShare) -> bytes:
        return _share_reply(await worker.search_share(share))

    async def query_share(data: bytes, deadline: float) -> bytes:
        message = pb.QueryShareRequest.FromString(data)
        share = QueryShare(*_share_fields(message.share), query_request(message.request, deadline))
        return query_reply_message(await worker.query_share(share)).SerializeToString()

    return {FORWARD: forward, HOLD: hold, SEARCH_SHARE: search_share, QUERY_SHARE: query_share}


def _share_reply(reply: SearchShareReply) -> bytes:
    out = pb.SearchShareReply(reply=search_reply_message(reply.reply), places=to_bytes(reply.places, "<i4"))
    return out.SerializeToString()


def forward_message(message: Forward) -> pb.ForwardRequest:
    return pb.ForwardRequest(
        session=_session_message(message.session),
        number=message.number,
        kills=map(_kills_message, message.kills),
        releases=[pb.Released(shard=shard_message(r.shard), segments=r.segments) for r in message.releases],
    )


def forward_of(message: pb.ForwardRequest) -> Forward:
    releases = (Release(shard_id(r.shard), tuple(map(SegmentId, r.segments))) for r in message.releases)
    return Forward(_session(message.session), message.number, tuple(map(_kills, message.kills)), tuple(releases))


def hold_message(hold: Hold) -> pb.HoldRequest:
    out = pb.HoldRequest(
        session=_session_message(hold.session),
        after=hold.after,
        shard_number=hold.shard_number,
        kills=None if hold.kills is None else _kills_message(hold.kills),
        replaced_bytes=hold.replaced_bytes,
    )
    fill(hold.collection, out.collection)
    for segment in hold.segments:
        fill(segment, out.segments.add())
    for file in hold.tombstones:
        fill(file, out.tombstones.add())
    return out


def hold_of(message: pb.HoldRequest) -> Hold:
    return Hold(
        _session(message.session),
        message.after,
        from_message(Collection, message.collection),
        message.shard_number,
        tuple(from_message(Segment, s) for s in message.segments),
        tuple(from_message(TombstoneFile, t) for t in message.tombstones),
        _kills(message.kills) if message.HasField("kills") else None,
        message.replaced_bytes,
    )


def _session_message(session: Session) -> pb.Session:
    return pb.Session(leader=session.leader, life=session.life)


def _session(message: pb.Session) -> Session:
    return Session(NodeId(message.leader), message.life)


def _kills_message(kills: Kills) -> pb.Kills:
    rows = columns_message([("", kills.keys), ("", pa.array(kills.positions, pa.int64()))])
    return pb.Kills(shard=shard_message(kills.shard), rows=rows)


def _kills(message: pb.Kills) -> Kills:
    _, (keys, positions) = columns_of(message.rows)
    return Kills(shard_id(message.shard), keys, positions.to_numpy())


def _share_message(share: Share) -> pb.Share:
    return pb.Share(
        session=_session_message(share.session), after=share.after, segments=share.segments, frontier=share.frontier
    )


def _share_fields(message: pb.Share) -> tuple[Session, int, tuple[SegmentId, ...], Position]:
    return (
        _session(message.session),
        message.after,
        tuple(map(SegmentId, message.segments)),
        Position(message.frontier),
    )
