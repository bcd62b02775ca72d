"""The coordinator's picture of the cluster: current copies of what the metadata store says."""

import asyncio
from collections.abc import Callable, Iterable
from collections.abc import Collection as Group
from contextlib import suppress
from typing import Any

from coordinator.placement import Ready, RoleNodes
from coordinator.state import ClusterState
from core.catalog import ChannelOwner, Collection, Garbage
from core.errors import CollectionNotFound, Timeout
from core.ids import Channel, CollectionId, NodeId, Revision, ShardId
from core.manifest import Manifest
from storage import keys
from storage.catalog import Catalog
from storage.meta.mirror import Mirror
from storage.meta.port import MetaStore

MANIFESTS_DECODED = 1024
"""Manifests are looked at when they change, and all of them once when this coordinator begins to lead."""


class ClusterPicture:
    """Mirrors of catalog, manifests, owners, nodes, pins and garbage. May lag; commits are conditional.

    spread_bytes: of a shard's segments from which its collection is large (``coordinator.placement``).
    """

    def __init__(self, meta: MetaStore, spread_bytes: int) -> None:
        self._spread_bytes = spread_bytes
        self.catalog = Catalog(meta)
        self.manifests: Mirror[Manifest] = Mirror(meta, keys.MANIFESTS, Manifest, MANIFESTS_DECODED)
        self.owners: Mirror[ChannelOwner] = Mirror(meta, keys.OWNERS, ChannelOwner)
        self.nodes: Mirror[str] = Mirror(meta, keys.NODES, str)
        self.drains: Mirror[str] = Mirror(meta, keys.DRAINS, str)
        self.channel_pins: Mirror[str] = Mirror(meta, keys.CHANNEL_PINS, str)
        self.shard_pins: Mirror[str] = Mirror(meta, keys.SHARD_PINS, str)
        self.garbage: Mirror[Garbage] = Mirror(meta, keys.GARBAGE, Garbage)
        self._moved = asyncio.Event()

    async def start(self) -> None:
        await self.catalog.start()
        for mirror in self._mirrors():
            await mirror.start()
        for mirror in (self.manifests, self.owners, self.catalog.collections):
            mirror.listen(self._note, replay=False)

    async def close(self) -> None:
        for mirror in self._mirrors():
            await mirror.close()
        await self.catalog.close()

    def _mirrors(self) -> list[Mirror[Any]]:
        pins = [self.channel_pins, self.shard_pins]
        return [self.manifests, self.owners, self.nodes, self.drains, *pins, self.garbage]

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

        for mirror in (self.catalog.collections, self.manifests):
            for key in mirror.values:
                note(key, None)
            mirror.listen(note, replay=False)

    def role_nodes(self, role: str) -> RoleNodes:
        """The nodes of a role."""
        node, drain = keys.node(role, NodeId("")), keys.drain(role, NodeId(""))
        living = frozenset(NodeId(k.removeprefix(node)) for k in self.nodes.values if k.startswith(node))
        drains = (NodeId(k.removeprefix(drain)) for k in self.drains.values if k.startswith(drain))
        return RoleNodes(living, living.intersection(drains))

    def large(self, collection: Collection) -> bool:
        """Whether a shard of it is large enough to be spread over several nodes."""
        return any(
            sum(s.object.bytes + sum(i.object.bytes for i in s.indexes) for s in m.segments) >= self._spread_bytes
            for m in self.manifests_of(collection)
        )

    def pins(self, collections: Group[CollectionId]) -> dict[ShardId, tuple[NodeId, Revision]]:
        """The pins of shards of these collections."""
        pins = self.shard_pins
        found = {_shard(key): (NodeId(node), pins.revisions[key]) for key, node in pins.values.items()}
        return {shard: pin for shard, pin in found.items() if shard.collection in collections}

    def known(self) -> set[CollectionId]:
        """The collections that there are, and those of which a placement or a pin is left."""
        ids = {c.id for c in self.catalog.collections.values.values()}
        ids |= {p.collection for p in self.catalog.placements.values.values()}
        return ids | {_shard(pin).collection for pin in self.shard_pins.values}

    def state(self, channels: int, ids: Iterable[CollectionId] = (), ready: Ready = ()) -> ClusterState:
        """What ``coordinator.state`` decides from: all owners, and of the collections these."""
        owners, placements, collections = self.owners, self.catalog.placements, self.catalog.collections
        wanted = frozenset(ids)
        found = {
            id: (v, collections.revisions[k])
            for id in wanted
            if (v := collections.values.get(k := keys.collection(id)))
        }
        placed = {
            id: (v, placements.revisions[k]) for id in wanted if (v := placements.values.get(k := keys.placement(id)))
        }
        return ClusterState(
            channels=channels,
            data_nodes=self.role_nodes("datanode"),
            query_nodes=self.role_nodes("querynode"),
            owners={Channel(int(k.split("/")[1])): (v, owners.revisions[k]) for k, v in owners.values.items()},
            collections=found,
            placements=placed,
            ready=ready,
            large=frozenset(id for id, (c, _) in found.items() if c.loaded and self.large(c)),
            channel_pins={
                Channel(int(k.removeprefix(keys.CHANNEL_PINS))): NodeId(n) for k, n in self.channel_pins.values.items()
            },
            shard_pins=self.pins(wanted),
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


def _shard(pin: str) -> ShardId:
    collection, _, number = pin.removeprefix(keys.SHARD_PINS).partition("/")
    return ShardId(CollectionId(int(collection)), int(number))
