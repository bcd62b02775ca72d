"""`sheafdb standalone` as a process: starting, stopping, and refusing what it must not touch."""

import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.catalog import Cluster
from storage import keys
from storage.meta.port import Condition, Put
from storage.meta.sqlite import SqliteMeta
from tests.e2e.tables import count
from tests.server import Server, StartFailed

Launch = Callable[..., Server]


def test_sigterm_exits_cleanly_and_keeps_everything(launch: Launch) -> None:
    server = launch().start()
    client = server.client()
    client.create_collection("c", dimension=4)
    client.insert("c", [{"id": i, "vector": [float(i), 0, 0, 1]} for i in range(10)])
    assert server.stop() == 0
    server.start()
    assert count(server.client(), "c") == 10


def test_sigterm_before_anything_happened(launch: Launch) -> None:
    assert launch().start().stop() == 0


def test_a_client_outlives_a_restart_on_the_same_port(launch: Launch) -> None:
    server = launch().start()
    server.client().create_collection("c", dimension=4)
    port = server.port
    server.kill()
    server.start(port=port)
    assert server.port == port
    assert server.client().list_collections() == ["c"]


def test_a_held_folder_is_refused(launch: Launch, tmp_path: Path) -> None:
    first = launch(folder=tmp_path / "held").start()
    second = launch(folder=tmp_path / "held")
    with pytest.raises(StartFailed, match=r"(?i)held|in use|another process|locked") as e:
        second.start()
    assert e.value.returncode not in (0, None, -9)
    assert "Traceback" not in e.value.output
    first.client().create_collection("c", dimension=4)


@pytest.mark.parametrize("taken", ["meta.db", "log.db", "objects"])
def test_a_half_of_another_cluster_is_refused(launch: Launch, tmp_path: Path, taken: str) -> None:
    for folder in ("mine", "theirs"):
        server = launch(folder=tmp_path / folder).start()
        server.client().create_collection("c", dimension=4)
        assert server.stop() == 0
    for half in (tmp_path / "mine").glob(f"{taken}*"):
        shutil.rmtree(half) if half.is_dir() else half.unlink()
    for half in (tmp_path / "theirs").glob(f"{taken}*"):
        shutil.move(half, tmp_path / "mine" / half.name)
    with pytest.raises(StartFailed, match=r"(?i)cluster") as e:
        launch(folder=tmp_path / "mine").start()
    assert "Traceback" not in e.value.output


@pytest.mark.parametrize("lost", ["meta.db", "log.db", "objects"])
def test_a_vanished_half_is_refused_not_started_empty(launch: Launch, tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "data"
    server = launch(folder=folder).start()
    server.client().create_collection("c", dimension=4)
    assert server.stop() == 0
    for half in folder.glob(f"{lost}*"):
        shutil.rmtree(half) if half.is_dir() else half.unlink()
    with pytest.raises(StartFailed, match=lost) as e:
        launch(folder=folder).start()
    assert "Traceback" not in e.value.output


def test_an_unknown_setting_is_refused(launch: Launch) -> None:
    with pytest.raises(StartFailed, match="no_such_thing"):
        launch({"data_node.no_such_thing": 1}).start()
    with pytest.raises(StartFailed, match="segment_bytes"):
        launch({"data_node.segment_bytes": "many"}).start()


def test_metrics_and_health_over_http(launch: Launch) -> None:
    server = launch({"server.metrics_port": 0}).start()
    ports = {int(p) for p in re.findall(r"127\.0\.0\.1:(\d+)", server.output())} - {server.port}
    assert ports, f"no metrics address in {server.output()!r}"
    base = f"http://127.0.0.1:{ports.pop()}"
    with urllib.request.urlopen(f"{base}/metrics", timeout=5) as reply:
        assert b"sheafdb_" in reply.read()
    with urllib.request.urlopen(f"{base}/healthz", timeout=5) as reply:
        assert reply.status == 200


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sheafdb.cli", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_version_and_config() -> None:
    version = run("--version")
    assert version.returncode == 0
    assert version.stdout.split()[-1][0].isdigit()
    config = run("config", "--set", "data_node.segment_bytes=12345")
    assert config.returncode == 0
    assert "12345" in config.stdout
    assert "segment_bytes" in config.stdout


async def test_a_newer_format_is_refused(launch: Launch, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    server = launch(folder=folder).start()
    assert server.stop() == 0
    await raise_format(folder)
    with pytest.raises(StartFailed, match=r"(?i)newer|format") as e:
        launch(folder=folder).start()
    assert "Traceback" not in e.value.output


async def raise_format(folder: Path) -> None:
    """Writes the cluster's identity as a later version would, with a format nobody knows yet."""
    meta = await SqliteMeta.open(folder / "meta.db")
    try:
        item = await meta.get(keys.CLUSTER)
        assert item
        newer = replace(keys.decode(Cluster, item.value), format=1000)
        await meta.commit([Condition(keys.CLUSTER, item.revision)], [Put(keys.CLUSTER, keys.encode(newer))])
    finally:
        await meta.close()
