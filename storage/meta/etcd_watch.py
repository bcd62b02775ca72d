"""A watch that outlives connections: it goes on after the last revision it gave."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, suppress
from itertools import groupby
from operator import attrgetter
from typing import Any

import structlog
from aetcd import rpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # of a compiled module without stubs

from core.errors import Unavailable, WatchCompacted
from core.ids import Revision
from storage.meta.etcd_connection import Connection
from storage.meta.etcd_errors import LinkLost, TokenRefused, error_of
from storage.meta.etcd_link import REQUIRE_LEADER, Link
from storage.meta.port import Event

RESUME_S = 0.1

log = structlog.get_logger()


async def follow(
    connection: Connection, start: bytes, end: bytes, strip: int, after: Revision
) -> AsyncGenerator[Sequence[Event], None]:
    """Changes of the keys in [start, end) with ``revision > after``, one batch per revision.

    strip: bytes to cut off the front of each key. Raises ``WatchCompacted``, ``Unavailable`` once the
    connection is closed.
    """
    while True:
        link = await connection.link(None)
        try:
            async with aclosing(_batches(link, start, end, after)) as batches:
                async for batch in batches:
                    after = Revision(batch[0].kv.mod_revision)
                    yield [_event(e, strip) for e in batch]
        except Unavailable as e:
            log.info("watch interrupted, going on", after=after, error=str(e))
            if isinstance(e, LinkLost | TokenRefused):
                # A new link comes with a new token.
                connection.lose(link, e)
            await asyncio.sleep(RESUME_S)


async def _batches(link: Link, start: bytes, end: bytes, after: Revision) -> AsyncGenerator[list[Any], None]:
    """etcd's own events of one stream, by revision. Raises ``LinkLost`` when the stream ends."""
    create = rpc.WatchCreateRequest(key=start, range_end=end, start_revision=after + 1, fragment=True)
    call = link.watch.Watch(metadata=(*link.metadata, *REQUIRE_LEADER))
    pending: list[Any] = []
    try:
        with link.errors(), suppress(asyncio.InvalidStateError):  # the stream has ended: reading tells why
            await call.write(rpc.WatchRequest(create_request=create))
        while True:
            with link.errors():
                response = await call.read()
            if response is EOF:
                raise LinkLost(f"etcd {link.endpoint} ended the watch")
            if response.canceled:
                raise _cancelled(link, response)
            pending += response.events
            # A large response comes in parts, and a revision's events may be in two of them.
            if not response.fragment:
                for batch in _by_revision(pending):
                    yield batch
                pending = []
    finally:
        call.cancel()


def _by_revision(events: list[Any]) -> Iterator[list[Any]]:
    return (list(group) for _, group in groupby(events, key=attrgetter("kv.mod_revision")))


def _cancelled(link: Link, response: Any) -> Exception:
    if response.compact_revision:
        return WatchCompacted(f"etcd has compacted its history up to revision {response.compact_revision}")
    message = f"etcd {link.endpoint} cancelled the watch: {response.cancel_reason}"
    return error_of(response.cancel_reason, message) or LinkLost(message)


def _event(event: Any, strip: int) -> Event:
    kv = event.kv
    value = None if event.type == rpc.Event.DELETE else kv.value
    return Event(kv.key[strip:].decode(), value, Revision(kv.mod_revision))
