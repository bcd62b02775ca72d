"""Servers by Docker: what is asked of the command line. There is no engine where these tests run, so a
script plays it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import StartRefused
from sheafdb.cluster.docker import DockerServers, available

FAKE = """#!{python}
import json, os, sys
ports = {{name: os.environ.get(name) for name in ("KAFKA_PORT", "ETCD_PORT", "MINIO_PORT")}}
with open({calls!r}, "a") as f:
    print(json.dumps([sys.argv[1:], ports]), file=f)
if "up" in sys.argv and {fails!r}:
    sys.exit("no space left on device")
"""


class FakeDocker:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
        self._calls = folder / "calls"
        script = folder / "docker"
        script.write_text(FAKE.format(python=sys.executable, calls=str(self._calls), fails=fails))
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def calls(self) -> list[tuple[list[str], dict[str, str]]]:
        return [tuple(json.loads(line)) for line in self._calls.read_text().splitlines()]


async def test_an_engine_that_answers_starts_the_three_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker(tmp_path, monkeypatch)
    assert await available()
    servers = DockerServers(tmp_path / "one")
    endpoints = await servers.start(lambda _: None)
    await servers.stop()
    info, version, (up, ports), (stop, _) = docker.calls()
    assert (info[0], version[0]) == (["info"], ["compose", "version"])
    assert up[-6:] == ["up", "--detach", "--wait", "kafka", "etcd", "minio"]
    assert stop == [*up[:-6], "stop"]
    assert endpoints.kafka == f"127.0.0.1:{ports['KAFKA_PORT']}"
    assert endpoints.etcd == f"127.0.0.1:{ports['ETCD_PORT']}"
    assert endpoints.s3 == f"http://127.0.0.1:{ports['MINIO_PORT']}"
    # Another folder is another project: other data.
    await DockerServers(tmp_path / "two").stop()
    assert docker.calls()[-1][0][:-1] != stop[:-1]


async def test_what_docker_said_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDocker(tmp_path, monkeypatch, fails=True)
    with pytest.raises(StartRefused, match="could not start the servers: no space left on device"):
        await DockerServers(tmp_path).start(lambda _: None)


def test_docker_that_is_asked_for_and_missing_is_refused(tmp_path: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "sheafdb.cluster", "--folder", str(tmp_path / "c"), "--servers", "docker"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 3
    assert asked.stderr == (
        "sheafdb: --servers docker: no Docker engine answers `docker info`, or `docker compose` is missing\n"
    )
