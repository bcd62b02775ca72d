"""The data node: owns channels, keeps their shards sealed and compacted. Answers no reads."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from core.background import Background
from core.catalog import ChannelOwner, Collection
from core.errors import Fenced, ObjectNotFound
from core.ids import Channel, CollectionId, NodeId, SegmentId, ShardId
from core.manifest import Manifest
from core.settings import DataNodeSettings
from datanode.channel import OwnedChannel
from datanode.compact import compact_once
from datanode.compaction_plan import Policy, worth_a_look
from datanode.ids import Ids
from datanode.key_filters import KeyFilters
from datanode.resources import Resources
from datanode.state import over_budget
from rpc.roles import Coordinator
from storage import keys
from storage.log.port import Log
from storage.manifests import Authority
from storage.meta.mirror import Mirror
from storage.meta.port import MetaStore
from storage.objects.port import ObjectStore

THREADS = 2
"""Of files being written or merged at a time; more would only take memory from each other."""
ROOM_RETRY_S = 0.2
FULL = 2
"""Tailing waits for seals once buffers take this many times ``buffer_bytes``."""

log = structlog.get_logger()


class DataNodeService:
    """Implements ``rpc.roles.DataNode``. Takes up and leaves channels as the coordinator says."""

    def __init__(  # noqa: PLR0917 (one per seam)
        self,
        settings: DataNodeSettings,
        garbage_grace_s: float,
        node: NodeId,
        meta: MetaStore,
        log: Log,
        objects: ObjectStore,
        coordinator: Coordinator,
        scratch: Path,
    ) -> None:
        self._settings, self._node = settings, node
        self._threads = ThreadPoolExecutor(THREADS, "datanode")
        self._resources = Resources(
            settings=settings,
            garbage_grace_s=garbage_grace_s,
            meta=meta,
            log=log,
            objects=objects,
            scratch=scratch,
            threads=self._threads,
            ids=Ids(coordinator),
            key_filters=KeyFilters(objects, self._threads),
            sealing=asyncio.Semaphore(THREADS),
        )
        self._collections: Mirror[Collection] = Mirror(meta, keys.COLLECTIONS, Collection)
        self._owners: Mirror[ChannelOwner] = Mirror(meta, keys.OWNERS, ChannelOwner)
        self._manifests: Mirror[Manifest] = Mirror(meta, keys.MANIFESTS, Manifest)
        self._channels: dict[Channel, OwnedChannel] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._changed: set[ShardId] = set()
        self._compacting = asyncio.Lock()
        self._compaction = Background("compaction", self._compact_changed, settings.compact_interval_s, at_once=False)

    async def start(self) -> None:
        self._resources.scratch.mkdir(parents=True, exist_ok=True)
        await self._collections.start()
        await self._manifests.start()
        self._manifests.listen(self._manifest_changed)
        await self._owners.start()
        self._owners.listen(self._owner_changed)
        self._compaction.start()

    async def close(self) -> None:
        await self._compaction.close()
        await self._owners.close()
        for channel in list(self._channels.values()):
            await channel.close()
        self._channels.clear()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._manifests.close()
        await self._collections.close()
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    # --- DataNode ----------------------------------------------------------------------------
    async def flush(self, shards: Sequence[ShardId], timestamp: int) -> dict[ShardId, list[SegmentId]]:
        by_channel: dict[Channel, list[ShardId]] = {}
        for shard in shards:
            by_channel.setdefault((await self._owned(shard)).channel, []).append(shard)
        parts = [self._channels[c].flush(mine, timestamp) for c, mine in by_channel.items()]
        sealed: dict[ShardId, list[SegmentId]] = {}
        for part in await asyncio.gather(*parts):
            sealed |= part
        return sealed

    async def compact(self, shard: ShardId) -> int:
        return await self._compact(shard, Policy.thorough(self._settings))

    # --- owning ------------------------------------------------------------------------------
    def _owner_changed(self, key: str, owner: ChannelOwner | None) -> None:
        channel = Channel(int(key.removeprefix(keys.OWNERS)))
        held = self._channels.pop(channel, None)
        if held is not None:
            task = asyncio.create_task(held.close(), name=f"end of channel {channel}")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        if owner is not None and owner.node == self._node:
            authority = Authority(key, self._owners.revisions[key])
            taken = OwnedChannel(self._resources, channel, authority, self._collections, self._make_room)
            self._channels[channel] = taken
            taken.start()
            self._changed.update(m.shard_id for m in self._manifests.values.values())
            log.info("channel taken", channel=channel, epoch=authority.epoch)

    async def _owned(self, shard: ShardId) -> OwnedChannel:
        """The channel of a shard. Raises ``Fenced`` when it is not owned here."""
        known = self._collections.values.get(keys.collection(shard.collection))
        collection = known or await self._resources.collection(shard.collection)
        held = self._channels.get(collection.shards[shard.number].channel) if collection else None
        if held is None:
            raise Fenced(f"the channel of shard {shard} is not owned by {self._node}")
        return held

    async def _make_room(self) -> None:
        """Seals the largest buffers above the budget; waits while they are far above it."""
        budget = self._settings.buffer_bytes
        while True:
            states = [c.state for c in self._channels.values()]
            for channel, shard in over_budget(states, budget, time.monotonic()):
                self._channels[channel].seal_soon(shard)
            if sum(s.bytes for s in states) <= FULL * budget:
                return
            seals = {task for c in self._channels.values() for task in c.seals}
            if seals:
                await asyncio.wait(seals, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(ROOM_RETRY_S)

    # --- compaction --------------------------------------------------------------------------
    def _manifest_changed(self, key: str, manifest: Manifest | None) -> None:
        if manifest is not None:
            self._changed.add(manifest.shard_id)
            return
        collection, number = key.removeprefix(keys.MANIFESTS).split("/")
        self._changed.discard(ShardId(CollectionId(int(collection)), int(number)))

    async def _compact_changed(self) -> None:
        policy = Policy.background(self._settings)
        failures: list[Exception] = []
        for shard in list(self._changed):
            # Before the work: what changes during it is looked at again.
            self._changed.discard(shard)
            manifest = self._manifests.values.get(keys.manifest(shard))
            if manifest is None or not worth_a_look(manifest, policy):
                continue
            try:
                await self._compact(shard, policy)
            except (Fenced, ObjectNotFound):
                continue
            except Exception as e:
                # The other shards must not wait for this one.
                self._changed.add(shard)
                failures.append(e)
        if failures:
            raise failures[0]

    async def _compact(self, shard: ShardId, policy: Policy) -> int:
        done = 0
        async with self._compacting:
            while await compact_once(self._resources, (await self._owned(shard)).authority, shard, policy):
                done += 1
        return done
