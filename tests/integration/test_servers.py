"""The servers' own promises: they answer once started, keep their data over a SIGKILL, say what is wrong."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aetcd
import boto3
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition
from botocore.config import Config

from core.errors import StartRefused
from sheafdb.servers import Etcd, Kafka, Minio, Toxiproxy, free_port, install
from sheafdb.servers.child import Child
from sheafdb.servers.process import http
from sheafdb.servers.recipes import RECIPES, Recipe, Run
from tests.waiting import wait_until

TOPIC = "kept"

pytestmark = pytest.mark.usefixtures("installed_servers")


async def _append(address: str, value: bytes) -> int:
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all")
    await producer.start()
    try:
        return (await producer.send_and_wait(TOPIC, value, partition=0)).offset
    finally:
        await producer.stop()


async def _records(address: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(TOPIC, 0)])
        end = (await consumer.end_offsets([TopicPartition(TOPIC, 0)]))[TopicPartition(TOPIC, 0)]
        return [(await consumer.getone()).value for _ in range(end)]
    finally:
        await consumer.stop()


async def _create_topic(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def test_kafka_takes_writes_once_started_and_keeps_them_over_a_kill(tmp_path: Path) -> None:
    kafka = await Kafka.start(tmp_path)
    try:
        await _create_topic(kafka.address)
        await _append(kafka.address, b"before")
        address, pid = kafka.address, kafka.pid
        kafka.kill()
        began = time.monotonic()
        await kafka.start_again()
        assert time.monotonic() - began < 15
        assert kafka.address == address
        assert kafka.pid != pid
        assert await _append(kafka.address, b"after") == 1
        assert await _records(kafka.address) == [b"before", b"after"]
    finally:
        kafka.kill()


async def test_etcd_keeps_data_over_a_kill_and_for_another_start(tmp_path: Path) -> None:
    etcd = await Etcd.start(tmp_path)
    try:
        async with aetcd.Client("127.0.0.1", etcd.port) as client:
            await client.put(b"k", b"v")
        etcd.kill()
        await etcd.start_again()
        await etcd.stop()
        # Another launcher, other ports, the same folder.
        etcd = await Etcd.start(tmp_path)
        async with aetcd.Client("127.0.0.1", etcd.port) as client:
            found = await client.get(b"k")
        assert found is not None
        assert found.value == b"v"
    finally:
        etcd.kill()


def _s3(minio: Minio):
    return boto3.client(
        "s3",
        endpoint_url=f"http://{minio.address}",
        aws_access_key_id=minio.access_key,
        aws_secret_access_key=minio.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


async def test_minio_keeps_objects_over_a_kill(tmp_path: Path) -> None:
    minio = await Minio.start(tmp_path)
    try:
        s3 = _s3(minio)
        s3.create_bucket(Bucket="kept")
        s3.put_object(Bucket="kept", Key="a/b", Body=b"bytes")
        minio.kill()
        await minio.start_again()
        assert s3.get_object(Bucket="kept", Key="a/b")["Body"].read() == b"bytes"
        s3.close()
    finally:
        minio.kill()


async def test_a_detour_is_cut_and_mended(toxiproxy_server: Toxiproxy, etcd_server: Etcd) -> None:
    detour = await toxiproxy_server.detour("etcd-cut", etcd_server.address)
    port = int(detour.address.rpartition(":")[2])
    assert (await http(port, "GET", "/health"))[0] == 200
    await detour.cut()
    with pytest.raises((OSError, EOFError)):
        await http(port, "GET", "/health")
    await detour.mend()
    await detour.toxic("latency", latency=300)
    began = time.monotonic()
    assert (await http(port, "GET", "/health"))[0] == 200
    assert time.monotonic() - began >= 0.3
    await detour.mend()
    assert (await http(port, "GET", "/health"))[0] == 200


async def test_kafkas_clients_stay_on_the_detour_they_came_by(toxiproxy_server: Toxiproxy, tmp_path: Path) -> None:
    behind = free_port()
    detour = await toxiproxy_server.detour("kafka-detour", f"127.0.0.1:{behind}")
    kafka = await Kafka.start(tmp_path, detours={behind: detour.address})
    try:
        await _create_topic(kafka.address)
        assert await _append(detour.address, b"by the detour") == 0
        producer = AIOKafkaProducer(bootstrap_servers=detour.address, acks="all")
        await producer.start()
        try:
            brokers = {f"{b.host}:{b.port}" for b in producer.client.cluster.brokers()}
            assert brokers == {detour.address}
        finally:
            await producer.stop()
        assert await _append(kafka.address, b"directly") == 1
    finally:
        kafka.kill()


@pytest.mark.parametrize("server", [Kafka, Etcd, Minio, Toxiproxy])
async def test_a_taken_port_is_named(server: type[Kafka | Etcd | Minio | Toxiproxy], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartRefused, match=rf"{server.name} cannot listen on 127\.0\.0\.1:{port}: .*in use"):
            await server.start(tmp_path, port)


async def test_a_server_that_ends_by_itself_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where etcd wants its folder")
    with pytest.raises(StartRefused, match=r"etcd ended with 1: .*data"):
        await Etcd.start(tmp_path)


def test_a_server_that_is_not_installed_is_named(tmp_path: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", "from sheafdb.servers.install import folder_of; folder_of('etcd')"],
        env={**os.environ, "SHEAFDB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "etcd is not installed: run python -m sheafdb.servers etcd" in asked.stderr


def test_a_missing_tool_is_named_in_one_line(tmp_path: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "sheafdb.servers", "kafka"],
        env={"PATH": str(tmp_path), "SHEAFDB_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 3
    assert asked.stderr.splitlines() == [
        "sheafdb: kafka needs Java 17 or newer, Maven 3 or newer, and cannot install it here "
        "(Debian: apt install default-jre-headless maven)"
    ]
    assert not list((tmp_path / "cache" / "servers").glob("kafka*"))


STARTS_A_CHILD = """
import sys, time
from pathlib import Path
from sheafdb.servers.child import Child
print(Child(["sleep", "1000"], Path(sys.argv[1])).pid, flush=True)
time.sleep(1000)
"""


def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTS_A_CHILD, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_until(lambda: Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep"), "the command to run")
        parent.kill()
    wait_until(lambda: _gone(child), "the child to die")


def _gone(pid: int) -> bool:
    try:
        # A zombie waits for whoever adopted it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_a_paused_child_can_be_stopped(tmp_path: Path) -> None:
    child = Child(["sleep", "1000"], tmp_path / "log")
    child.pause()
    assert child.alive
    assert await child.stop() == -signal.SIGTERM


async def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    child = Child(["no-such-command"], tmp_path / "log")
    assert await child.ended(10) == 1
    assert child.last_words() == "no-such-command: No such file or directory"


BUILD_TWICE = """
import sys
from pathlib import Path
from sheafdb.servers import recipes
from sheafdb.servers.install import install

