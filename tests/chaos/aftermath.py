"""What must be true of a cluster when everything in it has been dropped."""

import asyncio
import sys
import time
from collections.abc import Iterable

from core.settings import EtcdSettings
from sheafdb.cluster import Cluster
from storage import keys
from storage.meta.etcd import EtcdMeta

SETTLE_S = 90.0
POLL_S = 0.5
OF_COLLECTIONS = (keys.COLLECTIONS, keys.NAMES, keys.MANIFESTS, keys.PLACEMENTS, keys.GARBAGE)
"""Prefixes of keys that only a collection, or an object that is to be deleted, has."""


async def left_behind(cluster: Cluster) -> str:
    """What is still there, or what ``sheafdb admin verify`` finds, after the cluster had its time to clean up;
    "" = nothing. Raises what etcd raises."""
    end = time.monotonic() + SETTLE_S
    while found := await _keys(cluster) or await _verify(cluster):
        if time.monotonic() > end:
            return found
        await asyncio.sleep(POLL_S)
    return ""


async def _keys(cluster: Cluster) -> str:
    meta = await EtcdMeta.open(EtcdSettings(endpoints=cluster.endpoints.etcd, prefix=cluster.endpoints.name))
    try:
        items, _ = await meta.list("")
    finally:
        await meta.close()
    return of_collections(item.key for item in items)


def of_collections(names: Iterable[str]) -> str:
    """Those that should be gone, of all the keys in etcd; "" = none."""
    left = sorted(name for name in names if name.startswith(OF_COLLECTIONS))
    return f"{len(left)} keys in etcd: {', '.join(left[:10])}" if left else ""


async def _verify(cluster: Cluster) -> str:
    command = ("-m", "sheafdb.cli", "admin", "verify", "--config", str(cluster.config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode(errors="replace") if process.returncode else ""
