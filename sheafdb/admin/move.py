"""The operator's wish where a shard is led or a channel is owned: a pin. The coordinator carries it out,
make before break, and honours it as long as the node is usable."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from core.catalog import DEFAULT_DATABASE
from core.errors import InvalidArgument, Refused, Timeout
from core.ids import Channel, CollectionId, NodeId, ShardId
from sheafdb.admin.picture import Picture, read
from storage import keys
from storage.meta.port import Delete, MetaStore, Put

LOOK_S = 0.1
KINDS = {"shard": "querynode", "channel": "datanode"}
"""What can be moved, and the role that can have it."""


@dataclass(frozen=True)
class Moved:
    """A shard or a channel, as the metadata store has it."""

    kind: str
    id: ShardId | Channel

    @property
    def key(self) -> str:
        return keys.shard_pin(self.id) if isinstance(self.id, ShardId) else keys.channel_pin(self.id)

    def pin(self, picture: Picture) -> NodeId | None:
        pins = picture.shard_pins if isinstance(self.id, ShardId) else picture.channel_pins
        return pins.get(self.id)  # type: ignore[arg-type]  # the pins of its kind

    def holders(self, picture: Picture) -> list[NodeId]:
        """Who has it now: of a shard the leader in each replica, of a channel its owner."""
        if not isinstance(self.id, ShardId):
            owner = picture.owners.get(self.id)
            return [owner] if owner else []
        placement = picture.placements.get(self.id.collection)
        return [r.leaders[self.id.number] for r in placement.replicas] if placement else []


def find(picture: Picture, kind: str, text: str) -> Moved:
    """Which shard ([DATABASE.]COLLECTION/NUMBER) or channel is meant. Raises ``InvalidArgument``."""
    name, slash, number = text.rpartition("/")
    if kind == "channel":
        if not text.isdecimal() or Channel(int(text)) not in picture.owners:
            raise InvalidArgument(f"there is no channel {text}; there are: {_listed(map(str, sorted(picture.owners)))}")
        return Moved(kind, Channel(int(text)))
    if not slash or not number.isdecimal():
        raise InvalidArgument(f"{text} names no shard; a shard is [DATABASE.]COLLECTION/NUMBER")
    found = {picture.title(id): c for id, c in picture.collections.items() if not c.dropped}
    collection = found.get(name) or found.get(f"{DEFAULT_DATABASE}.{name}")
    if collection is None:
        raise InvalidArgument(f"there is no collection {name}; there are: {_listed(sorted(found))}")
    shard = ShardId(CollectionId(collection.id), int(number))
    if shard not in collection.shard_ids:
        numbers = _listed(str(s.number) for s in collection.shards)
        raise InvalidArgument(f"collection {name} has no shard {number}; there are: {numbers}")
    return Moved(kind, shard)


def check(picture: Picture, moved: Moved, node: NodeId) -> None:
    """Raises ``InvalidArgument`` when the node can never have it, ``Refused`` when it can't now."""
    role = KINDS[moved.kind]
    there = sorted(id for r, id in picture.nodes if r == role)
    if node not in there:
        others = [r for r, id in picture.nodes if id == node]
        what = f"{others[0]} {node} is no {role}" if others else f"no {role} {node} is registered"
        raise InvalidArgument(f"{what}; there are: {_listed(there)}")
    if (role, node) in picture.drains:
        raise Refused(f"{role} {node} is asked to drain: undo that first")
    if moved.kind == "shard" and not moved.holders(picture):
        raise Refused("the collection is not loaded: nobody leads its shards")


async def ask(meta: MetaStore, kind: str, text: str, node: NodeId) -> Moved:
    """Notes the wish, in place of an earlier one; it stays until ``undo``. Raises as ``find`` and ``check``."""
    picture = await read(meta)
    moved = find(picture, kind, text)
    check(picture, moved, node)
    await meta.commit([], [Put(moved.key, keys.encode(str(node)))])
    return moved


async def undo(meta: MetaStore, kind: str, text: str) -> Moved:
    """Takes the wish back; nothing moves but what is uneven without it. Raises ``InvalidArgument``."""
    picture = await read(meta)
    moved = find(picture, kind, text)
    if moved.pin(picture) is None:
        pins = picture.shard_pins if kind == "shard" else picture.channel_pins
        names = [f"{picture.title(p.collection)}/{p.number}" if isinstance(p, ShardId) else str(p) for p in pins]
        raise InvalidArgument(f"{kind} {text} was not moved; of {kind}s that were there are: {_listed(sorted(names))}")
    await meta.commit([], [Delete(moved.key)])
    return moved


async def until_moved(meta: MetaStore, moved: Moved, node: NodeId, timeout_s: float) -> None:
    """Waits until the node has it. Raises ``Timeout`` saying who does."""
    end = time.monotonic() + timeout_s
    while node not in (holders := moved.holders(await read(meta))):
        if time.monotonic() > end:
            has = _listed(holders)
            raise Timeout(f"waited {timeout_s:g} s for {node} to have {moved.kind} {moved.id}, it is with: {has}")
        await asyncio.sleep(LOOK_S)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
