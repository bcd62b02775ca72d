"""What all work of a data node shares."""

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from core.catalog import Collection
from core.errors import DiskFull
from core.ids import CollectionId, ShardId
from core.manifest import ObjectRef
from core.settings import DataNodeSettings
from datanode.ids import Ids
from datanode.key_filters import KeyFilters
from storage import keys
from storage.log.port import Log
from storage.meta.port import MetaStore
from storage.objects.port import ObjectStore
from storage.segment_file import Written

T = TypeVar("T")


@dataclass(frozen=True)
class Resources:
    """The ports, a folder for files being written, threads for heavy work, ids, key filters."""

    settings: DataNodeSettings
    garbage_grace_s: float
    meta: MetaStore
    log: Log
    objects: ObjectStore
    scratch: Path
    threads: Executor
    ids: Ids
    key_filters: KeyFilters
    sealing: asyncio.Semaphore
    """Bounds the seals at work: each holds a copy of the rows it writes."""

    async def run(self, work: Callable[[], T]) -> T:
        """Runs heavy work on a thread. A full disk is ``DiskFull``."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, work)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"no room in the scratch folder: {e}") from e
            raise

    async def collection(self, id: CollectionId) -> Collection | None:
        """The collection as the store has it now; None when it is dropped or gone."""
        item = await self.meta.get(keys.collection(id))
        found = keys.decode(Collection, item.value) if item else None
        return None if found is None or found.dropped else found

    async def store(self, path: Path, name: str, written: Written) -> ObjectRef:
        """Puts a written scratch file into the object store; ``discard`` removes it here."""
        await self.objects.put(name, path)
        return written.ref(name)

    def discard(self, shard: ShardId, id: int) -> None:
        """Removes the scratch files of an id, whole or partial."""
        for path in self.scratch.glob(f"{self.scratch_name(shard, id)}*"):
            path.unlink(missing_ok=True)

    @staticmethod
    def scratch_name(shard: ShardId, id: int) -> str:
        return f"shard-{shard.collection}-{shard.number}-{id}"
