"""The store of a cluster on real servers: first starts, lost and foreign parts, servers that are away."""

import asyncio
import pickle
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.catalog import Cluster
from core.errors import StartRefused
from core.ids import Channel
from core.settings import (
    CacheSettings,
    ClusterSettings,
    EtcdSettings,
    KafkaSettings,
    LogSettings,
    Settings,
)
from sheafdb.servers import Etcd, Kafka, Minio
from sheafdb.servers.process import free_port
from storage import keys
from storage.distributed import open_store
from storage.meta.port import Put
from storage.objects.s3_bucket import Bucket
from tests.s3_settings import s3_settings

ROOT = Path(__file__).parents[2]
CHANNELS = 2
START_TIMEOUT_S = 30.0


@pytest.fixture
def settings(kafka_server: Kafka, etcd_server: Etcd, minio_server: Minio, tmp_path: Path) -> Settings:
    """Of a cluster that does not exist yet."""
    own = uuid.uuid4().hex
    return Settings(
        log=LogSettings(channels=CHANNELS),
        kafka=KafkaSettings(
            servers=kafka_server.address, topic=f"t-{own}", replication_factor=1, min_insync_replicas=1
        ),
        etcd=EtcdSettings(endpoints=etcd_server.address, prefix=f"e-{own}"),
        s3=s3_settings(minio_server, prefix="one"),
        cache=CacheSettings(dir=str(tmp_path / "cache")),
        cluster=ClusterSettings(start_timeout_s=START_TIMEOUT_S),
    )


async def create(settings: Settings) -> str:
    """A cluster with some data in it; its id."""
    store = await open_store(settings)
    await store.log.append([(Channel(0), b"record")])
    await store.meta.commit([], [Put("k", b"v")])
    await store.objects.put("some/object", b"o")
    await store.close()
    return store.cluster.id


def other_topic(settings: Settings) -> Settings:
    return replace(settings, kafka=replace(settings.kafka, topic=f"t-{uuid.uuid4().hex}"))


def other_etcd(settings: Settings) -> Settings:
    return replace(settings, etcd=replace(settings.etcd, prefix=f"e-{uuid.uuid4().hex}"))


def other_prefix(settings: Settings) -> Settings:
    return replace(settings, s3=replace(settings.s3, prefix=uuid.uuid4().hex))


async def test_a_cluster_is_created_once_and_keeps_what_it_has(settings: Settings):
    id = await create(settings)
    store = await open_store(settings)
    assert store.cluster == Cluster(id, 1)
    assert await store.log.end([Channel(0)]) == [1]
    assert await store.objects.get("some/object") == b"o"
    assert [o.name async for o in store.objects.list("")] == ["some/object"], "the identity is no object"
    assert await store.meta.get(keys.CLUSTER_CREATING) is None
    await store.close()


async def test_many_roles_may_start_at_once(settings: Settings):
    stores = await asyncio.gather(*(open_store(settings) for _ in range(6)))
    assert len({s.cluster.id for s in stores}) == 1
    await stores[0].objects.put("o", b"1")
    assert await stores[5].objects.get("o") == b"1"
    await asyncio.gather(*(s.close() for s in stores))


@pytest.mark.parametrize(("change", "named"), [(other_topic, "Kafka"), (other_etcd, "etcd"), (other_prefix, "S3")])
async def test_an_empty_part_beside_full_ones_is_refused(
    settings: Settings, change: Callable[[Settings], Settings], named: str
):
    id = await create(settings)
    with pytest.raises(StartRefused, match=f"{named} at .* has no cluster id.*{id}.*point kafka.topic") as e:
        await open_store(change(settings))
    assert "\n" not in str(e.value)
    await (await open_store(settings)).close()


@pytest.mark.parametrize(("change", "named"), [(other_topic, "Kafka"), (other_etcd, "etcd"), (other_prefix, "S3")])
async def test_a_part_of_another_cluster_is_refused(
    settings: Settings, change: Callable[[Settings], Settings], named: str
):
    settings = other_prefix(settings)
    foreign = other_topic(other_etcd(other_prefix(settings)))
    our_id, foreign_id = await create(settings), await create(foreign)
    mixed = {
        "Kafka": replace(settings, kafka=foreign.kafka),
        "etcd": replace(settings, etcd=foreign.etcd),
        "S3": replace(settings, s3=foreign.s3),
    }[named]
    with pytest.raises(StartRefused) as e:
        await open_store(mixed)
    assert our_id in str(e.value)
    assert foreign_id in str(e.value)


async def test_a_bucket_with_other_things_is_not_taken_for_a_new_store(settings: Settings):
    bucket = await Bucket.open(settings.s3)
    await bucket.write("holiday/photo.jpg", b"jpeg")
    await bucket.close()
    with pytest.raises(StartRefused, match=r"holiday/photo\.jpg in S3 at .*point kafka\.topic"):
        await open_store(settings)
    await (await open_store(other_prefix(settings))).close()


