"""Has missing indexes built by index nodes, the largest segments first. No search waits for it."""

import asyncio
import time

import structlog

from coordinator.cluster import ClusterPicture
from coordinator.ids import Ids
from coordinator.index_plan import Build, missing, with_index
from coordinator.leadership import Leadership
from core.background import Background
from core.errors import SheafError, Unavailable
from core.failpoints import failpoint
from core.ids import CollectionId, IndexId, SegmentId
from core.manifest import IndexFile, Manifest
from core.settings import CoordinatorSettings, IndexNodeSettings
from rpc.roles import IndexNode, Nodes
from storage.manifests import commit_manifest
from storage.meta.port import MetaStore
from storage.objects.port import ObjectStore

IDLE_S = 60.0
SLICE = 32
"""Collections looked at in one go: some milliseconds."""
Key = tuple[SegmentId, IndexId]

log = structlog.get_logger()


class IndexScheduler:
    """Keeps one build running on each index node while anything is missing."""

    def __init__(  # noqa: PLR0917 (one per seam)
        self,
        settings: CoordinatorSettings,
        rows: IndexNodeSettings,
        meta: MetaStore,
        objects: ObjectStore,
        nodes: Nodes,
        picture: ClusterPicture,
        leadership: Leadership,
        ids: Ids,
    ) -> None:
        self._settings, self._rows_min = settings, rows.rows_min
        self._meta, self._objects, self._nodes = meta, objects, nodes
        self._picture, self._leadership, self._ids = picture, leadership, ids
        self._changed: set[CollectionId] = set()
        self._missing: dict[CollectionId, list[Build]] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._busy: set[IndexNode] = set()
        self._avoided: dict[IndexNode, float] = {}
        """Index nodes that were lost in the middle of a build, until when others come first."""
        self._retry_at: dict[Key, float] = {}
        self.errors: dict[IndexId, str] = {}
        """Why the last build of an index failed; gone once one succeeds."""
        self._loop = Background("index builds", self._round, IDLE_S)

    def start(self) -> None:
        """Begins to lead."""
        self._loop.start()

    def mark(self, collection: CollectionId) -> None:
        """The collection or a manifest of it changed."""
        self._changed.add(collection)
        self._loop.wake()

    async def _round(self) -> None:
        await self._look()
        nodes = self._nodes.index_nodes()
        now = time.monotonic()
        waiting = [
            b
            for builds in self._missing.values()
            for b in builds
            if b.key not in self._running and self._retry_at.get(b.key, 0.0) <= now
        ]
        waiting.sort(key=lambda b: -b.segment.rows)
        self._avoided = {n: until for n, until in self._avoided.items() if until > now and n in nodes}
        # A lost node is asked again when there is no other.
        free = sorted((n for n in nodes if n not in self._busy), key=lambda n: n in self._avoided)
        for node, build in zip(free, waiting, strict=False):
            self._busy.add(node)
            run = self._build(node, build)
            self._running[build.key] = asyncio.create_task(run, name=f"index build {build.segment.id}")

    async def close(self) -> None:
        """Abandons what is being built. May be started again."""
        await self._loop.close()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()
        self._busy.clear()

    async def _look(self) -> None:
        """Brings what is missing up to date, a few collections at a time."""
        while self._changed:
            for id in [self._changed.pop() for _ in range(min(SLICE, len(self._changed)))]:
                collection = self._picture.catalog.get(id)
                manifests = self._picture.manifests_of(collection) if collection and collection.indexes else []
                builds = missing(collection, manifests, self._rows_min) if collection else []
                self._missing.pop(id, None)
                if builds:
                    self._missing[id] = builds
            await asyncio.sleep(0)
        wanted = {b.key for builds in self._missing.values() for b in builds}
        self._retry_at = {k: at for k, at in self._retry_at.items() if k in wanted}

    async def _build(self, node: IndexNode, build: Build) -> None:
        try:
            (id,) = await self._ids.some(1)
            try:
                file = await node.build(build.task(id))
            except Unavailable:
                self._avoided[node] = time.monotonic() + self._settings.index_retry_s
                raise
            failpoint("index.before_commit")
            await self._commit(build, file)
            failpoint("index.committed")
            self.errors.pop(build.index.id, None)
        except Exception as e:
            # The segment may have been compacted away under the builder: that is no failure.
            if self._still_missing(build):
                elsewhere = node in self._avoided and any(n not in self._avoided for n in self._nodes.index_nodes())
                self._fail(build, e, 0.0 if elsewhere else self._settings.index_retry_s)
        finally:
            self._busy.discard(node)
            self._running.pop(build.key, None)
            self.mark(build.shard.collection)

    async def _commit(self, build: Build, file: IndexFile) -> None:
        def change(manifest: Manifest) -> Manifest | None:
            declared = self._picture.catalog.get(build.shard.collection)
            if declared is None or build.index not in declared.indexes:
                return None
            return with_index(manifest, build.segment.id, file)

        grace_s = self._settings.garbage_grace_s
        new = await commit_manifest(self._meta, build.shard, change, self._leadership.authority, grace_s)
        if new is None:
            # Nobody was ever told this name.
            await self._objects.delete(file.object.name)
            return
        log.info("index built", shard=str(build.shard), segment=build.segment.id, rows=build.segment.rows)
        # Seen here before the next round, or the same index would be built again.
        await self._picture.until_shows(new)

    def _still_missing(self, build: Build) -> bool:
        collection = self._picture.catalog.get(build.shard.collection)
        manifests = self._picture.manifests_of(collection) if collection else []
        return collection is not None and build.key in {b.key for b in missing(collection, manifests, self._rows_min)}

    def _fail(self, build: Build, error: Exception, pause_s: float) -> None:
        self._retry_at[build.key] = time.monotonic() + pause_s
        self.errors[build.index.id] = str(error)
        say = log.warning if isinstance(error, SheafError | OSError) else log.exception
        say("index build failed, trying again", shard=str(build.shard), segment=build.segment.id, error=str(error))
        asyncio.get_running_loop().call_later(pause_s, self._loop.wake)
