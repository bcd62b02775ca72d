"""The coordinator across the network, both ends."""

import re
from collections.abc import Sequence

from core.ids import CollectionId, PartitionId, Revision, SegmentId, ShardId
from core.messages import fill, from_message, to_message
from rpc.answering import Handlers
from rpc.channel import Peer
from rpc.data_node import sealed_message, sealed_segments
from rpc.pb import coordinator_pb2 as pb
from rpc.pb import datanode_pb2
from rpc.read_messages import shard_id, shard_message
from rpc.roles import (
    CatalogChange,
    CollectionStats,
    CompactionState,
    Coordinator,
    CreateCollection,
    CreateIndex,
    CreatePartition,
    DropCollection,
    DropIndex,
    DropPartition,
    IndexProgress,
    Load,
    Release,
)

CHANGE = "/sheafdb.v1.Coordinator/Change"
DEFINED = "/sheafdb.v1.Coordinator/Defined"
LEASE_IDS = "/sheafdb.v1.Coordinator/LeaseIds"
LOAD_PROGRESS = "/sheafdb.v1.Coordinator/LoadProgress"
FLUSH = "/sheafdb.v1.Coordinator/Flush"
FLUSHED = "/sheafdb.v1.Coordinator/Flushed"
COMPACT = "/sheafdb.v1.Coordinator/Compact"
COMPACTION_STATE = "/sheafdb.v1.Coordinator/CompactionState"
INDEX_PROGRESS = "/sheafdb.v1.Coordinator/IndexProgress"
STATS = "/sheafdb.v1.Coordinator/Stats"
REPORT_BAD_INDEX = "/sheafdb.v1.Coordinator/ReportBadIndex"

CALL_S = 15.0
"""Longest wait for anything but a flush: nothing else here takes work."""
FLUSH_S = 150.0
"""Longest wait for a flush; the coordinator gives up before."""

_CHANGES: tuple[type[CatalogChange], ...] = (
    CreateCollection,
    DropCollection,
    CreatePartition,
    DropPartition,
    Load,
    Release,
    CreateIndex,
    DropIndex,
)


