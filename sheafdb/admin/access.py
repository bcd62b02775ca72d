"""Opens what an operator points at: a cluster by its settings, or a standalone folder that is not running."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from core.catalog import Cluster
from core.errors import StartRefused
from core.settings import CacheSettings, Settings
from storage import keys
from storage.identity import FORMAT, unfinished
from storage.meta.port import MetaStore
from storage.store import Store

CACHE_BYTES = 256 * 1024 * 1024
"""Of local copies of a cluster's objects while a command runs."""


@dataclass(frozen=True)
class Target:
    """folder: of a standalone server; None = the cluster that the settings name."""

    settings: Settings
    folder: Path | None


@asynccontextmanager
async def metadata(target: Target) -> AsyncIterator[tuple[MetaStore, Cluster]]:
    """The metadata store alone, of a cluster also while Kafka and S3 are away. Never creates one.

    Raises ``StartRefused`` when there is none or when a folder is in use; ``Unavailable``.
    """
    if target.folder is not None:
        async with _folder(target.folder, target.settings) as store:
            yield store.meta, store.cluster
        return
    from storage.meta.etcd import EtcdMeta  # noqa: PLC0415  # a folder needs no client of etcd

    etcd = target.settings.etcd
    meta = await EtcdMeta.open(etcd)
    try:
        yield meta, await _cluster(meta, f"etcd at {etcd.endpoints}, prefix {etcd.prefix}")
    finally:
        await meta.close()


@asynccontextmanager
async def whole(target: Target) -> AsyncIterator[Store]:
    """All three stores. Never creates them. Raises as ``metadata`` does."""
    if target.folder is not None:
        async with _folder(target.folder, target.settings) as store:
            yield store
        return
    from storage.distributed import open_store  # noqa: PLC0415  # a folder needs none of its clients

    async with metadata(target):
        pass  # opening would create a cluster where there is none
    with tempfile.TemporaryDirectory(prefix="sheafdb-admin-") as cache:
        # No node's cache is filled or emptied by a look.
        store = await open_store(replace(target.settings, cache=CacheSettings(cache, CACHE_BYTES)))
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def _folder(folder: Path, settings: Settings) -> AsyncIterator[Store]:
    from storage.embedded import open_store  # noqa: PLC0415  # a cluster needs no SQLite

    if not (folder / "meta.db").exists():
        raise StartRefused(f"{folder} is no data folder: there is no meta.db in it")
    store = await open_store(folder, settings.log)
    try:
        yield store
    finally:
        await store.close()


async def _cluster(meta: MetaStore, where: str) -> Cluster:
    item = await meta.get(keys.CLUSTER)
    if item is None and (adopting := await meta.get(keys.ADOPTING)):
        raise StartRefused(f"{where} {unfinished(adopting.value)}")
    if item is None:
        raise StartRefused(f"{where}: no cluster is there; check etcd.endpoints and etcd.prefix")
    cluster = keys.decode(Cluster, item.value)
    if not 1 <= cluster.format <= FORMAT:
        raise StartRefused(
            f"{where} has format {cluster.format}, this version reads up to {FORMAT}; use the version that wrote it"
        )
    return cluster
