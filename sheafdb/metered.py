"""The ports of a store with metrics around them."""

from dataclasses import replace
from functools import cache

from prometheus_client import REGISTRY

from storage.metrics import MeteredLog, MeteredMeta, MeteredObjects, StorageMetrics
from storage.store import Store


def metered(store: Store) -> Store:
    """The same store; what the roles do with it is counted."""
    metrics = storage_metrics()
    return replace(
        store,
        meta=MeteredMeta(store.meta, metrics),
        log=MeteredLog(store.log, metrics),
        objects=MeteredObjects(store.objects, metrics),
    )


@cache
def storage_metrics() -> StorageMetrics:
    """One set per process, as its registry is."""
    return StorageMetrics(REGISTRY)
