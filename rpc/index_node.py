"""The index node across the network, both ends."""

from core.manifest import IndexFile
from core.messages import from_message, to_message
from rpc.answering import Handlers
from rpc.channel import Peer
from rpc.pb import indexnode_pb2 as pb
from rpc.pb import manifest_pb2
from rpc.roles import IndexNode, IndexTask

BUILD = "/sheafdb.v1.IndexNode/Build"

BUILD_S = 6 * 3600.0
"""Longest build of one index. A lost node is noticed by the connection, long before."""


class RemoteIndexNode(IndexNode):
    """An index node at the other end of a connection."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def build(self, task: IndexTask) -> IndexFile:
        reply = await self._peer.call(BUILD, to_message(task, pb.IndexTask).SerializeToString(), BUILD_S)
        return from_message(IndexFile, manifest_pb2.IndexFile.FromString(reply))


def index_node_handlers(node: IndexNode) -> Handlers:
    """What a server registers to let others reach ``node``."""

    async def build(data: bytes, _deadline: float) -> bytes:
        file = await node.build(from_message(IndexTask, pb.IndexTask.FromString(data)))
        return to_message(file, manifest_pb2.IndexFile).SerializeToString()

    return {BUILD: build}
