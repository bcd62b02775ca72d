"""What the roles of a process stand on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from core.catalog import Cluster
from storage.identity import Claim
from storage.log.port import FillableLog, Log
from storage.meta.port import MetaStore
from storage.objects.port import ObjectStore


@dataclass(frozen=True)
class Store:
    """The open backends of one cluster. ``close`` ends them and frees what they hold."""

    meta: MetaStore
    log: Log
    objects: ObjectStore
    cluster: Cluster
    close: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class NewStore:
    """The open backends of a store that is being filled. Nobody can use it before ``claim.complete``."""

    log: FillableLog
    objects: ObjectStore
    claim: Claim
    close: Callable[[], Awaitable[None]]
