"""Who gets what: rendezvous hashing with bounded loads, which moves little. Pure functions.

Plain rendezvous hashing ("highest random weight", Thaler and Ravishankar 1998) needs no state and
moves only what must move, but few things spread unevenly. So loads get a bound, as in "Consistent
hashing with bounded loads" (Mirrokni, Thorup, Zadimoghaddam 2016): a thing goes to the first node
of its ranking that has room. And what lies well stays: both functions are told where things are
now, and told their own result they give it back.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol, TypeVar

import xxhash


class Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...
    def __hash__(self) -> int: ...


Thing = TypeVar("Thing", bound=Ordered)
Node = TypeVar("Node", bound=str)

SLACK = 0.1
"""How far above the mean a node's bytes may be before it gives something away."""


def weight(node: str, thing: object) -> int:
    """The rank of a node for a thing: the highest comes first."""
    return xxhash.xxh3_64_intdigest(f"{node}\0{thing}".encode())


def spread_evenly(
    things: Collection[Thing], nodes: Collection[Node], present: Mapping[Thing, Node]
) -> dict[Thing, Node]:
    """Gives every node as many things as every other, or one more. Empty without nodes.

    The result depends on the contents of the arguments alone, not on their order. Things move only
    from nodes that are gone or have too many, to nodes that have too few.
    """
    if not nodes:
        return {}
    quota, extra = divmod(len(things), len(nodes))
    held: dict[Node, list[Thing]] = {node: [] for node in nodes}
    for thing in things:
        where = present.get(thing)
        if where is not None and where in held:
            held[where].append(thing)
    given: dict[Thing, Node] = {}
    load = dict.fromkeys(held, 0)
    # Those with the most keep one more than the others: least moves.
    for node, mine in sorted(held.items(), key=lambda h: (-len(h[1]), h[0])):
        kept = sorted(mine, key=lambda t: (-weight(node, t), t))[: quota + (extra > 0)]
        given |= dict.fromkeys(kept, node)
        load[node] = len(kept)
        extra -= load[node] > quota
    for thing in sorted(set(things) - given.keys()):
        roomy = (n for n in load if load[n] < quota + (extra > 0))
        node = max(roomy, key=lambda n: (weight(n, thing), n))
        given[thing] = node
        load[node] += 1
        extra -= load[node] > quota
    return given


def spread_bytes(
    sizes: Mapping[Thing, int], nodes: Collection[Node], present: Mapping[Thing, Node]
) -> dict[Thing, Node]:
    """Gives every node its share of the bytes, at most ``SLACK`` more as far as whole things allow.
    Empty without nodes.

    A node that comes gets its share from those that have too much; of a node that goes its own things
    move. Otherwise as ``spread_evenly``.
    """
    if not nodes:
        return {}
    most = (1 + SLACK) * sum(sizes.values()) / len(nodes)
    given = {t: node for t in sizes if (node := present.get(t)) in nodes and node is not None}
    load = dict.fromkeys(sorted(nodes), 0)
    for thing, node in given.items():
        load[node] += sizes[thing]
    # The large ones first: small ones fill what room is left.
    for thing in sorted(sizes.keys() - given.keys(), key=lambda t: (-sizes[t], t)):
        ranked = sorted(load, key=lambda n: (-weight(n, thing), n))
        roomy = next((n for n in ranked if load[n] + sizes[thing] <= most), None)
        node = roomy if roomy is not None else min(ranked, key=lambda n: load[n])
        given[thing] = node
        load[node] += sizes[thing]
    while (thing := _too_much(sizes, given, load, most)) is not None:
        load[given[thing]] -= sizes[thing]
        given[thing] = min(load, key=lambda n: load[n])
        load[given[thing]] += sizes[thing]
    return given


def _too_much(
    sizes: Mapping[Thing, int], given: Mapping[Thing, Node], load: Mapping[Node, int], most: float
) -> Thing | None:
    """What the fullest node is to give to the emptiest one; None = nothing that would be a gain, as
    each move is: the larger of the two loads falls. So moving ends."""
    full, empty = max(load, key=lambda n: load[n]), min(load, key=lambda n: load[n])
    if load[full] <= most:
        return None
    gains = [t for t, node in given.items() if node == full and load[empty] + sizes[t] < load[full]]
    fits = [t for t in gains if load[empty] + sizes[t] <= most]
    if fits:
        return max(fits, key=lambda t: (sizes[t], weight(empty, t), t))
    return min(gains, key=lambda t: (sizes[t], -weight(empty, t), t), default=None)
