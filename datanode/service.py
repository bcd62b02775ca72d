"""The data node: owns channels, keeps their shards sealed and compacted. Answers no reads."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog

from core.background import Background
from core.catalog import ChannelOwner, Collection
from core.errors import Conflict, Fenced, ObjectNotFound, SheafError
from core.ids import Channel, CollectionId, NodeId, Revision, SegmentId, ShardId
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
from storage.manifests import Authority, read_manifest
from storage.meta.mirror import Mirror
from storage.meta.port import Condition, MetaStore, Put
from storage.objects.port import ObjectStore
from storage.pressure import Load, PressureSign, PressureSigns

THREADS = 2
"""Of files being written or merged at a time; more would only take memory from each other."""
ROOM_RETRY_S = 0.2
CLAIM_RETRY_S = 0.2
FULL = 2
"""Tailing waits for seals once buffers take this many times ``buffer_bytes``."""
BACKLOG = 4
"""Writes are refused at this many times ``buffer_bytes`` unless told otherwise: in the lower half lies what
tailing takes in before it waits."""
BACKLOG_BYTES_MIN = 2 * 1024 * 1024 * 1024
RELIEF_S = 0.5
"""Pause between looks for channels under pressure."""

MANIFESTS_DECODED = 256
"""Manifests are looked at when they change; those of other nodes' channels rarely."""
LOOK = 32
"""Manifests looked at in one go for what is worth compacting."""

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
        self._settings, self._node, self._meta = settings, node, meta
        self._process = secrets.token_hex(8)
        self._started = False
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
        self._manifests: Mirror[Manifest] = Mirror(meta, keys.MANIFESTS, Manifest, MANIFESTS_DECODED)
        self._channels: dict[Channel, OwnedChannel] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._claiming: set[asyncio.Task[None]] = set()
        self._changed: set[ShardId] = set()
        self._compacting = asyncio.Lock()
        self._pressure = PressureSigns(meta)
        self._sign = PressureSign(meta, "datanode", node, self._backlog)
        self._relief = Background("sealing under pressure", self._relieve, RELIEF_S)
        self._compaction = Background("compaction", self._compact_changed, settings.compact_interval_s, at_once=False)

    async def start(self) -> None:
        self._resources.scratch.mkdir(parents=True, exist_ok=True)
        await self._collections.start()
        await self._manifests.start()
        self._changed.update(map(_shard, self._manifests.values))
        self._manifests.listen(self._manifest_changed, replay=False)
        await self._owners.start()
        self._owners.listen(self._owner_changed)
        self._started = True
        await self._pressure.start()
        self._sign.start()
        self._relief.start()
        self._compaction.start()

    async def close(self) -> None:
        await self._compaction.close()
        await self._relief.close()
        await self._sign.close()
        await self._pressure.close()
        await self._owners.close()
        for task in self._claiming:
            task.cancel()
        await asyncio.gather(*self._claiming, return_exceptions=True)
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
        if owner is None or owner.node != self._node:
            return
        if owner.process == self._process:
            authority = Authority(key, self._owners.revisions[key])
            taken = OwnedChannel(self._resources, channel, authority, self._collections, self._make_room)
            self._channels[channel] = taken
            taken.start()
            self._changed.update(map(_shard, self._manifests.values))
            log.info("channel taken", channel=channel, epoch=authority.epoch)
        elif not owner.process or not self._started:
            # What a former process of this id had is claimed at the start; later on, another one that is
            # named is the successor of this.
            task = asyncio.create_task(self._claim(key, self._owners.revisions[key]), name=f"claim of {key}")
            self._claiming.add(task)
            task.add_done_callback(self._claiming.discard)

    async def _claim(self, key: str, revision: Revision) -> None:
        """Puts this process into an owner's record; the channel is taken up when that is seen."""
        claim = Put(key, keys.encode(ChannelOwner(self._node, self._process)))
        while self._owners.revisions.get(key) == revision:
            try:
                with suppress(Conflict):  # given to somebody else meanwhile
                    await self._meta.commit([Condition(key, revision)], [claim])
                return
            except SheafError as e:
                log.warning("channel not claimed, trying again", key=key, error=str(e))
                await asyncio.sleep(CLAIM_RETRY_S)

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

    # --- back-pressure -----------------------------------------------------------------------
    async def _backlog(self) -> Load:
        held = sorted(self._channels.items())
        channels = tuple(channel for channel, _ in held)
        ends = await self._resources.log.end(channels) if channels else []
        used = sum(owned.backlog(end) for (_, owned), end in zip(held, ends, strict=True))
        budget = self._settings.backlog_bytes or max(BACKLOG * self._settings.buffer_bytes, BACKLOG_BYTES_MIN)
        return Load(used, budget, channels, "unsealed records", "data_node.backlog_bytes")

    async def _relieve(self) -> None:
        """Seals the larger half of what is buffered of channels under pressure: rows that fill a query node
        can leave it only then."""
        states = [c.state for channel, c in self._channels.items() if channel in self._pressure.by_channel]
        half = sum(s.bytes for s in states) // 2
        for channel, shard in over_budget(states, half, time.monotonic()):
            self._channels[channel].seal_soon(shard)

    # --- compaction --------------------------------------------------------------------------
    def _manifest_changed(self, key: str, manifest: Manifest | None) -> None:
        (self._changed.discard if manifest is None else self._changed.add)(_shard(key))

    async def _compact_changed(self) -> None:
        policy = Policy.background(self._settings)
        failures: list[Exception] = []
        for number, shard in enumerate(list(self._changed)):
            if number % LOOK == LOOK - 1:
                await asyncio.sleep(0)
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
            while True:
                before = await read_manifest(self._resources.meta, shard)
                try:
                    if not await compact_once(self._resources, (await self._owned(shard)).authority, shard, policy):
                        return done
                    done += 1
                except ObjectNotFound:
                    # What the manifest no longer names may be gone: a dropped partition's, a compacted segment's.
                    if await read_manifest(self._resources.meta, shard) == before:
                        raise


def _shard(manifest: str) -> ShardId:
    collection, number = manifest.removeprefix(keys.MANIFESTS).split("/")
    return ShardId(CollectionId(int(collection)), int(number))
