"""What the metadata store says about a cluster, at one revision."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from core.catalog import ChannelCheckpoint, ChannelOwner, Collection, Garbage, Placement
from core.errors import Corrupted
from core.ids import Channel, CollectionId, NodeId, Position, ShardId
from core.manifest import Manifest
from sheafdb.registration import Registration
from storage import keys
from storage.meta.port import Item, MetaStore

T = TypeVar("T")
NodeKey = tuple[str, NodeId]
"""Role and id."""


@dataclass(frozen=True)
class Picture:
    """nodes: None where the registration cannot be read. leader: "" = no coordinator leads.
    garbage: names of objects noted for deletion. shard_pins, channel_pins: what an operator moved, and
    where. unreadable: key and why, of damaged values."""

    collections: Mapping[CollectionId, Collection] = field(default_factory=dict)
    manifests: Mapping[ShardId, Manifest] = field(default_factory=dict)
    placements: Mapping[CollectionId, Placement] = field(default_factory=dict)
    owners: Mapping[Channel, NodeId] = field(default_factory=dict)
    checkpoints: Mapping[Channel, Position] = field(default_factory=dict)
    garbage: frozenset[str] = frozenset()
    nodes: Mapping[NodeKey, Registration | None] = field(default_factory=dict)
    drains: frozenset[NodeKey] = frozenset()
    shard_pins: Mapping[ShardId, NodeId] = field(default_factory=dict)
    channel_pins: Mapping[Channel, NodeId] = field(default_factory=dict)
    leader: str = ""
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def title(self, collection: CollectionId) -> str:
        """database.name, or that there is no such collection."""
        found = self.collections.get(collection)
        return f"{found.database}.{found.name}" if found else "unknown collection"

    def manifests_of(self, collection: Collection) -> list[Manifest]:
        return [self.manifests[s] for s in collection.shard_ids if s in self.manifests]

    def channel_of(self, shard: ShardId) -> Channel | None:
        """None where collection or shard are not known."""
        found = self.collections.get(shard.collection)
        return next((s.channel for s in found.shards if s.number == shard.number), None) if found else None


async def read(meta: MetaStore) -> Picture:
    """The picture now. Raises what the store raises; a damaged value is in ``Picture.unreadable``."""
    items, _ = await meta.list("")
    return picture(items)


def picture(items: Iterable[Item]) -> Picture:
    """The picture these keys and values give."""
    reader = _Reader(items)
    garbage = reader.decoded(keys.GARBAGE, Garbage, str)
    leader = reader.decoded(keys.LEADER, str, str)
    return Picture(
        collections=reader.decoded(keys.COLLECTIONS, Collection, lambda k: CollectionId(int(k))),
        manifests=reader.decoded(keys.MANIFESTS, Manifest, _shard),
        placements=reader.decoded(keys.PLACEMENTS, Placement, lambda k: CollectionId(int(k))),
        owners={c: o.node for c, o in reader.decoded(keys.OWNERS, ChannelOwner, _channel).items()},
        checkpoints={
            c: Position(v.position) for c, v in reader.decoded(keys.CHECKPOINTS, ChannelCheckpoint, _channel).items()
        },
        garbage=frozenset(name for note in garbage.values() for name in note.objects),
        nodes={n: _registration(text) for n, text in reader.decoded(keys.NODES, str, _node).items()},
        drains=frozenset(reader.decoded(keys.DRAINS, str, _node)),
        shard_pins={s: NodeId(n) for s, n in reader.decoded(keys.SHARD_PINS, str, _shard).items()},
        channel_pins={c: NodeId(n) for c, n in reader.decoded(keys.CHANNEL_PINS, str, _channel).items()},
        leader=leader.get("", ""),
        unreadable=reader.unreadable,
    )


class _Reader:
    def __init__(self, items: Iterable[Item]) -> None:
        self._items = list(items)
        self.unreadable: dict[str, str] = {}

    def decoded(self, prefix: str, cls: type[T], id: Callable[[str], Any]) -> dict[Any, T]:
        """By what ``id`` makes of the rest of the key."""
        found: dict[Any, T] = {}
        for item in self._items:
            if item.key.startswith(prefix):
                try:
                    found[id(item.key.removeprefix(prefix))] = keys.decode(cls, item.value)
                except (DecodeError, ValueError, KeyError, TypeError) as e:
                    self.unreadable[item.key] = str(e) or type(e).__name__
        return found


def _shard(text: str) -> ShardId:
    collection, _, number = text.partition("/")
    return ShardId(CollectionId(int(collection)), int(number))


def _channel(text: str) -> Channel:
    return Channel(int(text))


def _node(text: str) -> NodeKey:
    role, _, id = text.partition("/")
    return role, NodeId(id)


def _registration(text: str) -> Registration | None:
    try:
        return Registration.parse(text)
    except Corrupted:
        return None
