"""The coordinator's picture of the cluster: current copies of what the metadata store says."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from coordinator.placement import Ready, RoleNodes
from coordinator.state import ClusterState
from core.catalog import ChannelOwner, Collection, Garbage
from core.errors import CollectionNotFound, Timeout
from core.ids import Channel, CollectionId, NodeId
from core.manifest import Manifest
from storage import keys
from storage.catalog import Catalog
from storage.meta.mirror import Mirror
from storage.meta.port import MetaStore


class ClusterPicture:
    """Mirrors of catalog, manifests, owners, nodes and garbage. May lag; commits are conditional."""

    def __init__(self, meta: MetaStore) -> None:
        self.catalog = Catalog(meta)
        self.manifests: Mirror[Manifest] = Mirror(meta, keys.MANIFESTS, Manifest)
        self.owners: Mirror[ChannelOwner] = Mirror(meta, keys.OWNERS, ChannelOwner)
        self.nodes: Mirror[str] = Mirror(meta, keys.NODES, str)
        self.drains: Mirror[str] = Mirror(meta, keys.DRAINS, str)
        self.garbage: Mirror[Garbage] = Mirror(meta, keys.GARBAGE, Garbage)
        self._moved = asyncio.Event()

    async def start(self) -> None:
        await self.catalog.start()
        for mirror in (self.manifests, self.owners, self.nodes, self.drains, self.garbage):
            await mirror.start()
        for mirror in (self.manifests, self.owners, self.catalog.collections):
            mirror.listen(self._note, replay=False)

    async def close(self) -> None:
        for mirror in (self.garbage, self.drains, self.nodes, self.owners, self.manifests):
            await mirror.close()
        await self.catalog.close()

    def collection(self, id: CollectionId) -> Collection:
        """Raises ``CollectionNotFound`` also for a dropped one."""
        found = self.catalog.get(id)
        if found is None:
            raise CollectionNotFound(id)
        return found

    def manifests_of(self, collection: Collection) -> list[Manifest]:
        """The manifests of its shards, as far as they are there."""
        found = (self.manifests.values.get(keys.manifest(s)) for s in collection.shard_ids)
        return [m for m in found if m is not None]

    def owner(self, channel: Channel) -> NodeId | None:
        """The data node that owns a channel now."""
        owner = self.owners.values.get(keys.owner(channel))
        return owner.node if owner else None

    def on_collection(self, mark: Callable[[CollectionId], None]) -> None:
        """Calls ``mark`` for every collection that is there or whose value or manifests change."""

        def note(key: str, _: object) -> None:
            mark(CollectionId(int(key.split("/")[1])))

        self.catalog.collections.listen(note)
        self.manifests.listen(note)

    def role_nodes(self, role: str) -> RoleNodes:
        """The nodes of a role."""
        node, drain = keys.node(role, NodeId("")), keys.drain(role, NodeId(""))
        living = frozenset(NodeId(k.removeprefix(node)) for k in self.nodes.values if k.startswith(node))
        drains = (NodeId(k.removeprefix(drain)) for k in self.drains.values if k.startswith(drain))
        return RoleNodes(living, living.intersection(drains))

    def state(self, channels: int, ready: Ready = ()) -> ClusterState:
        """What ``coordinator.state`` decides from."""
        owners, placements, collections = self.owners, self.catalog.placements, self.catalog.collections
        return ClusterState(
            channels=channels,
            data_nodes=self.role_nodes("datanode"),
            query_nodes=self.role_nodes("querynode"),
            owners={Channel(int(k.split("/")[1])): (v, owners.revisions[k]) for k, v in owners.values.items()},
            collections={v.id: (v, collections.revisions[k]) for k, v in collections.values.items()},
            placements={v.collection: (v, placements.revisions[k]) for k, v in placements.values.items()},
            ready=ready,
        )

    async def until(self, true: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Waits until the picture shows something. Raises ``Timeout``."""
        try:
            async with asyncio.timeout(timeout_s):
                while not true():
                    await self._moved.wait()
        except TimeoutError:
            raise Timeout(f"waited {timeout_s} s for {what}") from None

    async def until_shows(self, manifest: Manifest, timeout_s: float = 10.0) -> None:
        """Waits for a committed manifest (or a newer one, or its end) to be seen here."""
        key = keys.manifest(manifest.shard_id)

        def shown() -> bool:
            present = self.manifests.values.get(key)
            return present is None or present.version >= manifest.version

        await self.until(shown, timeout_s, f"manifest {key} version {manifest.version}")

    async def moved(self, timeout_s: float) -> None:
        """Returns at the next change of owners, manifests or collections, or after the time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._moved.wait()

    def _note(self, _key: str, _value: object) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
