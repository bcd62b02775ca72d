"""Asks the query nodes of a cluster what they say about their shards."""

import asyncio

from core.errors import SheafError
from core.ids import NodeId, ShardId
from rpc.channel import Peer
from rpc.query_node import RemoteQueryNode
from rpc.reads import ShardStatus
from sheafdb.admin.picture import Picture
from sheafdb.admin.tables import Statuses
from sheafdb.registration import Registration

ANSWER_S = 5.0


async def ask(picture: Picture) -> Statuses:
    """Of every registered query node, all at once; within ``ANSWER_S`` those that do not answer are told by why."""
    found = {id: node for (role, id), node in picture.nodes.items() if role == "querynode"}
    answers = await asyncio.gather(*(_of(node) for node in found.values()))
    led = {leader for p in picture.placements.values() for replica in p.replicas for leader in replica.leaders}
    gone: dict[NodeId, str] = dict.fromkeys(led - found.keys(), "not registered")
    return {**gone, **dict(zip(found, answers, strict=True))}


async def _of(node: Registration | None) -> dict[ShardId, ShardStatus] | str:
    if node is None or not node.understood:
        return "its registration is not of this version"
    peer = Peer(node.address)
    try:
        async with asyncio.timeout(ANSWER_S):
            return {status.shard: status for status in await RemoteQueryNode(peer).shards()}
    except TimeoutError:
        return f"{node.address} did not answer within {ANSWER_S:g} s"
    except SheafError as e:
        return str(e)
    finally:
        await peer.close()
