"""Who gets what: rendezvous hashing with bounded loads, which moves little. Pure functions.

Plain rendezvous hashing ("highest random weight", Thaler and Ravishankar 1998) needs no state and
moves only what must move, but few things spread unevenly. So loads get a bound, as in "Consistent
hashing with bounded loads" (Mirrokni, Thorup, Zadimoghaddam 2016): a thing goes to the first node
of its ranking that has room. And what lies well stays: both functions are told where things are
now, and told their own result they give it back.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from math import inf
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
    things: Collection[Thing],
    nodes: Collection[Node],
    present: Mapping[Thing, Node],
    pinned: Mapping[Thing, Node] | None = None,
) -> dict[Thing, Node]:
    """Gives every node as many things as every other, or one more. Empty without nodes.

    pinned: where a thing is to be as long as that node is among ``nodes``, whatever it has beside; the
    others share the rest evenly.

    The result depends on the contents of the arguments alone, not on their order. Things move only
    from nodes that are gone or have too many, to nodes that have too few.
    """
    if not nodes:
        return {}
    quota, extra = divmod(len(things), len(nodes))
    held: dict[Node, list[Thing]] = {node: [] for node in nodes}
    fixed = {t: home for t in things if (home := (pinned or {}).get(t)) is not None and home in held}
    over = {home for home, count in Counter(fixed.values()).items() if count > quota}
    if over:
        full = {t: home for t, home in fixed.items() if home in over}
        rest = [t for t in things if t not in full]
        return full | spread_evenly(rest, [n for n in nodes if n not in over], present, pinned)
    for thing in things:
        where = fixed.get(thing, present.get(thing))
        if where is not None and where in held:
            held[where].append(thing)
    given: dict[Thing, Node] = {}
    load = dict.fromkeys(held, 0)
    # Those with the most keep one more than the others: least moves.
    for node, mine in sorted(held.items(), key=lambda h: (-len(h[1]), h[0])):
        kept = sorted(mine, key=lambda t: (t not in fixed, -weight(node, t), t))[: quota + (extra > 0)]
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
    sizes: Mapping[Thing, int],
    nodes: Collection[Node],
    present: Mapping[Thing, Node],
    room: Mapping[Node, int] | None = None,
) -> dict[Thing, Node]:
    """Gives every node its share of the bytes, at most ``SLACK`` more as far as whole things allow.
    Empty without nodes.

    room: bytes a node can take beside what lies there; a node that is not in it takes any. Things for
    which nobody has room are left out. What lies somewhere never moves for want of room.

    A node that comes gets its share from those that have too much; of a node that goes its own things
    move. Otherwise as ``spread_evenly``.
    """
    if not nodes:
        return {}
    most = (1 + SLACK) * sum(sizes.values()) / len(nodes)
    given = {t: node for t in sizes if (node := present.get(t)) in nodes and node is not None}
    load = dict.fromkeys(sorted(nodes), 0)
    left = {node: (room or {}).get(node, inf) for node in load}
    for thing, node in given.items():
        load[node] += sizes[thing]
    # The large ones first: small ones fill what room is left.
    for thing in sorted(sizes.keys() - given.keys(), key=lambda t: (-sizes[t], t)):
        able = [n for n in load if sizes[thing] <= left[n]]
        if not able:
            continue
        ranked = sorted(able, key=lambda n: (-weight(n, thing), n))
        below = next((n for n in ranked if load[n] + sizes[thing] <= most), None)
        node = below if below is not None else min(ranked, key=lambda n: load[n])
        given[thing] = node
        load[node] += sizes[thing]
        left[node] -= sizes[thing]
    while (move := _too_much(sizes, given, load, left, most)) is not None:
        thing, node = move
        load[given[thing]] -= sizes[thing]
        given[thing] = node
        load[node] += sizes[thing]
        left[node] -= sizes[thing]
    return given


def _too_much(
    sizes: Mapping[Thing, int],
    given: Mapping[Thing, Node],
    load: Mapping[Node, int],
    left: Mapping[Node, float],
    most: float,
) -> tuple[Thing, Node] | None:
    """What the fullest node is to give, and to whom: the emptiest one with room. None = nothing that would
    be a gain, as each move is: the larger of the two loads falls. So moving ends."""
    full = max(load, key=lambda n: load[n])
    if load[full] <= most:
        return None
    mine = [t for t, node in given.items() if node == full]
    for empty in sorted(load, key=lambda n: load[n]):
        gains = [t for t in mine if load[empty] + sizes[t] < load[full] and sizes[t] <= left[empty]]
        fits = [t for t in gains if load[empty] + sizes[t] <= most]
        if fits:
            return max(fits, key=lambda t: (sizes[t], weight(empty, t), t)), empty
        if gains:
            return min(gains, key=lambda t: (sizes[t], -weight(empty, t), t)), empty
    return None
