"""Which node gets what: rendezvous hashing ("highest random weight", Thaler and Ravishankar 1998).

Every shard and channel ranks all living nodes by a hash of the pair and goes to the first. No state
is needed to decide, all coordinators decide alike, and a node that comes or goes moves only what
it gets or had: 1/n of everything. With few channels the spread is uneven; more channels even it out.
"""

from collections.abc import Collection as Nodes

import xxhash

from core.catalog import Collection, Placement
from core.ids import Channel, NodeId


def choose(nodes: Nodes[NodeId], thing: str) -> NodeId | None:
    """The node for a thing; None when there is no node."""
    return max(nodes, key=lambda node: (xxhash.xxh3_64_intdigest(f"{node}\0{thing}".encode()), node), default=None)


def channel_owner(nodes: Nodes[NodeId], channel: Channel) -> NodeId | None:
    """The data node that seals a channel."""
    return choose(nodes, f"channel {channel}")


def place(nodes: Nodes[NodeId], collection: Collection) -> Placement | None:
    """The query nodes that lead a collection's shards; None when there is none."""
    leaders = [choose(nodes, f"shard {shard}") for shard in collection.shard_ids]
    return Placement(collection.id, tuple(n for n in leaders if n is not None)) if nodes else None
