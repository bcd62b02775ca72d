"""Large objects in parts: several requests at a time, each with its own retries."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from botocore.exceptions import ClientError

from core.errors import SheafError, Unavailable
from storage.objects.s3_bucket import Bucket
from storage.objects.s3_errors import code_of

PARALLEL = 4
"""Parts of one object in flight: leaves connections to others."""
PARTS_MAX = 10_000
"""S3's limit."""
ABANDONED_AFTER = timedelta(days=1)

log = structlog.get_logger()


async def upload(bucket: Bucket, key: str, source: bytes | memoryview | Path, size: int) -> None:
    """Stores an object in parts; it appears whole with the last request. What was begun is aborted
    on an error or when the caller is cancelled; what a crash leaves behind, ``sweep`` aborts."""
    create = bucket.call("create upload", key, lambda s3: s3.create_multipart_upload(**bucket.at(key)))
    creating = asyncio.create_task(create, name=f"create upload of {key}")
    try:
        upload = bucket.at(key) | {"UploadId": (await asyncio.shield(creating))["UploadId"]}
    except asyncio.CancelledError:
        # The store may have it already, and nobody else will hear of its id.
        bucket.later(_abort_once_created(bucket, key, creating), f"abort upload of {key}")
        raise
    part_bytes = max(bucket.settings.part_bytes, -(-size // PARTS_MAX))
    spans = list(_spans(0, size, part_bytes))
    parts: list[dict[str, Any]] = [{} for _ in spans]

    async def store(n: int, start: int, length: int) -> None:
        work = partial(_put_part, upload=upload, number=n + 1, piece=partial(_piece, source, start, length))
        parts[n] = await bucket.call(f"put part {n + 1} of", key, work)

    try:
        await in_parallel(partial(store, n, *span) for n, span in enumerate(spans))
        work = partial(_complete, upload=upload, at=bucket.at(key), parts=parts, size=size)
        await bucket.call("complete", key, work)
    except BaseException:
        bucket.later(_abort(bucket, key, upload), f"abort upload of {key}")
        raise


async def _abort_once_created(bucket: Bucket, key: str, creating: asyncio.Task[Any]) -> None:
    with suppress(SheafError):
        created = await creating
        await _abort(bucket, key, bucket.at(key) | {"UploadId": created["UploadId"]})


class Download:
    """One object on its way to a local file. ``size``, then ``write``."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        self._part_bytes = bucket.settings.part_bytes
        self._first, self._size, self._tag = b"", 0, ""

    async def size(self) -> int:
        """Bytes of the object; the first of them come with the answer. Raises ``ObjectNotFound``."""
        self._first, self._size, self._tag = await self._bucket.call("get", self._key, self._begin)
        return self._size

    async def write(self, path: Path) -> None:
        """All bytes into an existing file, range by range."""
        first, self._first = self._first, b""
        await asyncio.to_thread(_write, path, 0, first)
        spans = _spans(len(first), self._size, self._part_bytes)
        await in_parallel(partial(self._copy, path, *span) for span in spans)

    async def _copy(self, path: Path, start: int, length: int) -> None:
        await self._bucket.call("get", self._key, partial(self._range, path=path, start=start, length=length))

    # --- in a thread -----------------------------------------------------------------------
    def _begin(self, s3: Any) -> tuple[bytes, int, str]:
        # Without a range: what fits into one part is checked against its CRC when its last byte is read.
        answer = s3.get_object(**self._bucket.at(self._key))
        with answer["Body"] as body:
            size = answer["ContentLength"]
            data = body.read(self._part_bytes) if size > self._part_bytes else body.read()
        return data, size, answer["ETag"]

    def _range(self, s3: Any, path: Path, start: int, length: int) -> None:
        span = f"bytes={start}-{start + length - 1}"
        with s3.get_object(**self._bucket.at(self._key), Range=span, IfMatch=self._tag)["Body"] as body:
            data = body.read()
        if len(data) != length:
            raise Unavailable(f"{len(data)} bytes came for {span}")
        _write(path, start, data)


async def sweep(bucket: Bucket) -> None:
    """Aborts uploads that a crash left a day ago: they are invisible, but take (paid) room.

    A store that does not list them (MinIO) removes them by itself."""
    oldest = datetime.now(UTC) - ABANDONED_AFTER
    try:
        found = await bucket.call(
            "list uploads",
            bucket.prefix,
            lambda s3: s3.list_multipart_uploads(Bucket=bucket.name, Prefix=bucket.prefix),
        )
        for upload in found.get("Uploads", ()):
            if upload["Initiated"] < oldest:
                key = upload["Key"].removeprefix(bucket.prefix)
                await _abort(bucket, key, bucket.at(key) | {"UploadId": upload["UploadId"]})
    except SheafError as e:
        log.warning("abandoned uploads not removed", store=bucket.where, error=str(e))


async def in_parallel(works: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Runs all, ``PARALLEL`` at a time; the first error cancels the others and is raised."""
    waiting = iter(works)

    async def worker() -> None:
        for work in waiting:
            await work()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(PARALLEL):
                group.create_task(worker())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _spans(start: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    """(start, length) of each part."""
    return ((at, min(step, end - at)) for at in range(start, end, step))


async def _abort(bucket: Bucket, key: str, upload: dict[str, str]) -> None:
    with suppress(SheafError):
        await bucket.call("abort upload", key, lambda s3: s3.abort_multipart_upload(**upload))


# --- in a thread ---------------------------------------------------------------------------
def _put_part(s3: Any, upload: dict[str, str], number: int, piece: Callable[[], bytes]) -> dict[str, Any]:
    """How the completing request names the part."""
    answer = s3.upload_part(**upload, PartNumber=number, Body=piece())
    checksums = {name: value for name, value in answer.items() if name.startswith("ChecksumCRC")}
    return {"PartNumber": number, "ETag": answer["ETag"], **checksums}


def _complete(s3: Any, upload: dict[str, str], at: dict[str, str], parts: list[dict[str, Any]], size: int) -> None:
    try:
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    except ClientError as e:
        # An earlier try may have completed it, its answer lost.
        if code_of(e) != "NoSuchUpload" or s3.head_object(**at)["ContentLength"] != size:
            raise


def _piece(source: bytes | memoryview | Path, start: int, length: int) -> bytes:
    if not isinstance(source, Path):
        return bytes(memoryview(source)[start : start + length])
    with source.open("rb") as file:
        file.seek(start)
        data = file.read(length)
    if len(data) != length:
        raise OSError(f"{source} was cut while it was stored")
    return data


def _write(path: Path, start: int, data: bytes) -> None:
    # Opened by name each time: a thread that outlives its caller then never writes to another's descriptor.
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)