async def test_a_prefix_below_that_of_a_cluster_is_refused(settings: Settings):
    await create(settings)
    inside = other_topic(other_etcd(replace(settings, s3=replace(settings.s3, prefix="one/b"))))
    with pytest.raises(StartRefused, match=r"identity of a cluster one/\.cluster above prefix one/b/"):
        await open_store(inside)


async def test_a_topic_with_records_of_nobody_is_refused(settings: Settings):
    await create(settings)
    orphaned = other_etcd(other_prefix(settings))
    with pytest.raises(StartRefused, match=r"etcd at .* has no cluster id, but Kafka"):
        await open_store(orphaned)


async def test_a_newer_format_is_refused_by_name(settings: Settings):
    id = await create(settings)
    bucket = await Bucket.open(settings.s3)
    await bucket.set_property("cluster", b'{"cluster": "%s", "format": 2}' % id.encode())
    await bucket.close()
    with pytest.raises(StartRefused, match=r"S3 at .* has format 2, this version reads up to 1"):
        await open_store(settings)


@pytest.mark.parametrize("absent", ["Kafka", "etcd", "S3"])
async def test_a_server_that_is_away_is_named(settings: Settings, absent: str):
    nowhere = f"127.0.0.1:{free_port()}"
    settings = {
        "Kafka": replace(settings, kafka=replace(settings.kafka, servers=nowhere)),
        "etcd": replace(settings, etcd=replace(settings.etcd, endpoints=nowhere)),
        "S3": replace(settings, s3=replace(settings.s3, endpoint=f"http://{nowhere}")),
    }[absent]
    started = time.monotonic()
    with pytest.raises(StartRefused, match=f"{absent} at .*{nowhere}.* gave up after 3 s and [0-9]+ tries: ") as e:
        await open_store(replace(settings, cluster=ClusterSettings(start_timeout_s=3.0)))
    assert time.monotonic() - started < 10
    assert "\n" not in str(e.value)


async def test_a_server_that_comes_later_is_waited_for(settings: Settings, tmp_path: Path):
    minio = await Minio.start(tmp_path / "minio")
    minio.kill()
    opening = asyncio.create_task(open_store(replace(settings, s3=s3_settings(minio))))
    await asyncio.sleep(1)
    assert not opening.done()
    await minio.start_again()
    store = await opening
    await store.objects.put("o", b"1")
    await store.close()
    minio.kill()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"secret_key": "wrong-secret"}, "SignatureDoesNotMatch"),
        ({"access_key": "nobody"}, "InvalidAccessKeyId"),
        ({"access_key": "", "secret_key": "x"}, "s3.access_key and s3.secret_key are set together"),
        ({"endpoint": "127.0.0.1:9000"}, "expected a URL such as"),
        ({"bucket": ""}, "s3.bucket is empty"),
        ({"bucket": "Not A Bucket"}, "[Bb]ucket"),
        ({"create_bucket": "no"}, "the bucket does not exist; create it, or set s3.create_bucket"),
    ],
)
async def test_wrong_settings_are_refused_at_once(settings: Settings, change: dict[str, str], complaint: str):
    started = time.monotonic()
    with pytest.raises(StartRefused, match=complaint) as e:
        await open_store(replace(settings, s3=replace(settings.s3, **change)))
    assert time.monotonic() - started < START_TIMEOUT_S / 2
    assert "\n" not in str(e.value)


async def test_a_server_of_another_kind_is_told(settings: Settings, etcd_server: Etcd):
    with pytest.raises(StartRefused, match=r"S3 at .* does not speak S3"):
        await open_store(replace(settings, s3=replace(settings.s3, endpoint=f"http://{etcd_server.address}")))


CREATOR = """
    import asyncio, os, pickle, random, signal, sys
    from dataclasses import replace
    from storage.distributed import open_store

    settings, rounds = pickle.loads(bytes.fromhex(sys.argv[1])), int(sys.argv[2])
    for i in range(rounds):
        mine = replace(
            settings,
            kafka=replace(settings.kafka, topic=f"{settings.kafka.topic}-{i}"),
            etcd=replace(settings.etcd, prefix=f"{settings.etcd.prefix}-{i}"),
            s3=replace(settings.s3, prefix=f"p{i}"),
        )
        if os.fork() == 0:
            # The default action of SIGALRM ends the process on the spot, as SIGKILL would.
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.1, 1.0))
            asyncio.run(open_store(mine))
            signal.pause()
        os.wait()
"""


async def test_a_creation_killed_at_any_moment_is_completed_by_the_next_start(settings: Settings):
    rounds = 6
    arguments = [pickle.dumps(settings).hex(), str(rounds)]
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(CREATOR), *arguments, cwd=ROOT)
    assert await child.wait() == 0
    for i in range(rounds):
        await create(
            replace(
                settings,
                kafka=replace(settings.kafka, topic=f"{settings.kafka.topic}-{i}"),
                etcd=replace(settings.etcd, prefix=f"{settings.etcd.prefix}-{i}"),
                s3=replace(settings.s3, prefix=f"p{i}"),
            )
        )
