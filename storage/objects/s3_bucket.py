"""A bucket of an S3-compatible server: single requests in a bounded pool of threads and connections.

A request is tried again until it succeeds, fails for good, or its deadline is over. Two budgets keep
that from making an overload worse: the client library's retry quota, and pauses that grow.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from core.errors import ObjectNotFound, StartRefused, Unavailable
from core.settings import S3Settings
from storage.objects.s3_errors import FAILURES, Denied, code_of, typed

TRIES = 2
"""Of the client library for one call: the second mends a connection that was closed while idle."""
PAUSE_S = 0.1
PAUSE_MAX_S = 2.0
CLOSE_DEADLINE_S = 5.0
HOME_REGION = "us-east-1"
"""The one region that must not be named when a bucket is created in it."""
T = TypeVar("T")


class Bucket:
    """Requests to one bucket; keys are given without the prefix. Made by ``open``."""

    def __init__(self, settings: S3Settings, client: Any) -> None:
        self.settings, self._client = settings, client
        self.name = settings.bucket
        self.prefix = normal_prefix(settings.prefix)
        self.where = described(settings)
        self._threads = ThreadPoolExecutor(settings.connections, "s3")
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    async def open(cls, settings: S3Settings) -> "Bucket":
        """Reaches the bucket, or creates it when it is missing and may be.

        One try: raises ``Unavailable`` when the server does not answer, ``StartRefused`` when it
        never will (wrong credentials, no such bucket, wrong settings)."""
        bucket = cls(settings, await asyncio.to_thread(_client, settings))
        try:
            await asyncio.get_running_loop().run_in_executor(bucket._threads, bucket._demand_bucket)
        except BaseException:
            await bucket.close()
            raise
        return bucket

    async def call(self, operation: str, name: str, work: Callable[[Any], T]) -> T:
        """``work(client)`` in a thread. It may run several times, and goes on in its thread when the
        caller is cancelled or the deadline ends. Raises errors of ``core.errors``."""
        loop, last = asyncio.get_running_loop(), "no answer"
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                for pause_s in _pauses():
                    if self._closed:
                        raise Unavailable("the object store is closed")
                    try:
                        return await loop.run_in_executor(self._threads, self._typed, operation, name, work)
                    except Denied:
                        raise
                    except Unavailable as e:
                        last = str(e)
                    await asyncio.sleep(pause_s)
        except TimeoutError:
            pass
        raise Unavailable(f"{self.where}: {operation} {name}: gave up after {self.settings.deadline_s:g} s: {last}")

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, as ``ObjectStore.get``."""
        return await self.call("get", key, partial(self._read, key=key, start=start, length=length))

    async def write(self, key: str, data: bytes) -> None:
        """A whole object in one request."""
        await self.call("put", key, lambda s3: s3.put_object(**self.at(key), Body=data))

    async def property(self, name: str) -> bytes | None:
        """A value kept beside the objects, as ``SqliteLog.property``; None if it was never set."""
        with suppress(ObjectNotFound):
            return await self.read(f".{name}")
        return None

    async def set_property(self, name: str, value: bytes) -> None:
        """Durable when it returns."""
        await self.write(f".{name}", value)

    def at(self, key: str) -> dict[str, str]:
        """The parameters that name an object."""
        return {"Bucket": self.name, "Key": self.prefix + key}

    def later(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs what nobody waits for; it is bounded by its own requests' deadlines."""
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Running requests end by themselves, within their time-outs. Idempotent."""
        if self._background:
            await asyncio.wait(self._background, timeout=CLOSE_DEADLINE_S)
        self._closed = True
        for task in self._background:
            task.cancel()
        self._threads.shutdown(wait=False)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    # --- in a thread -----------------------------------------------------------------------
    def _typed(self, operation: str, name: str, work: Callable[[Any], T]) -> T:
        try:
            return work(self._client)
        except FAILURES as e:
            raise typed(e, self.where, operation, name) from e

    def _read(self, s3: Any, key: str, start: int, length: int | None) -> bytes:
        if length == 0:
            s3.head_object(**self.at(key))
            return b""
        span = {}
        if start or length is not None:
            span["Range"] = f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"
        try:
            with s3.get_object(**self.at(key), **span)["Body"] as body:
                return body.read()
        except ClientError as e:
            if code_of(e) == "InvalidRange":
                return b""
            raise

    def _demand_bucket(self) -> None:
        s3 = self._client
        try:
            if not self._exists(s3):
                self._create(s3)
        except FAILURES as e:
            error = typed(e, self.where, "opening the bucket", self.name)
            if isinstance(error, Denied):
                raise StartRefused(f"{error}; see the settings s3.*") from e
            if isinstance(error, ObjectNotFound):
                # A missing bucket has a code of its own.
                raise StartRefused(f"{self.where}: what answers there does not speak S3; see s3.endpoint") from e
            raise error from e

    def _exists(self, s3: Any) -> bool:
        try:
            # Of all requests that would tell, this one also names the cause when it is refused.
            s3.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1)
        except ClientError as e:
            if code_of(e) != "NoSuchBucket":
                raise
            if self.settings.create_bucket == "no":
                raise StartRefused(
                    f"{self.where}: the bucket does not exist; create it, or set s3.create_bucket = yes"
                ) from None
            return False
        return True

    def _create(self, s3: Any) -> None:
        region = self.settings.region
        place = {} if region == HOME_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            s3.create_bucket(Bucket=self.name, **place)
        except ClientError as e:
            # Several nodes start at once.
            if code_of(e) != "BucketAlreadyOwnedByYou":
                raise


def normal_prefix(text: str) -> str:
    """Empty, or ending with the only slash that is needed."""
    return f"{stripped}/" if (stripped := text.strip("/")) else ""


def described(settings: S3Settings) -> str:
    """Which bucket and prefix, for messages."""
    prefix = normal_prefix(settings.prefix)
    return f"S3 at {settings.endpoint or 'AWS ' + settings.region}, bucket {settings.bucket}" + (
        f", prefix {prefix}" if prefix else ""
    )


def _client(settings: S3Settings) -> Any:
    _check(settings)
    style = settings.addressing
    if style == "auto":
        style = "path" if settings.endpoint else "auto"
    config = Config(
        region_name=settings.region,
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.connections,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        s3={"addressing_style": style},
        tcp_keepalive=True,
        user_agent_extra="sheafdb",
    )
    try:
        # A session of our own: the library's default one is a global of the process.
        return Session().client(
            "s3",
            endpoint_url=settings.endpoint or None,
            aws_access_key_id=settings.access_key or None,
            aws_secret_access_key=settings.secret_key or None,
            aws_session_token=settings.session_token or None,
            verify=settings.tls_ca or None,
            config=config,
        )
    except (BotoCoreError, ValueError, OSError) as e:
        raise StartRefused(f"{described(settings)}: {e}") from e


def _check(settings: S3Settings) -> None:
    url = urlsplit(settings.endpoint)
    if settings.endpoint and (url.scheme not in ("http", "https") or not url.hostname):
        raise StartRefused(f"s3.endpoint = {settings.endpoint!r}: expected a URL such as http://127.0.0.1:9000")
    if bool(settings.access_key) != bool(settings.secret_key):
        raise StartRefused("s3.access_key and s3.secret_key are set together or not at all")
    if not settings.bucket:
        raise StartRefused("s3.bucket is empty: name the bucket of the cluster's objects")


def _pauses() -> Iterator[float]:
    """Growing, with jitter: clients that failed together do not come back together."""
    pause_s = PAUSE_S
    while True:
        yield pause_s * random.uniform(0.5, 1)  # noqa: S311  # no secret
        pause_s = min(pause_s * 2, PAUSE_MAX_S)
