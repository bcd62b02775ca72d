"""``make cluster`` as a user meets it: a ready line, processes that come back, an end that leaves nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from pymilvus import MilvusClient

from tests.waiting import wait_until

SMALL = ("--proxies", "2", "--query-nodes", "1", "--data-nodes", "1", "--index-nodes", "1", "--coordinators", "1")
START_DEADLINE_S = 120.0


class Launcher:
    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._out, self._err = folder.with_suffix(".out"), folder.with_suffix(".err")
        command = [sys.executable, "-m", "sheafdb.cluster", "--folder", str(folder), "--port", "0", *SMALL, *options]
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)

    @property
    def said(self) -> str:
        return self._out.read_text() + self._err.read_text()

    def ready(self) -> "Launcher":
        def is_ready() -> bool:
            assert self.process.poll() is None, self.said
            return " cluster is ready: " in self._out.read_text()

        wait_until(is_ready, "the ready line", START_DEADLINE_S)
        return self

    def pid(self, name: str) -> int:
        found = re.search(rf"^  {name} .* pid (\d+)", self.said, re.MULTILINE)
        assert found, self.said
        return int(found[1])

    @property
    def uris(self) -> list[str]:
        return re.findall(r"http://\S+", self.said.partition("cluster is ready: ")[2])

    def children(self) -> Sequence[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cluster"


@pytest.fixture
def launchers() -> Iterator[list[Launcher]]:
    started: list[Launcher] = []
    yield started
    for launcher in started:
        launcher.close()


@pytest.mark.usefixtures("installed_servers")
def test_it_serves_brings_back_what_dies_and_ends_with_all_of_it(folder: Path, launchers: list[Launcher]) -> None:
    launchers.append(Launcher(folder))
    launcher = launchers[0].ready()
    assert len(launcher.uris) == 2
    writer, reader = (MilvusClient(uri, dedicated=True) for uri in launcher.uris)
    writer.create_collection("c", dimension=4)
    writer.insert("c", [{"id": i, "vector": [i, 1.0, 2.0, 3.0]} for i in range(100)])
    (hit,) = reader.search("c", [[7.0, 1.0, 2.0, 3.0]], limit=1, consistency_level="Strong")[0]
    assert hit["id"] == 7

    second = subprocess.run(
        [sys.executable, "-m", "sheafdb.cluster", "--folder", str(folder)], capture_output=True, text=True, check=False
    )
    assert second.returncode == 3
    assert "another cluster runs in" in second.stderr

    os.kill(launcher.pid("querynode-1"), signal.SIGKILL)
    wait_until(lambda: "querynode-1 is back" in launcher.said, "the query node to come back", 60)
    assert "querynode-1 died (signal 9)" in launcher.said
    assert wait_until(lambda: _answer(reader), "an answer") == [{"count(*)": 100}]
    writer.close()
    reader.close()

    children = launcher.children()
    assert len(children) == 9
    launcher.process.send_signal(signal.SIGTERM)
    assert launcher.process.wait(60) == 0
    assert not [c for c in children if c.is_running()]

    # The same folder again: the data are there.
    launchers.append(Launcher(folder, "--no-restart"))
    again = launchers[1].ready()
    client = MilvusClient(again.uris[0], dedicated=True)
    assert client.query("c", output_fields=["count(*)"], consistency_level="Strong") == [{"count(*)": 100}]
    client.close()
    dead = psutil.Process(again.pid("datanode-1"))
    dead.kill()
    wait_until(lambda: not dead.is_running() or dead.status() == psutil.STATUS_ZOMBIE, "its end")
    children = again.children()
    # Not even a chance to say goodbye.
    again.process.kill()
    again.process.wait()
    wait_until(lambda: not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE], "their end")
    assert "datanode-1 is back" not in again.said


def _answer(client: MilvusClient) -> list[dict] | None:
    try:
        return list(client.query("c", output_fields=["count(*)"], consistency_level="Strong"))
    except Exception:
        return None


@pytest.mark.usefixtures("installed_servers")
def test_ctrl_c_while_it_starts_leaves_nothing(folder: Path, launchers: list[Launcher]) -> None:
    launcher = Launcher(folder)
    launchers.append(launcher)
    children = wait_until(launcher.children, "its first child")
    launcher.process.send_signal(signal.SIGINT)
    assert launcher.process.wait(60) == 0
    assert not [c for c in children if c.is_running()]


@pytest.mark.usefixtures("installed_servers")
def test_a_wrong_setting_is_quoted_before_anything_starts(folder: Path, launchers: list[Launcher]) -> None:
    launcher = Launcher(folder, "--set", "log.channels=none")
    launchers.append(launcher)
    assert launcher.process.wait(60) == 2
    assert launcher.said == "sheafdb: log.channels = 'none' (from --set): expected a whole number\n"


@pytest.mark.usefixtures("installed_servers")
def test_a_taken_port_is_named(folder: Path, launchers: list[Launcher]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        launcher = Launcher(folder, "--port", str(port))
        launchers.append(launcher)
        assert launcher.process.wait(60) == 3
    assert re.search(rf"sheafdb: a proxy cannot listen on 127\.0\.0\.1:{port}: .*in use", launcher.said)
