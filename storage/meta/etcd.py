"""The distributed metadata store: etcd. See docs/decisions/ for why its stubs are called directly."""

import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from aetcd import rpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # of a compiled module without stubs

from core.errors import Conflict, Fenced, InvalidArgument, Unavailable, WatchCompacted
from core.ids import Revision
from core.settings import EtcdSettings
from storage.meta.etcd_connection import Connection
from storage.meta.etcd_errors import LinkLost
from storage.meta.etcd_link import REQUIRE_LEADER, Link
from storage.meta.etcd_watch import follow
from storage.meta.port import Condition, Delete, Event, Item, Put
from storage.meta.writes import check_commit

PAGE_BYTES = 4 * 1024 * 1024
"""What a page of a listing aims at."""
PAGE_ITEMS = (100, 10_000)
"""Items of the first page, and of any."""
LISTINGS_MAX = 5
"""Each new start means that etcd compacted away a listing's revision while it ran."""


class EtcdMeta:
    """``MetaStore`` on etcd 3.4 or newer. Belongs to the event loop it was opened on.

    All keys are below ``settings.prefix``. Reads are linearizable. Leases live in whole seconds: etcd
    rounds up, to its least time to live (2 s as it comes), and ends them up to 0.5 s late. Reads and
    lease calls are repeated within ``request_timeout_s``; commits never are.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._prefix = connection, connection.prefix

    @classmethod
    async def open(cls, settings: EtcdSettings) -> "EtcdMeta":
        """Raises ``Unavailable`` (no member answers, and why), ``StartRefused`` (settings, credentials)."""
        return cls(await Connection.open(settings))

    async def get(self, key: str) -> Item | None:
        response = await _range(self._connection, rpc.RangeRequest(key=self._key(key)))
        return _item(response.kvs[0], len(self._prefix)) if response.kvs else None

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        for _ in range(LISTINGS_MAX):
            try:
                return await _listing(self._connection, self._key(prefix), len(self._prefix))
            except WatchCompacted:
                continue
        raise Unavailable(f"etcd compacts faster than {prefix!r} can be listed")

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> Revision:
        check_commit(conditions, writes)
        request = rpc.TxnRequest(
            compare=[self._compare(c) for c in conditions],
            success=[self._operation(w) for w in writes],
            failure=[
                rpc.RequestOp(request_range=rpc.RangeRequest(key=self._key(c.key), keys_only=True)) for c in conditions
            ],
        )

        async def txn(link: Link, timeout_s: float) -> Any:
            return await link.kv.Txn(request, timeout=timeout_s, metadata=link.metadata)

        response = await self._connection.call(txn, repeat=False)
        if not response.succeeded:
            raise _conflict(conditions, [r.response_range.kvs for r in response.responses])
        return Revision(response.header.revision)

    def watch(self, prefix: str, after: Revision) -> AsyncGenerator[Sequence[Event], None]:
        start = self._key(prefix)
        return follow(self._connection, start or b"\0", _end(start), len(self._prefix), after)

    async def grant(self, ttl_s: float) -> int:
        if not ttl_s > 0:
            raise InvalidArgument(f"a lease needs a positive time to live, not {ttl_s}")
        request = rpc.LeaseGrantRequest(TTL=math.ceil(ttl_s))

        async def grant(link: Link, timeout_s: float) -> Any:
            return await link.lease.LeaseGrant(request, timeout=timeout_s, metadata=link.metadata)

        # Granted twice, one of them just runs out.
        return (await self._connection.call(grant, repeat=True)).ID

    async def keep_alive(self, lease: int) -> None:
        async def renew(link: Link, timeout_s: float) -> Any:
            metadata = (*link.metadata, *REQUIRE_LEADER)
            call = link.lease.LeaseKeepAlive(
                iter([rpc.LeaseKeepAliveRequest(ID=lease)]), timeout=timeout_s, metadata=metadata
            )
            try:
                response = await call.read()
            finally:
                call.cancel()
            if response is EOF:
                raise LinkLost(f"etcd {link.endpoint} did not answer a heartbeat")
            return response

        response = await self._connection.call(renew, repeat=True)
        if response.TTL <= 0:
            raise Fenced(f"lease {lease} has ended")

    async def revoke(self, lease: int) -> None:
        async def revoke(link: Link, timeout_s: float) -> Any:
            return await link.lease.LeaseRevoke(
                rpc.LeaseRevokeRequest(ID=lease), timeout=timeout_s, metadata=link.metadata
            )

        try:
            await self._connection.call(revoke, repeat=True)
        except Fenced:
            return

    async def close(self) -> None:
        await self._connection.close()

    # ---------------------------------------------------------------------------------------
    def _key(self, key: str) -> bytes:
        return self._prefix + key.encode()

    def _compare(self, condition: Condition) -> Any:
        return rpc.Compare(
            key=self._key(condition.key),
            target=rpc.Compare.MOD,
            result=rpc.Compare.EQUAL,
            mod_revision=condition.revision,
        )

    def _operation(self, write: Put | Delete) -> Any:
        key = self._key(write.key)
        if isinstance(write, Delete):
            return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
        return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=write.value, lease=write.lease))


def _conflict(conditions: Sequence[Condition], present: Sequence[Any]) -> Conflict:
    """Names the first key that has another revision than asked for."""
    for condition, kvs in zip(conditions, present, strict=True):
        found = kvs[0].mod_revision if kvs else 0
        if found != condition.revision:
            return Conflict(f"{condition.key} is at revision {found}, not {condition.revision}")
    raise AssertionError("a commit that etcd refused has a false condition")


def _end(start: bytes) -> bytes:
    """The end of the range of keys that begin with ``start``, as etcd wants it."""
    stem = start.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


async def _listing(connection: Connection, start: bytes, strip: int) -> tuple[list[Item], Revision]:
    """All pages at the revision of the first. Raises ``WatchCompacted`` when that is gone before the last."""
    key, end = start or b"\0", _end(start)
    items: list[Item] = []
    limit, most = PAGE_ITEMS
    revision = 0
    while True:
        response = await _range(connection, rpc.RangeRequest(key=key, range_end=end, limit=limit, revision=revision))
        revision = revision or response.header.revision
        items += [_item(kv, strip) for kv in response.kvs]
        if not response.more:
            return items, Revision(revision)
        key = response.kvs[-1].key + b"\0"
        limit = max(1, min(most, PAGE_BYTES * len(response.kvs) // response.ByteSize()))


async def _range(connection: Connection, request: Any) -> Any:
    async def read(link: Link, timeout_s: float) -> Any:
        return await link.kv.Range(request, timeout=timeout_s, metadata=link.metadata)

    return await connection.call(read, repeat=True)


def _item(kv: Any, strip: int) -> Item:
    """strip: bytes of the key in front of the store's own."""
    return Item(kv.key[strip:].decode(), kv.value, Revision(kv.mod_revision))