def _slot(cls: type) -> str:
    """The field of ``ChangeRequest`` for a class: CreateIndex is create_index."""
    return re.sub("(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


_CLASS_OF_SLOT = {_slot(cls): cls for cls in _CHANGES}


def change_message(change: CatalogChange) -> pb.ChangeRequest:
    message = pb.ChangeRequest()
    slot = getattr(message, _slot(type(change)))
    slot.SetInParent()
    fill(change, slot)
    return message


def catalog_change(message: pb.ChangeRequest) -> CatalogChange:
    slot = message.WhichOneof("change")
    assert slot is not None, "a change is one of the known ones"
    return from_message(_CLASS_OF_SLOT[slot], getattr(message, slot))


class RemoteCoordinator(Coordinator):
    """A coordinator at the other end of a connection, leading or not."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def change(self, change: CatalogChange) -> Revision:
        reply = await self._peer.call(CHANGE, change_message(change).SerializeToString(), CALL_S)
        return Revision(pb.ChangeReply.FromString(reply).revision)

    async def defined(self) -> Revision:
        reply = await self._peer.call(DEFINED, pb.DefinedRequest().SerializeToString(), CALL_S)
        return Revision(pb.DefinedReply.FromString(reply).revision)

    async def lease_ids(self, count: int) -> range:
        reply = await self._peer.call(LEASE_IDS, pb.LeaseIdsRequest(count=count).SerializeToString(), CALL_S)
        leased = pb.LeaseIdsReply.FromString(reply)
        return range(leased.start, leased.stop)

    async def load_progress(self, collection: CollectionId, partitions: Sequence[PartitionId]) -> int:
        request = pb.LoadProgressRequest(collection=collection, partitions=partitions)
        reply = await self._peer.call(LOAD_PROGRESS, request.SerializeToString(), CALL_S)
        return pb.LoadProgressReply.FromString(reply).percent

    async def flush(self, collection: CollectionId, timestamp: int) -> dict[ShardId, list[SegmentId]]:
        request = pb.FlushCollectionRequest(collection=collection, timestamp=timestamp)
        reply = await self._peer.call(FLUSH, request.SerializeToString(), FLUSH_S)
        return sealed_segments(datanode_pb2.SealedReply.FromString(reply))

    async def flushed(self, collection: CollectionId, timestamp: int) -> bool:
        request = pb.FlushCollectionRequest(collection=collection, timestamp=timestamp)
        reply = await self._peer.call(FLUSHED, request.SerializeToString(), CALL_S)
        return pb.FlushedReply.FromString(reply).flushed

    async def compact(self, collection: CollectionId) -> int:
        reply = await self._peer.call(COMPACT, _collection(collection), CALL_S)
        return pb.CompactReply.FromString(reply).id

    async def compaction_state(self, id: int) -> CompactionState:
        request = pb.CompactionStateRequest(id=id).SerializeToString()
        reply = await self._peer.call(COMPACTION_STATE, request, CALL_S)
        return from_message(CompactionState, pb.CompactionState.FromString(reply))

    async def index_progress(self, collection: CollectionId) -> list[IndexProgress]:
        reply = await self._peer.call(INDEX_PROGRESS, _collection(collection), CALL_S)
        return [from_message(IndexProgress, p) for p in pb.IndexProgressReply.FromString(reply).indexes]

    async def stats(self, collection: CollectionId) -> CollectionStats:
        reply = await self._peer.call(STATS, _collection(collection), CALL_S)
        rows = pb.CollectionStats.FromString(reply).rows
        return CollectionStats({PartitionId(id): count for id, count in rows.items()})

    async def report_bad_index(self, shard: ShardId, segment: SegmentId, object_name: str) -> None:
        request = pb.ReportBadIndexRequest(shard=shard_message(shard), segment=segment, object_name=object_name)
        await self._peer.call(REPORT_BAD_INDEX, request.SerializeToString(), CALL_S)


def _collection(id: CollectionId) -> bytes:
    return pb.CollectionRequest(collection=id).SerializeToString()


def coordinator_handlers(coordinator: Coordinator) -> Handlers:
    """What a server registers to let others reach ``coordinator``."""

    async def change(data: bytes, _deadline: float) -> bytes:
        revision = await coordinator.change(catalog_change(pb.ChangeRequest.FromString(data)))
        return pb.ChangeReply(revision=revision).SerializeToString()

    async def defined(_data: bytes, _deadline: float) -> bytes:
        return pb.DefinedReply(revision=await coordinator.defined()).SerializeToString()

    async def lease_ids(data: bytes, _deadline: float) -> bytes:
        leased = await coordinator.lease_ids(pb.LeaseIdsRequest.FromString(data).count)
        return pb.LeaseIdsReply(start=leased.start, stop=leased.stop).SerializeToString()

    async def load_progress(data: bytes, _deadline: float) -> bytes:
        request = pb.LoadProgressRequest.FromString(data)
        partitions = list(map(PartitionId, request.partitions))
        percent = await coordinator.load_progress(CollectionId(request.collection), partitions)
        return pb.LoadProgressReply(percent=percent).SerializeToString()

    async def flush(data: bytes, _deadline: float) -> bytes:
        request = pb.FlushCollectionRequest.FromString(data)
        sealed = await coordinator.flush(CollectionId(request.collection), request.timestamp)
        return sealed_message(sealed).SerializeToString()

    async def flushed(data: bytes, _deadline: float) -> bytes:
        request = pb.FlushCollectionRequest.FromString(data)
        done = await coordinator.flushed(CollectionId(request.collection), request.timestamp)
        return pb.FlushedReply(flushed=done).SerializeToString()

    async def compact(data: bytes, _deadline: float) -> bytes:
        return pb.CompactReply(id=await coordinator.compact(_collection_id(data))).SerializeToString()

    async def compaction_state(data: bytes, _deadline: float) -> bytes:
        state = await coordinator.compaction_state(pb.CompactionStateRequest.FromString(data).id)
        return to_message(state, pb.CompactionState).SerializeToString()

    async def index_progress(data: bytes, _deadline: float) -> bytes:
        reply = pb.IndexProgressReply()
        for progress in await coordinator.index_progress(_collection_id(data)):
            fill(progress, reply.indexes.add())
        return reply.SerializeToString()

    async def stats(data: bytes, _deadline: float) -> bytes:
        rows = (await coordinator.stats(_collection_id(data))).rows
        return pb.CollectionStats(rows={int(id): count for id, count in rows.items()}).SerializeToString()

    async def report_bad_index(data: bytes, _deadline: float) -> bytes:
        request = pb.ReportBadIndexRequest.FromString(data)
        await coordinator.report_bad_index(shard_id(request.shard), SegmentId(request.segment), request.object_name)
        return pb.ReportBadIndexReply().SerializeToString()

    return {
        CHANGE: change,
        DEFINED: defined,
        LEASE_IDS: lease_ids,
        LOAD_PROGRESS: load_progress,
        FLUSH: flush,
        FLUSHED: flushed,
        COMPACT: compact,
        COMPACTION_STATE: compaction_state,
        INDEX_PROGRESS: index_progress,
        STATS: stats,
        REPORT_BAD_INDEX: report_bad_index,
    }


def _collection_id(data: bytes) -> CollectionId:
    return CollectionId(pb.CollectionRequest.FromString(data).collection)
