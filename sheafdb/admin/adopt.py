"""``sheafdb admin adopt``: a standalone folder becomes a cluster, or a cluster a standalone folder, by copying."""

import tempfile
from dataclasses import replace
from pathlib import Path

from core.settings import CacheSettings, Settings
from sheafdb.admin.access import CACHE_BYTES, Target, whole
from sheafdb.admin.progress import Bar
from sheafdb.admin.tables import Row
from storage import keys
from storage.adopting import Content, adopt, demand_fit, survey
from storage.store import NewStore, Store


async def into_cluster(settings: Settings, folder: Path) -> Row:
    """Copies a folder that is not running into the unused stores that the settings name.

    Raises ``StartRefused`` before anything is written when either side is not fit for it; else as ``adopt``."""
    from storage.distributed import open_new  # noqa: PLC0415  # the clients of the three servers

    async with whole(Target(settings, folder)) as source:
        content = await survey(source)
        demand_fit(content, settings.log)
        with tempfile.TemporaryDirectory(prefix="sheafdb-admin-") as cache:
            target = await open_new(replace(settings, cache=CacheSettings(cache, CACHE_BYTES)), content.origin)
            return await _copy(source, content, target)


async def into_folder(settings: Settings, folder: Path) -> Row:
    """Copies a cluster without running nodes into a folder that is not there yet. Raises as ``into_cluster``."""
    from storage.embedded import open_new  # noqa: PLC0415  # SQLite

    async with whole(Target(settings, None)) as source:
        content = await survey(source)
        log = replace(settings.log, channels=source.log.channels)
        demand_fit(content, log)
        return await _copy(source, content, await open_new(folder, log, content.origin))


async def _copy(source: Store, content: Content, target: NewStore) -> Row:
    """Closes the target."""
    try:
        await adopt(source, content, target, Bar())
    finally:
        await target.close()
    return {
        "cluster": target.claim.cluster.id,
        "copied_from": source.cluster.id,
        "collections": sum(key.startswith(keys.COLLECTIONS) for key in content.items),
        "objects": len(content.objects),
        "bytes": content.object_bytes,
        "channels": len(content.starts),
        "records": content.records,
    }
