"""The three distributed backends of a cluster, as one store."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import accumulate
from typing import NamedTuple, Protocol, TypeVar

import structlog

from core.catalog import Cluster
from core.errors import InvalidArgument, SheafError, StartRefused
from core.settings import Settings
from storage.identity import PROPERTY, Origin, Place, claim, establish, records_in
from storage.log.kafka import KafkaLog
from storage.meta.etcd import EtcdMeta
from storage.objects.cache import DiskCache
from storage.objects.s3 import S3Objects
from storage.objects.s3_bucket import Bucket, described
from storage.store import NewStore, Store

PAUSE_S = 0.2
PAUSE_MAX_S = 1.0
ADVICE = (
    "point kafka.topic, etcd.prefix, s3.bucket and s3.prefix at the stores of one cluster, restore what was lost,"
    " or choose names that nothing uses for a new cluster"
)
NEW = "choose a kafka.topic, etcd.prefix, s3.bucket and s3.prefix that nothing uses"

log = structlog.get_logger()


class Closable(Protocol):
    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)
T = TypeVar("T")


async def open_store(settings: Settings) -> Store:
    """Opens the stores of the cluster, or creates it in them; an interrupted creation is completed.

    Waits up to ``cluster.start_timeout_s`` for servers that do not answer, saying which and why. Raises
    ``StartRefused`` then, and at once when waiting is of no use: a part is missing, belongs to another
    cluster or was written by a newer version, credentials or settings are wrong."""
    patience = _Patience(settings.cluster.start_timeout_s)
    async with AsyncExitStack() as stack:
        meta, records, bucket, name, places = await _open(stack, patience, settings)
        cluster = await patience.until_done("the cluster's identity", lambda: establish(meta, name, places, ADVICE))
        objects = await _objects(stack, settings, bucket, cluster)
        if records.channels != settings.log.channels:
            log.warning(
                "log.channels is fixed when a store is created",
                topic=settings.kafka.topic,
                store=records.channels,
                settings=settings.log.channels,
            )
        return Store(meta, records, objects, cluster, stack.pop_all().aclose)
    raise AssertionError("an exit stack without suppressing callbacks")


async def open_new(settings: Settings, origin: Origin) -> NewStore:
    """Opens stores that nothing uses, or creates them, to be filled as ``storage.identity.claim`` says.

    Raises ``StartRefused`` as ``open_store`` and ``claim`` do, ``Unavailable``."""
    patience = _Patience(settings.cluster.start_timeout_s)
    async with AsyncExitStack() as stack:
        meta, records, bucket, name, places = await _open(stack, patience, settings)
        own = await claim(meta, name, places, NEW, origin)
        objects = await _objects(stack, settings, bucket, own.cluster)
        return NewStore(records, objects, own, stack.pop_all().aclose)
    raise AssertionError("an exit stack without suppressing callbacks")


class _Parts(NamedTuple):
    """name, places: where the identity is kept."""

    meta: EtcdMeta
    log: KafkaLog
    bucket: Bucket
    name: str
    places: Sequence[Place]


async def _open(stack: AsyncExitStack, patience: "_Patience", settings: Settings) -> _Parts:
    kafka = f"Kafka at {settings.kafka.servers}, topic {settings.kafka.topic}"
    etcd = f"etcd at {settings.etcd.endpoints}, prefix {settings.etcd.prefix}"
    s3 = described(settings.s3)
    # All at once: each line about a server that does not answer comes in the first second.
    records, meta, bucket = await _all(
        _opened(stack, patience, kafka, lambda: KafkaLog.open(settings.kafka, settings.log)),
        _opened(stack, patience, etcd, lambda: EtcdMeta.open(settings.etcd)),
        _opened(stack, patience, s3, lambda: Bucket.open(settings.s3)),
    )
    places = (
        Place(
            kafka,
            partial(records.property, PROPERTY),
            partial(records.set_property, PROPERTY),
            partial(records_in, records, kafka),
        ),
        Place(s3, partial(bucket.property, PROPERTY), partial(bucket.set_property, PROPERTY), partial(_used, bucket)),
    )
    return _Parts(meta, records, bucket, etcd, places)


async def _objects(stack: AsyncExitStack, settings: Settings, bucket: Bucket, cluster: Cluster) -> S3Objects:
    objects = S3Objects(bucket, await DiskCache.open(settings.cache), cluster.id)
    stack.push_async_callback(objects.close)
    return objects


class _Patience:
    """Tries until something works, for a bounded time from the start of the process on."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s, self._end = timeout_s, time.monotonic() + timeout_s

    async def until_done(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """Raises ``StartRefused`` naming ``what``, the number of tries and the last error."""
        tries, last, pause_s = 0, "no answer", PAUSE_S
        try:
            async with asyncio.timeout(self._end - time.monotonic()):
                while True:
                    tries += 1
                    try:
                        return await work()
                    except (StartRefused, InvalidArgument):
                        raise
                    except SheafError as e:
                        last = str(e)
                    log.warning("waiting for a server", server=what, tries=tries, error=last)
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  # no secret
                    pause_s = min(pause_s * 2, PAUSE_MAX_S)
        except InvalidArgument as e:
            raise StartRefused(f"{what}: {e}") from e
        except TimeoutError:
            raise StartRefused(f"{what}: gave up after {self._timeout_s:g} s and {tries} tries: {last}") from None


async def _opened(stack: AsyncExitStack, patience: _Patience, what: str, open: Callable[[], Awaitable[C]]) -> C:
    backend = await patience.until_done(what, open)
    stack.push_async_callback(backend.close)
    return backend


A = TypeVar("A")
B = TypeVar("B")


async def _all(first: Awaitable[A], second: Awaitable[B], third: Awaitable[C]) -> tuple[A, B, C]:
    """The results of all; the first error ends the others and is raised."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second), asyncio.ensure_future(third)
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _used(bucket: Bucket) -> str:
    """What makes a prefix unfit for a new cluster: objects below it, or a cluster above it, whose
    audit would take ours for orphans."""
    above = list(accumulate((f"{part}/" for part in bucket.prefix.split("/")[:-2]), initial=""))
    for prefix in (f"{p}.{PROPERTY}" for p in above if p != bucket.prefix):
        if found := await _first_key(bucket, prefix):
            return f"the identity of a cluster {found} above prefix {bucket.prefix} in {bucket.where}"
    found = await _first_key(bucket, bucket.prefix)
    return f"object {found} in {bucket.where}" if found else ""


async def _first_key(bucket: Bucket, prefix: str) -> str:
    page = await bucket.call(
        "list", prefix, lambda s3: s3.list_objects_v2(Bucket=bucket.name, Prefix=prefix, MaxKeys=1)
    )
    return next((item["Key"] for item in page.get("Contents", ())), "")
