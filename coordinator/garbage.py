"""Deletes objects that no manifest names: noted ones when they are due, unknown ones by a rare audit.

An object is deleted only after its name left the manifest and ``garbage_grace_s`` went by, so
that whoever still reads an older view has opened it (ARCHITECTURE.md, invariant 5).
"""

import re
from collections.abc import Sequence

import structlog

from coordinator.cluster import ClusterPicture
from coordinator.leadership import Leadership
from core.background import Background
from core.catalog import Garbage
from core.clock import wall_ms
from core.errors import Conflict
from core.failpoints import failpoint
from core.ids import CollectionId
from core.manifest import Manifest
from core.settings import CoordinatorSettings
from storage import keys
from storage.meta.port import Condition, Delete, MetaStore, Put
from storage.objects.port import ObjectStore

OURS = re.compile(r"[^/]+/[^/]+-(?P<collection>\d+)/shard=(?P<shard>\d+)/(segment|tombstones)-[^/]+")
"""Names this version gives (``storage.names``); the audit touches no other."""

log = structlog.get_logger()


class GarbageCollector:
    """Two loops: the collection of what is noted as garbage, and the audit of the object store."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        meta: MetaStore,
        objects: ObjectStore,
        picture: ClusterPicture,
        leadership: Leadership,
    ) -> None:
        self._settings, self._meta, self._objects = settings, meta, objects
        self._picture, self._leadership = picture, leadership
        self._collection = Background("garbage collection", self._collect, settings.garbage_interval_s)
        self._audit = Background("object audit", self._audit_round, settings.audit_interval_s, at_once=False)

    def start(self) -> None:
        self._collection.start()
        self._audit.start()

    async def close(self) -> None:
        await self._collection.close()
        await self._audit.close()

    async def _collect(self) -> None:
        now_ms = wall_ms()
        due = [(k, g) for k, g in self._picture.garbage.values.items() if g.not_before_ms <= now_ms]
        for key, garbage in due:
            # A leader of old must not delete by its old picture.
            await self._leadership.authority.check(self._meta)
            failpoint("gc.before_delete")
            for name in garbage.objects:
                await self._objects.delete(name)
            failpoint("gc.deleted")
            try:
                await self._meta.commit([self._leadership.authority.condition], [Delete(key)])
            except Conflict:
                await self._leadership.authority.check(self._meta)
                raise
            log.debug("garbage deleted", entry=key, objects=len(garbage.objects))

    async def _audit_round(self) -> None:
        await self.audit()

    async def audit(self) -> int:
        """Deletes objects that nothing names and that are older than ``orphan_grace_s``; how many.

        They come from crashes between the storing of an object and the commit that names it. A data node
        may also have slept in between for that long, and be about to wake: before anything is deleted,
        the owners of the channels concerned get a new epoch, under which what was stored before it is
        not named any more.
        """
        oldest_ms = wall_ms() - int(self._settings.orphan_grace_s * 1000)
        suspects = [
            o.name async for o in self._objects.list("") if o.modified_ms < oldest_ms and OURS.fullmatch(o.name)
        ]
        if orphans := await self._nameless(suspects):
            await self._fence_owners(orphans)
            orphans = await self._nameless(orphans)
        for name in orphans:
            await self._objects.delete(name)
        if orphans:
            log.info("orphaned objects deleted", count=len(orphans))
        return len(orphans)

    async def _nameless(self, suspects: Sequence[str]) -> list[str]:
        """Those that neither a manifest nor a note names, by the store itself."""
        if not suspects:
            return []
        manifests, _ = await self._meta.list(keys.MANIFESTS)
        noted, _ = await self._meta.list(keys.GARBAGE)
        named = {o.name for item in manifests for o in keys.decode(Manifest, item.value).objects()}
        named.update(name for item in noted for name in keys.decode(Garbage, item.value).objects)
        await self._leadership.authority.check(self._meta)
        return [name for name in suspects if name not in named]

    async def _fence_owners(self, orphans: Sequence[str]) -> None:
        shards = {(CollectionId(int(m["collection"])), int(m["shard"])) for m in map(OURS.fullmatch, orphans) if m}
        known = ((self._picture.catalog.get(id), number) for id, number in shards)
        channels = {c.shards[number].channel for c, number in known if c and number < len(c.shards)}
        for key in map(keys.owner, sorted(channels)):
            if owner := await self._meta.get(key):
                conditions = [self._leadership.authority.condition, Condition(key, owner.revision)]
                try:
                    await self._meta.commit(conditions, [Put(key, owner.value)])
                except Conflict:
                    await self._leadership.authority.check(self._meta)  # else it has a new owner: as good
