"""The identity of an embedded store: one cluster id, kept in each of its three parts.

A part that was lost, emptied or swapped would otherwise look like an empty store. The object folder's
``.cluster`` is written first, marked as creating, and last, without the mark: in between the store
has no data, and whoever opens it goes on creating; afterwards every part has to be there.
"""

import os
import uuid
from pathlib import Path

import orjson

from core.catalog import Cluster
from core.errors import StartRefused
from core.ids import Channel, Revision
from storage import keys
from storage.log.port import Log
from storage.log.sqlite import SqliteLog
from storage.meta.port import Condition, MetaStore, Put
from storage.objects.folder import sync

FORMAT = 1
"""Of the store as a whole. A newer one is refused."""
PROPERTY = "cluster"
"""Where the log's file keeps the identity."""


class Identity:
    """``cluster``: the store's; ``creating``: its creation was never completed. Blocking constructor.

    Raises ``StartRefused`` if the folder cannot be a whole store of this version.
    """

    def __init__(self, folder: Path) -> None:
        self.meta_path, self.log_path, self.objects = folder / "meta.db", folder / "log.db", folder / "objects"
        self._file = self.objects / ".cluster"
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            self._begin()
        else:
            self.cluster, self.creating = self._parse(content)
        if not self.creating:
            for path in (self.meta_path, self.log_path):
                if not path.exists() or path.stat().st_size == 0:
                    raise StartRefused(
                        f"{path} is missing or empty, but {self._file} says that cluster {self.cluster.id} lives here;"
                        " restore the file, or start with another data folder"
                    )

    def _begin(self) -> None:
        """Chooses an identity for a folder that holds nothing yet."""
        others = [p for p in (self.meta_path, self.log_path) if p.exists()]
        if self.objects.exists():
            others += [p for p in self.objects.iterdir() if not p.name.startswith(".")]
        if others:
            raise StartRefused(
                f"{self._file} is missing, but {others[0]} is there: objects were lost or belong to something else;"
                " restore the folder, or start with another data folder"
            )
        self.cluster, self.creating = Cluster(uuid.uuid4().hex, FORMAT), True
        self.objects.mkdir(parents=True, exist_ok=True)
        self._write()
        sync(self.objects.parent)

    def _write(self) -> None:
        """Durable and whole, also in a crash."""
        temporary = self._file.with_name(".cluster.new")
        content = {"cluster": self.cluster.id, "format": self.cluster.format, "creating": self.creating}
        temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))
        sync(temporary)
        os.replace(temporary, self._file)
        sync(self.objects)

    def _parse(self, content: bytes) -> tuple[Cluster, bool]:
        try:
            value = orjson.loads(content)
            cluster, creating = Cluster(value["cluster"], value["format"]), value["creating"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as e:
            raise StartRefused(f"{self._file} is damaged ({e!r}); restore it from a backup") from e
        self._check_format(self._file, cluster.format)
        if not isinstance(creating, bool) or not isinstance(cluster.id, str):
            raise StartRefused(f"{self._file} is damaged: {value!r}; restore it from a backup")
        return cluster, creating

    def _check_format(self, path: Path, found: object) -> None:
        if not isinstance(found, int) or not 1 <= found <= FORMAT:
            raise StartRefused(
                f"{path} has format {found}, this version reads up to {FORMAT}; start the version that wrote it"
            )

    async def check(self, meta: MetaStore, log: SqliteLog) -> None:
        """Compares what the two files say; completes a creation."""
        item = await meta.get(keys.CLUSTER)
        self._compare(self.meta_path, item.value if item else None)
        value = await log.property(PROPERTY)
        self._compare(self.log_path, value)
        if not self.creating:
            return
        if await _holds_data(meta, log):
            raise StartRefused(f"{self._file} says that the store was never completed, but it holds data")
        if value is None:
            await log.set_property(PROPERTY, keys.encode(self.cluster))
        if item is None:
            put = Put(keys.CLUSTER, keys.encode(self.cluster))
            await meta.commit([Condition(keys.CLUSTER, Revision(0))], [put])
        self.creating = False
        self._write()

    def _compare(self, path: Path, value: bytes | None) -> None:
        if value is None:
            if self.creating:
                return
            raise StartRefused(
                f"{path} has no cluster id, expected {self.cluster.id} as in {self._file}: it was emptied or replaced;"
                " restore the file, or start with another data folder"
            )
        found = keys.decode(Cluster, value)
        self._check_format(path, found.format)
        if found.id != self.cluster.id:
            raise StartRefused(
                f"{path} belongs to cluster {found.id}, {self._file} to {self.cluster.id}: two stores are mixed;"
                " put the right file back"
            )


async def _holds_data(meta: MetaStore, log: Log) -> bool:
    items, _ = await meta.list("")
    ends = await log.end([Channel(c) for c in range(log.channels)])
    return any(ends) or any(i.key != keys.CLUSTER for i in items)
