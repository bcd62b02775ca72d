"""Nodes that answer what they were told to, and real connections to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import uvloop

from core.ids import CollectionId, FieldId, PartitionId
from rpc.answering import Handlers
from rpc.channel import Peer
from rpc.query_node import query_node_handlers
from rpc.reads import PreparedSearch, Rows, SearchReply, SearchRequest
from rpc.server import RpcServer
from rpc.workers import SearchShare, SearchShareReply

REPLY = SearchReply(np.array([2]), np.array([0.5, 1.5], "f4"), Rows(pa.array([7, 8]), {"n": pa.array([1, None])}))


class FakeNode:
    """Any role. Keeps how it was called; answers by the name of the method: with a value, by raising
    an error, or by what an async function of the arguments gives."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[Any, ...]] = []

    def prepare(self, request: SearchRequest) -> PreparedSearch | None:
        return self.answers["prepare"](request) if "prepare" in self.answers else None

    def search_share_at_once(self, _share: SearchShare) -> SearchShareReply | None:
        return self.answers.get("search_share_at_once")

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any) -> Any:
            self.calls.append((method, *arguments))
            answer = self.answers[method]
            if isinstance(answer, Exception):
                raise answer
            return await answer(*arguments) if callable(answer) else answer

        return call


@asynccontextmanager
async def connected(handlers: Handlers, ready: str = "") -> AsyncIterator[tuple[RpcServer, Peer]]:
    """A server on loopback and a connection to it."""
    server = RpcServer("127.0.0.1", 0)
    await server.start(handlers, lambda: ready)
    peer = Peer(f"127.0.0.1:{server.port}")
    try:
        yield server, peer
    finally:
        await peer.close()
        await server.drain(0)


def search(deadline: float, *, collection: int = 1, dim: int = 4) -> SearchRequest:
    return SearchRequest(
        CollectionId(collection),
        0,
        (PartitionId(1),),
        field_id=FieldId(100),
        queries=np.zeros((1, dim), "f4"),
        metric="L2",
        k=10,
        deadline=deadline,
    )


async def serve() -> None:
    """A query node in a process of its own, until it is killed: prints its port, answers searches of
    collection 1 and is silent about others."""

    async def answer(request: SearchRequest) -> SearchReply:
        if request.collection != 1:
            await asyncio.Event().wait()
        return REPLY

    server = RpcServer("127.0.0.1", 0)
    await server.start(query_node_handlers(FakeNode(search=answer)), lambda: "")
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