def build(recipe, folder, run):
    run("sh", "-c", "echo built >> " + sys.argv[1] + "; sleep 0.5", cwd=folder)
    (folder / "done").touch()

recipes.RECIPES["slow"] = recipes.Recipe("v1", (), "a moment", build)
install(["slow"], print)
"""


def test_two_installs_at_once_build_once(tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    command = [sys.executable, "-c", BUILD_TWICE, str(builds)]
    env = {**os.environ, "SHEAFDB_CACHE": str(tmp_path)}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(p.communicate(timeout=60)[0] for p in both)
    assert [p.returncode for p in both] == [0, 0]
    assert builds.read_text() == "built\n"
    assert said.count("slow v1: installed in") == 1
    assert (tmp_path / "servers" / "slow-1" / "done").exists()


def test_a_build_that_fails_leaves_nothing_and_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(recipe: Recipe, folder: Path, run: Run) -> None:
        run("sh", "-c", "echo no such module; exit 7", cwd=folder)

    monkeypatch.setitem(RECIPES, "broken", Recipe("v1", (), "a moment", build))
    monkeypatch.setenv("SHEAFDB_CACHE", str(tmp_path))
    with pytest.raises(StartRefused, match=r"broken: `sh -c .*` failed: no such module"):
        install(["broken"], lambda _: None)
    assert [p.name for p in (tmp_path / "servers").iterdir()] == [".broken.lock"]


def test_an_unknown_server_is_refused() -> None:
    with pytest.raises(StartRefused, match=r"no such server: pulsar \(there are kafka, etcd, toxiproxy, minio\)"):
        install(["pulsar"], lambda _: None)
