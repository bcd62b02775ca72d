"""The query node across the network, both ends."""

import time
from collections import OrderedDict
from functools import partial

from rpc.answering import Handlers, Later
from rpc.channel import Peer
from rpc.gathering import Gathering, goes_with_others
from rpc.newest import Newest
from rpc.pb import querynode_pb2 as pb
from rpc.read_messages import (
    SHAPE_BYTES_MAX,
    SHAPES_MAX,
    query_message,
    query_reply,
    query_reply_message,
    query_request,
    search_message,
    search_reply,
    search_reply_message,
    search_request,
    search_shape,
    shape_of,
    shard_status,
    status_message,
)
from rpc.reads import PreparedSearch, QueryReply, QueryRequest, SearchReply, SearchRequest, ShardStatus, inline_share
from rpc.roles import QueryNode

SEARCH = "/sheafdb.v1.QueryNode/Search"
QUERY = "/sheafdb.v1.QueryNode/Query"
SHARDS = "/sheafdb.v1.QueryNode/Shards"

STATUS_S = 5.0
"""Longest wait for a look at the node's state."""


class RemoteQueryNode(QueryNode):
    """A query node at the other end of a connection."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._gathering: dict[bytes, Gathering] = {}

    def prepare(self, request: SearchRequest) -> PreparedSearch | None:
        return None

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


class PreparedSearches:
    """What a node prepared, by shape of the search; the shapes asked for last."""

    def __init__(self, node: QueryNode) -> None:
        self._node = node
        self._found: OrderedDict[bytes, Newest] = OrderedDict()

    def find(self, shape: bytes) -> PreparedSearch | None:
        """One that may be run now; None when the node has to be asked."""
        newest = self._found.get(shape)
        if newest is None:
            newest = Newest(self._node, partial(search_shape, shape))
            if len(shape) <= SHAPE_BYTES_MAX:
                self._found[shape] = newest
                if len(self._found) > SHAPES_MAX:
                    self._found.popitem(last=False)
        else:
            self._found.move_to_end(shape)
        return newest.find()


def query_node_handlers(node: QueryNode) -> Handlers:
    """What a server registers to let others reach ``node``."""
    searches = PreparedSearches(node)

    def search(data: bytes, deadline: float) -> bytes | Later:
        message = pb.SearchRequest.FromString(data)
        prepared = searches.find(message.shape)
        if prepared is None or message.nq > prepared.queries_max * inline_share(len(message.sizes)):
            return search_later(message, deadline)
        request = search_request(message, deadline)
        return search_reply_message(prepared.search(request.queries, request.sizes)).SerializeToString()

    async def search_later(message: pb.SearchRequest, deadline: float) -> bytes:
        return search_reply_message(await node.search(search_request(message, deadline))).SerializeToString()

    async def query(data: bytes, deadline: float) -> bytes:
        request = query_request(pb.QueryRequest.FromString(data), deadline)
        return query_reply_message(await node.query(request)).SerializeToString()

    async def shards(_data: bytes, _deadline: float) -> bytes:
        return pb.ShardsReply(shards=map(status_message, await node.shards())).SerializeToString()

    return {SEARCH: search, QUERY: query, SHARDS: shards}
