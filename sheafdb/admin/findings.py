"""What is wrong in a store, and what it costs: pure functions of what was read."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from core.ids import Channel, Position, ShardId
from core.manifest import Manifest, ObjectRef
from sheafdb.admin.picture import Picture
from storage.objects.port import ObjectInfo


class Harm(StrEnum):
    """What suffers."""

    DATA = "data"
    """Rows are lost, or reads fail."""
    SPEED = "speed"
    SPACE = "space"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. ``what`` and ``subject`` tell it from others."""

    harm: Harm
    what: str
    subject: str
    detail: str
    cost: str


@dataclass(frozen=True)
class ChannelState:
    """What the log holds of a channel. damage: why a record from the checkpoint on can't be read, "" if all can.

    ``start`` was read before the metadata, ``end`` after it: on a store in use, too, start <=
    checkpoint <= end.
    """

    channel: Channel
    start: Position
    end: Position
    damage: str = ""


@dataclass(frozen=True)
class NamedObject:
    """An object that a manifest names. kind: segment, index, tombstones. rows: those it is about."""

    ref: ObjectRef
    kind: str
    shard: ShardId
    rows: int


def named_objects(picture: Picture) -> Iterator[NamedObject]:
    """Every object that must be there."""
    for shard, manifest in picture.manifests.items():
        for segment in manifest.segments:
            yield NamedObject(segment.object, "segment", shard, segment.rows)
            for index in segment.indexes:
                yield NamedObject(index.object, "index", shard, segment.rows)
        for tombstones in manifest.tombstones:
            yield NamedObject(tombstones.object, "tombstones", shard, tombstones.rows)


def of_metadata(picture: Picture) -> Iterator[Finding]:
    """Values that can't be read; manifests and collections that do not belong together."""
    for key, why in picture.unreadable.items():
        cost = "what it describes cannot be used; restore the metadata store from a back-up"
        yield Finding(Harm.DATA, "unreadable value", key, why, cost)
    for shard, manifest in picture.manifests.items():
        collection = picture.collections.get(shard.collection)
        if collection is None:
            objects = list(manifest.objects())
            yield Finding(
                Harm.SPACE,
                "manifest of an unknown collection",
                f"shard {shard}",
                f"names {len(objects)} objects",
                f"{sum(o.bytes for o in objects)} bytes that nobody reads and nothing deletes",
            )
        elif shard not in collection.shard_ids:
            detail = f"{picture.title(shard.collection)} has {len(collection.shards)} shards"
            cost = f"{sum(s.rows for s in manifest.segments)} rows that no read reaches"
            yield Finding(Harm.DATA, "manifest of an unknown shard", f"shard {shard}", detail, cost)
    for collection in picture.collections.values():
        for shard in () if collection.dropped else collection.shard_ids:
            if shard not in picture.manifests:
                title = picture.title(collection.id)
                cost = "its rows are lost or cannot be read, new ones are never sealed"
                yield Finding(Harm.DATA, "manifest missing", f"shard {shard}", f"of {title}", cost)


def of_objects(picture: Picture, objects: Mapping[str, ObjectInfo]) -> Iterator[Finding]:
    """objects: what the object store has, by name."""
    for named in named_objects(picture):
        found = objects.get(named.ref.name)
        if found is None:
            yield damaged(picture, named, "object missing", f"{named.ref.bytes} bytes expected")
        elif found.bytes != named.ref.bytes:
            yield damaged(picture, named, "object of wrong size", f"{found.bytes} bytes, {named.ref.bytes} expected")


def damaged(picture: Picture, named: NamedObject, what: str, detail: str) -> Finding:
    """What it costs that an object a manifest names is not what it should be."""
    shard = f"shard {named.shard} ({picture.title(named.shard.collection)})"
    detail = f"{detail}; {named.kind} of {shard}"
    if named.kind == "index":
        cost = f"searches of {named.rows} rows are exact, so slower, until it is built again by itself"
        return Finding(Harm.SPEED, what, named.ref.name, detail, cost)
    count = f"{named.rows} rows" if named.kind == "segment" else f"{named.rows} deletes"
    cost = f"reads of {shard} fail until the object is restored: it holds {count}"
    return Finding(Harm.DATA, what, named.ref.name, detail, cost)


def orphans(picture: Picture, objects: Iterable[ObjectInfo], before_ms: int) -> Iterator[Finding]:
    """objects: those of the store that have a name of ours. before_ms: later ones may be about to be named."""
    known = {named.ref.name for named in named_objects(picture)} | picture.garbage
    for found in objects:
        if found.name not in known and found.modified_ms < before_ms:
            cost = f"{found.bytes} bytes, until the coordinator's audit deletes it"
            yield Finding(Harm.SPACE, "orphan", found.name, "no manifest and no garbage note names it", cost)


def of_log(picture: Picture, channels: Iterable[ChannelState]) -> Iterator[Finding]:
    """Checkpoints against the log, and records that can't be read."""
    states = {state.channel: state for state in channels}
    for state in states.values():
        yield from _of_channel(state, picture.checkpoints.get(state.channel))
    for channel in sorted(picture.checkpoints.keys() - states.keys()):
        cost = "the log belongs to something else, or was made anew: rows that were not sealed are lost"
        detail = f"there is a checkpoint, but the log has {len(states)} channels"
        yield Finding(Harm.DATA, "channel missing", f"channel {channel}", detail, cost)
    for shard, manifest in picture.manifests.items():
        channel = picture.channel_of(shard)
        if channel is not None and channel in states:
            yield from _of_manifest(picture, manifest, states[channel])


def _of_channel(state: ChannelState, checkpoint: Position | None) -> Iterator[Finding]:
    subject = f"channel {state.channel}"
    if checkpoint is None and state.start > 0:
        detail = f"the log starts at {state.start}"
        cost = f"nothing says that the rows of the {state.start} positions before are sealed"
        yield Finding(Harm.DATA, "checkpoint missing", subject, detail, cost)
    elif checkpoint is not None and checkpoint < state.start:
        detail = f"checkpoint {checkpoint}, the log starts at {state.start}"
        cost = f"{state.start - checkpoint} positions were lost before they were sealed"
        yield Finding(Harm.DATA, "checkpoint before the log", subject, detail, cost)
    elif checkpoint is not None and checkpoint > state.end:
        detail = f"checkpoint {checkpoint}, the log ends at {state.end}"
        yield Finding(Harm.DATA, "checkpoint after the log", subject, detail, _TOO_SHORT)
    if state.damage:
        cost = "rows from there on are not sealed and not served"
        yield Finding(Harm.DATA, "log unreadable", subject, state.damage, cost)


def _of_manifest(picture: Picture, manifest: Manifest, state: ChannelState) -> Iterator[Finding]:
    if manifest.checkpoint > state.end:
        detail = (
            f"checkpoint {manifest.checkpoint}, channel {state.channel} ends at {state.end};"
            f" of {picture.title(manifest.collection)}"
        )
        yield Finding(Harm.DATA, "manifest after the log", f"shard {manifest.shard_id}", detail, _TOO_SHORT)


_TOO_SHORT = "the log lost its tail: rows written next would be taken for sealed ones and lost"
