"""What DDL leaves behind: manifests of dropped collections, segments of dropped partitions, indexes
of dropped declarations. Their objects become garbage in the same commits."""

import asyncio
from functools import partial

import structlog

from coordinator.cluster import ClusterPicture
from coordinator.index_plan import undefined, without
from coordinator.leadership import Leadership
from core.background import Background
from core.catalog import Collection
from core.errors import Conflict
from core.ids import CollectionId
from core.settings import CoordinatorSettings
from storage import keys
from storage.manifests import commit_manifest, drop_manifest
from storage.meta.port import Condition, Delete, MetaStore

IDLE_S = 60.0
SLICE = 32
"""Collections looked at in one go: some milliseconds."""

log = structlog.get_logger()


class Cleaner:
    """Brings manifests in line with the catalog, soon after each change of either."""

    def __init__(
        self, settings: CoordinatorSettings, meta: MetaStore, picture: ClusterPicture, leadership: Leadership
    ) -> None:
        self._grace_s = settings.garbage_grace_s
        self._meta, self._picture, self._leadership = meta, picture, leadership
        self._changed: set[CollectionId] = set()
        self._loop = Background("cleaning after DDL", self._round, IDLE_S)

    def start(self) -> None:
        self._loop.start()

    async def close(self) -> None:
        await self._loop.close()

    def mark(self, collection: CollectionId) -> None:
        """The collection or a manifest of it changed."""
        self._changed.add(collection)
        self._loop.wake()

    async def _round(self) -> None:
        failed: set[CollectionId] = set()
        failures: list[Exception] = []
        looked = 0
        try:
            while self._changed:
                looked += 1
                if looked % SLICE == 0:
                    await asyncio.sleep(0)
                id = self._changed.pop()
                failed.add(id)  # until it is done, also when this is cancelled
                try:
                    await self._clean(id)
                    failed.discard(id)
                except Exception as e:
                    # The other collections must not wait for this one.
                    failures.append(e)
        finally:
            self._changed |= failed
        if failures:
            raise failures[0]

    async def _clean(self, id: CollectionId) -> None:
        collection = self._picture.catalog.collections.values.get(keys.collection(id))
        if collection is not None:
            await (self._reap(collection) if collection.dropped else self._prune(collection))

    async def _prune(self, collection: Collection) -> None:
        manifests = [m for m in self._picture.manifests_of(collection) if any(undefined(m, collection))]
        # The picture may show a manifest before the partition that its newest segment is of.
        item = await self._meta.get(keys.collection(collection.id)) if manifests else None
        if item is None:
            return
        now = keys.decode(Collection, item.value)
        for manifest in manifests:
            change = partial(without, dropped=undefined(manifest, now))
            await commit_manifest(self._meta, manifest.shard_id, change, self._leadership.authority, self._grace_s)

    async def _reap(self, collection: Collection) -> None:
        """Manifests first, the collection's own key last: a crash in between leaves it to be found."""
        authority = self._leadership.authority
        for shard in collection.shard_ids:
            await drop_manifest(self._meta, shard, authority, self._grace_s)
        key = keys.collection(collection.id)
        item = await self._meta.get(key)
        if item is None:
            return
        try:
            await self._meta.commit([Condition(key, item.revision), authority.condition], [Delete(key)])
        except Conflict:
            await authority.check(self._meta)
            raise
        log.info("dropped collection cleaned away", collection=collection.name, id=collection.id)
