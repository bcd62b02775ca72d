"""The server as an operator's process: the ready line, signals, exit codes, refusals."""

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from sheafdb import __version__
from tests.server import Server, StartFailed
from tests.waiting import wait_until

READY = re.compile(
    rf"SheafDB {re.escape(__version__)} standalone is ready: http://127\.0\.0\.1:(\d+) "
    r"\(data: (\S+), metrics: (http://127\.0\.0\.1:\d+/metrics|off)\)\n"
)
REFUSED = 3


def ready_line(server: Server) -> re.Match[str]:
    output = (server.folder.parent / f"{server.folder.name}.stdout").read_text()
    match = READY.fullmatch(output)
    assert match, output
    return match


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def test_one_line_says_that_it_serves_where(launch: Callable[..., Server], tmp_path: Path) -> None:
    server = launch({"server.metrics_port": 0}, tmp_path / "made" / "on the way".replace(" ", "-")).start()
    match = ready_line(server)
    assert int(match[1]) == server.port
    assert match[2] == str(server.folder)
    assert server.client().list_collections() == []


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(launch: Callable[..., Server], sig: signal.Signals) -> None:
    server = launch().start()
    server.client().list_collections()
    server.process.send_signal(sig)
    assert server.wait_dead(10) == 0
    assert server.start().client().list_collections() == []


def test_a_signal_during_start_ends_it_too(launch: Callable[..., Server]) -> None:
    server = launch()
    server.spawn()
    wait_until((server.folder / "LOCK").exists, "the folder to be taken")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_dead(10) == 0


def test_the_second_signal_ends_it_at_once() -> None:
    program = (
        "import asyncio; from sheafdb.serve import _stop_signal\n"
        "async def main():\n"
        "    stop = _stop_signal(); print('up', flush=True); await stop; print('stopping', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_health_and_metrics(launch: Callable[..., Server]) -> None:
    server = launch({"server.metrics_port": 0}).start()
    server.client().list_collections()
    metrics = ready_line(server)[3]
    assert get(metrics.replace("/metrics", "/readyz")) == (200, "ok\n")
    assert get(metrics.replace("/metrics", "/healthz")) == (200, "ok\n")
    _, text = get(metrics)
    assert 'sheafdb_requests_total{code="0",rpc="ShowCollections"} 1.0' in text
    assert 'sheafdb_storage_seconds_count{method="commit",port="meta"}' in text


def test_a_folder_in_use_is_refused(launch: Callable[..., Server], tmp_path: Path) -> None:
    first = launch(folder=tmp_path / "data").start()
    second = launch(folder=tmp_path / "data")
    second.logs = tmp_path / "second.stderr"
    with pytest.raises(StartFailed) as e:
        second.start()
    assert e.value.returncode == REFUSED
    assert f"data folder {tmp_path / 'data'} is in use by process {first.process.pid}" in second.logs.read_text()


@pytest.mark.parametrize("setting", ["server.port", "server.metrics_port"])
def test_a_port_in_use_is_refused_and_named(launch: Callable[..., Server], setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = launch({"server.metrics_port": port} if setting == "server.metrics_port" else {})
        with pytest.raises(StartFailed) as e:
            server.start(port=port if setting == "server.port" else 0)
    assert e.value.returncode == REFUSED
    expected = f"cannot listen on 127.0.0.1:{port}: Address already in use (settings server.host and {setting})"
    assert expected in server.logs.read_text()
    assert "Traceback" not in server.logs.read_text()
