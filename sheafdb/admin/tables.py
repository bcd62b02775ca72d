"""What each command shows: rows of named values, from what is known."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from core.catalog import Cluster, Collection, Replica
from core.ids import Channel, NodeId, Position, ShardId
from core.manifest import Manifest
from rpc.reads import ShardStatus
from sheafdb.admin.picture import NodeKey, Picture

Row = dict[str, Any]
"""All rows of a table have the same names, in the same order. Values are what JSON has."""
Statuses = Mapping[NodeId, Mapping[ShardId, ShardStatus] | str]
"""What each query node says about its shards, or why it says nothing."""


def status(picture: Picture, cluster: Cluster) -> Row:
    """The cluster in a few numbers."""
    living = [c for c in picture.collections.values() if not c.dropped]
    segments = [s for m in picture.manifests.values() for s in m.segments]
    roles = Counter(role for role, _ in picture.nodes)
    return {
        "cluster": cluster.id,
        "format": cluster.format,
        "leader": picture.leader,
        "nodes": dict(sorted(roles.items())),
        "draining": sorted(f"{role}/{id}" for role, id in picture.drains),
        "collections": len(living),
        "loaded": sum(bool(c.loaded) for c in living),
        "shards": len(picture.manifests),
        "segments": len(segments),
        "rows": sum(s.rows for s in segments),
        "bytes": sum(o.bytes for m in picture.manifests.values() for o in m.objects()),
        "garbage_objects": len(picture.garbage),
        "unreadable_values": len(picture.unreadable),
    }


def nodes(picture: Picture) -> list[Row]:
    """Every living node, and every node that is asked to drain."""
    return [_node(picture, key) for key in sorted(picture.nodes.keys() | picture.drains)]


def _node(picture: Picture, key: NodeKey) -> Row:
    role, id = key
    found = picture.nodes.get(key)
    held = holdings(picture, key)
    return {
        "role": role,
        "id": id,
        "address": found.address if found else "",
        "version": found.version if found else "",
        "state": _state(picture, key),
        "channels": len(held["channels"]),
        "leads": len(held["leads"]),
        "replicas": len(held["replicas"]),
    }


def _state(picture: Picture, key: NodeKey) -> str:
    role, id = key
    if key not in picture.nodes:
        return "gone, drain wish left"
    found = picture.nodes[key]
    if found is None or not found.understood:
        return "unreadable" if found is None else f"other format ({found.format})"
    if key in picture.drains:
        return "draining"
    return "leading" if role == "coordinator" and id == picture.leader else "up"


def holdings(picture: Picture, key: NodeKey) -> dict[str, list[str]]:
    """What a node has: channels it owns, shards it leads or is to lead, replicas it is a member of
    (as collection id)."""
    role, id = key
    held: dict[str, list[str]] = {"channels": [], "leads": [], "replicas": []}
    if role == "datanode":
        held["channels"] = [str(c) for c, owner in sorted(picture.owners.items()) if owner == id]
    if role == "querynode":
        for collection, placement in sorted(picture.placements.items()):
            for replica in placement.replicas:
                pairs = enumerate(zip(replica.leaders, replica.coming, strict=True))
                held["leads"] += [f"{collection}/{n}" for n, pair in pairs if id in pair]
                held["replicas"] += [str(collection)] * (id in replica.nodes)
    return held


def collections(picture: Picture) -> list[Row]:
    """rows: of sealed segments, deleted ones that are still in them included."""
    return [_collection(picture, c) for _, c in sorted(picture.collections.items())]


def _collection(picture: Picture, collection: Collection) -> Row:
    manifests = picture.manifests_of(collection)
    segments = [s for m in manifests for s in m.segments]
    loaded = "all" if len(collection.loaded) == len(collection.partitions) else "part" if collection.loaded else "no"
    return {
        "id": collection.id,
        "database": collection.database,
        "name": collection.name,
        "state": "dropped" if collection.dropped else "present",
        "loaded": loaded,
        "replicas": collection.replicas,
        "shards": len(collection.shards),
        "partitions": len(collection.partitions),
        "indexes": len(collection.indexes),
        "segments": len(segments),
        "rows": sum(s.rows for s in segments),
        "bytes": sum(o.bytes for m in manifests for o in m.objects()),
    }


def shards(picture: Picture, statuses: Statuses) -> list[Row]:
    """One row per shard and replica; one with an empty replica where the shard is not loaded."""
    rows: list[Row] = []
    for id, manifest in sorted(picture.manifests.items()):
        placement = picture.placements.get(id.collection)
        replicas = placement.replicas if placement else ()
        pin = picture.shard_pins.get(id, "")
        for number, replica in enumerate(replicas):
            rows.append(_shard(picture, manifest) | _led(id, str(number), replica, statuses, pin))
        if not replicas:
            rows.append(_shard(picture, manifest) | _led(id, "", None, statuses, pin))
    return rows


def _shard(picture: Picture, manifest: Manifest) -> Row:
    channel = picture.channel_of(manifest.shard_id)
    return {
        "shard": str(manifest.shard_id),
        "collection": picture.title(manifest.collection),
        "channel": channel,
        "manifest": manifest.version,
        "checkpoint": manifest.checkpoint,
        "segments": len(manifest.segments),
        "rows": sum(s.rows for s in manifest.segments),
        "bytes": sum(o.bytes for o in manifest.objects()),
    }


def _led(shard: ShardId, number: str, replica: Replica | None, statuses: Statuses, pin: str) -> Row:
    leader, coming = (
        (replica.leaders[shard.number], replica.coming[shard.number])
        if replica and shard.number < len(replica.leaders)
        else (NodeId(""), NodeId(""))
    )
    said = statuses.get(leader, {})
    status = None if isinstance(said, str) else said.get(shard)
    phase = status.phase.name.lower() if status else "absent" if leader else "released"
    return {
        "replica": number,
        "leader": leader,
        "coming": "" if coming == leader else coming,
        "pinned": pin,
        "phase": "no answer" if isinstance(said, str) else phase,
        "frontier": status.frontier if status else None,
        "growing_rows": status.growing_rows if status else None,
        "memory": status.bytes if status else None,
        "workers": {h.node: h.bytes for h in status.holders} if status else {},
        "problem": said if isinstance(said, str) else status.failure if status else "",
    }


def segments(picture: Picture) -> list[Row]:
    """Every sealed segment. ``bytes`` without its indexes; ``indexed``: the fields that have one."""
    return [
        {
            "segment": segment.id,
            "shard": str(shard),
            "collection": picture.title(shard.collection),
            "partition": segment.partition,
            "rows": segment.rows,
            "bytes": segment.object.bytes,
            "min_position": segment.min_position,
            "max_position": segment.max_position,
            "indexed": ",".join(str(i.field_id) for i in segment.indexes),
            "index_bytes": sum(i.object.bytes for i in segment.indexes),
            "object": segment.object.name,
        }
        for shard, manifest in sorted(picture.manifests.items())
        for segment in manifest.segments
    ]


def channels(picture: Picture, starts: Sequence[Position], ends: Sequence[Position]) -> list[Row]:
    """starts, ends: of each channel of the log. ``unsealed``: positions that a restart reads again."""
    homes = Counter(s.channel for c in picture.collections.values() if not c.dropped for s in c.shards)
    return [
        {
            "channel": number,
            "owner": picture.owners.get(Channel(number), ""),
            "pinned": picture.channel_pins.get(Channel(number), ""),
            "shards": homes[Channel(number)],
            "start": start,
            "checkpoint": picture.checkpoints.get(Channel(number)),
            "end": end,
            "unsealed": end - max(start, picture.checkpoints.get(Channel(number), start)),
        }
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
