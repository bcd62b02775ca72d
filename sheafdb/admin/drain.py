"""The operator's wish that a node loses what it has. The coordinator carries it out, make before break."""

import asyncio
import time

from core.errors import InvalidArgument, Refused, Timeout
from core.ids import NodeId
from sheafdb.admin import tables
from sheafdb.admin.picture import NodeKey, Picture, read
from storage import keys
from storage.meta.port import Delete, MetaStore, Put

ROLES = ("datanode", "querynode")
"""Those that have something to hand over."""
LOOK_S = 0.2


def target(picture: Picture, node: NodeId, *, undo: bool = False) -> NodeKey:
    """Which node is meant. Raises ``InvalidArgument`` when none is; ``Refused`` when nobody could take over.

    undo: of the nodes that are asked to drain, living or not."""
    among = picture.drains if undo else picture.nodes.keys()
    roles = [role for role, id in among if id == node]
    found = next((role for role in ROLES if role in roles), None)
    if found is None:
        if roles:
            raise InvalidArgument(f"{roles[0]} {node} holds nothing that could be handed over: just stop it")
        known = ", ".join(sorted(id for role, id in among if role in ROLES)) or "none"
        raise InvalidArgument(f"no node {node} {'is asked to drain' if undo else 'is registered'}; there are: {known}")
    if not undo and not any(
        role == found and id != node and (role, id) not in picture.drains for role, id in picture.nodes
    ):
        raise Refused(f"no other {found} is there to take over from {node}: start one first")
    return found, node


async def ask(meta: MetaStore, node: NodeId) -> NodeKey:
    """Notes the wish; it stays until ``undo``, also when the node ends. Raises as ``target``. Idempotent."""
    role, id = target(await read(meta), node)
    await meta.commit([], [Put(keys.drain(role, id), b"")])
    return role, id


async def undo(meta: MetaStore, node: NodeId) -> NodeKey:
    """Takes the wish back. Raises ``InvalidArgument`` when there is none."""
    role, id = target(await read(meta), node, undo=True)
    await meta.commit([], [Delete(keys.drain(role, id))])
    return role, id


async def until_empty(meta: MetaStore, key: NodeKey, timeout_s: float) -> None:
    """Waits until the node has nothing. Raises ``Timeout`` saying what it still has."""
    end = time.monotonic() + timeout_s
    while True:
        picture = await read(meta)
        left = {what: held for what, held in tables.holdings(picture, key).items() if held}
        if not left:
            return
        if time.monotonic() > end:
            has = "; ".join(f"{what} {', '.join(held)}" for what, held in left.items())
            raise Timeout(f"waited {timeout_s:g} s for {key[0]} {key[1]} to be drained, it still has {has}")
        await asyncio.sleep(LOOK_S)
