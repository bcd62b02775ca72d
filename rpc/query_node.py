"""The query node across the network, both ends."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from rpc.answering import Handlers, Later
from rpc.channel import Peer
from rpc.direct import Direct, DirectCalls
from rpc.direct import Handler as DirectHandler
from rpc.gathering import Gathering, goes_with_others
from rpc.newest import Known
from rpc.pb import querynode_pb2 as pb
from rpc.read_messages import (
    SHAPES_MAX,
    query_message,
    query_reply,
    query_reply_message,
    query_request,
    search_message,
    search_queries,
    search_reply,
    search_reply_message,
    search_request,
    search_shape,
    shape_of,
    shard_status,
    status_message,
)
from rpc.reads import PreparedSearch, QueryReply, QueryRequest, SearchReply, SearchRequest, ShardStatus, is_short
from rpc.roles import QueryNode

SEARCH = "/sheafdb.v1.QueryNode/Search"
QUERY = "/sheafdb.v1.QueryNode/Query"
SHARDS = "/sheafdb.v1.QueryNode/Shards"

STATUS_S = 5.0
"""Longest wait for a look at the node's state."""


class DirectQueryNode(Protocol):
    """The part of a query node that answers direct calls."""

    def prepare_spread(self, request: SearchRequest) -> PreparedSearch | None:
        """As ``QueryNode.prepare``, also of shards that are spread: then the thread that searches waits for others."""
        ...


class RemoteQueryNode(QueryNode):
    """A query node at the other end of a connection."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._gathering: dict[bytes, Gathering] = {}
        self._direct: dict[bytes, _DirectSearch] = {}

    def prepare(self, request: SearchRequest) -> PreparedSearch | None:
        # A direct call is waited for, which an event loop must not.
        if self._peer.direct is None or not self._peer.direct.usable or _runs_a_loop():
            return None
        shape = shape_of(request)
        search = self._direct.get(shape)
        if search is None or not search.holds:
            if len(self._direct) >= SHAPES_MAX:
                self._direct = {}
            search = self._direct[shape] = _DirectSearch(self._peer.direct, shape)
        return search

    async def search(self, request: SearchRequest) -> SearchReply:
        if not goes_with_others(request):
            return await self._search(request)
        shape = shape_of(request)
        gathering = self._gathering.get(shape)
        if gathering is None:
            if len(self._gathering) >= SHAPES_MAX:
                self._gathering = {shape: g for shape, g in self._gathering.items() if not g.idle}
            gathering = self._gathering[shape] = Gathering(self._search)
        return await gathering.search(request)

    async def _search(self, request: SearchRequest) -> SearchReply:
        message = search_message(request).SerializeToString()
        return await self._peer.ask(SEARCH, message, request.deadline, _search_reply)

    async def query(self, request: QueryRequest) -> QueryReply:
        message = query_message(request).SerializeToString()
        return await self._peer.ask(QUERY, message, request.deadline, read_query_reply)

    async def shards(self) -> list[ShardStatus]:
        request = pb.ShardsRequest().SerializeToString()
        reply = await self._peer.ask(SHARDS, request, time.monotonic() + STATUS_S, pb.ShardsReply.FromString)
        return list(map(shard_status, reply.shards))


def _search_reply(data: bytes) -> SearchReply:
    return search_reply(pb.SearchReply.FromString(data))


def read_query_reply(data: bytes) -> QueryReply:
    return query_reply(pb.QueryReply.FromString(data))


def _runs_a_loop() -> bool:
    """Whether this thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _DirectSearch(Direct[SearchReply]):
    """Implements ``PreparedSearch``: everything is known but the vectors, and whether the node answers at once."""

    def __init__(self, calls: DirectCalls, shape: bytes) -> None:
        super().__init__(calls, SEARCH, _search_reply)
        self._shape = shape

    def start(self, queries: np.ndarray, sizes: Sequence[int] = ()) -> Callable[[], SearchReply | None]:
        def write() -> bytes:
            message = pb.SearchRequest(shape=self._shape, nq=len(queries), queries=queries.tobytes(), sizes=sizes)
            return message.SerializeToString()

        return self.ask(write)


def query_node_direct_handlers(node: DirectQueryNode) -> Mapping[str, DirectHandler]:
    """What a ``DirectServer`` answers for ``node``."""
    searches = Known(lambda shape: node.prepare_spread(search_shape(shape)))

    def search(data: bytes) -> bytes | None:
        message = pb.SearchRequest.FromString(data)
        prepared = searches.find(message.shape)
        if prepared is None or not is_short(message.nq, len(message.sizes), prepared.queries_max):
            return None
        reply = prepared.start(search_queries(message, search_shape(message.shape)), message.sizes)()
        return None if reply is None else search_reply_message(reply).SerializeToString()

    return {SEARCH: search}


def query_node_handlers(node: QueryNode) -> Handlers:
    """What a server registers to let others reach ``node``."""
    searches = Known(lambda shape: node.prepare(search_shape(shape)))

    def search(data: bytes, deadline: float) -> bytes | Later:
        message = pb.SearchRequest.FromString(data)
        prepared = searches.find(message.shape)
        if prepared is None or not is_short(message.nq, len(message.sizes), prepared.queries_max):
            return search_later(message, deadline)
        reply = prepared.start(search_queries(message, search_shape(message.shape)), message.sizes)()
        return search_later(message, deadline) if reply is None else search_reply_message(reply).SerializeToString()

    async def search_later(message: pb.SearchRequest, deadline: float) -> bytes:
        return search_reply_message(await node.search(search_request(message, deadline))).SerializeToString()

    async def query(data: bytes, deadline: float) -> bytes:
        request = query_request(pb.QueryRequest.FromString(data), deadline)
        return query_reply_message(await node.query(request)).SerializeToString()

    async def shards(_data: bytes, _deadline: float) -> bytes:
        return pb.ShardsReply(shards=map(status_message, await node.shards())).SerializeToString()

    return {SEARCH: search, QUERY: query, SHARDS: shards}
