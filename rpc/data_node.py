"""The data node across the network, both ends."""

from collections.abc import Mapping, Sequence

from core.ids import SegmentId, ShardId
from rpc.answering import Handlers
from rpc.channel import Peer
from rpc.pb import datanode_pb2 as pb
from rpc.read_messages import shard_id, shard_message
from rpc.roles import DataNode

FLUSH = "/sheafdb.v1.DataNode/Flush"
COMPACT = "/sheafdb.v1.DataNode/Compact"

FLUSH_S = 120.0
"""Longest wait for a flush; whoever asked for it asks again."""
COMPACT_S = 6 * 3600.0
"""Longest compaction of one shard. A lost node is noticed by the connection, long before."""


def sealed_message(sealed: Mapping[ShardId, Sequence[SegmentId]]) -> pb.SealedReply:
    return pb.SealedReply(shards=[pb.Sealed(shard=shard_message(s), segments=ids) for s, ids in sealed.items()])


def sealed_segments(message: pb.SealedReply) -> dict[ShardId, list[SegmentId]]:
    return {shard_id(s.shard): list(map(SegmentId, s.segments)) for s in message.shards}


class RemoteDataNode(DataNode):
    """A data node at the other end of a connection."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def flush(self, shards: Sequence[ShardId], timestamp: int) -> dict[ShardId, list[SegmentId]]:
        request = pb.FlushRequest(shards=map(shard_message, shards), timestamp=timestamp)
        reply = await self._peer.call(FLUSH, request.SerializeToString(), FLUSH_S)
        return sealed_segments(pb.SealedReply.FromString(reply))

    async def compact(self, shard: ShardId) -> int:
        request = pb.CompactRequest(shard=shard_message(shard))
        reply = await self._peer.call(COMPACT, request.SerializeToString(), COMPACT_S)
        return pb.CompactShardReply.FromString(reply).merges


def data_node_handlers(node: DataNode) -> Handlers:
    """What a server registers to let others reach ``node``."""

    async def flush(data: bytes, _deadline: float) -> bytes:
        request = pb.FlushRequest.FromString(data)
        sealed = await node.flush(list(map(shard_id, request.shards)), request.timestamp)
        return sealed_message(sealed).SerializeToString()

    async def compact(data: bytes, _deadline: float) -> bytes:
        merges = await node.compact(shard_id(pb.CompactRequest.FromString(data).shard))
        return pb.CompactShardReply(merges=merges).SerializeToString()

    return {FLUSH: flush, COMPACT: compact}
