"""The distributed object store: a bucket of an S3-compatible server, with copies on the local disk."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from core.errors import InvalidArgument
from core.settings import S3Settings
from storage.objects.cache import DiskCache
from storage.objects.port import ObjectInfo, check_name
from storage.objects.s3_bucket import Bucket
from storage.objects.s3_parts import Download, sweep, upload

NAME_BYTES_MAX = 1024
"""S3's limit, prefix included."""


class S3Objects:
    """``ObjectStore`` in a bucket, below a prefix.

    ``fetch`` gives files of the cache, which also keeps what this node puts. Objects of up to one part
    are checked against a CRC both ways; whoever opens a larger one compares its digest.
    A cancelled ``put`` may still store its object; it never stores a part of it.
    """

    def __init__(self, bucket: Bucket, cache: DiskCache, cluster: str = "") -> None:
        """cluster: the id of whose objects these are; a cache that once served another's never mixes them up."""
        self.bucket, self._cache, self._cluster = bucket, cache, cluster
        bucket.later(sweep(bucket), "abort abandoned uploads")

    @classmethod
    async def open(cls, settings: S3Settings, cache: DiskCache, cluster: str = "") -> "S3Objects":
        """Closes the cache with itself. Raises as ``Bucket.open`` does."""
        return cls(await Bucket.open(settings), cache, cluster)

    async def put(self, name: str, data: bytes | memoryview | Path) -> None:
        self._check(name)
        size = _size(data)
        if size > self.bucket.settings.part_bytes:
            await upload(self.bucket, name, data, size)
        else:
            content = await asyncio.to_thread(data.read_bytes) if isinstance(data, Path) else bytes(data)
            await self.bucket.write(name, content)
        if isinstance(data, Path):
            await self._cache.admit(self._key(name), data)

    async def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._check(name)
        return await self.bucket.read(name, start, length)

    async def fetch(self, name: str) -> Path:
        self._check(name)
        return await self._cache.fetch(self._key(name), Download(self.bucket, name))

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        bucket, after = self.bucket, {}
        while True:
            span = {"Bucket": bucket.name, "Prefix": bucket.prefix + prefix, **after}
            page = await bucket.call("list", prefix, lambda s3, span=span: s3.list_objects_v2(**span))
            for item in page.get("Contents", ()):
                name = item["Key"].removeprefix(bucket.prefix)
                if not any(part.startswith(".") for part in name.split("/")):
                    yield ObjectInfo(name, item["Size"], int(item["LastModified"].timestamp() * 1000))
            if not page["IsTruncated"]:
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete(self, name: str) -> None:
        self._check(name)
        await self.bucket.call("delete", name, lambda s3: s3.delete_object(**self.bucket.at(name)))
        await self._cache.forget(self._key(name))

    async def close(self) -> None:
        await self._cache.close()
        await self.bucket.close()

    def _check(self, name: str) -> None:
        check_name(name)
        if len((self.bucket.prefix + name).encode()) > NAME_BYTES_MAX:
            raise InvalidArgument(f"object name of more than {NAME_BYTES_MAX} bytes: {name!r}")

    def _key(self, name: str) -> str:
        return f"{self._cluster}/{name}"


def _size(data: bytes | memoryview | Path) -> int:
    return data.stat().st_size if isinstance(data, Path) else memoryview(data).nbytes
