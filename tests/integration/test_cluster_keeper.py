"""The keeper: what dies comes back, what dies again and again gets longer pauses."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from core.errors import StartRefused
from sheafdb.cluster.keeper import Keeper
from sheafdb.servers import Toxiproxy

pytestmark = pytest.mark.usefixtures("installed_servers")


async def _until(condition, what: str) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited 10 s for {what}")


async def test_what_is_killed_comes_back_on_its_port(tmp_path: Path) -> None:
    server = await Toxiproxy.start(tmp_path)
    said: list[str] = []
    keeping = asyncio.create_task(Keeper([server], said.append).run())
    try:
        first, address = server.pid, server.address
        server.kill()
        await _until(lambda: len(said) == 2, "its return")
        assert said[0] == "toxiproxy died (signal 9), starts again in 0 s"
        assert said[1].startswith("toxiproxy is back after")
        assert server.pid != first
        assert server.address == address
        assert await server.ask("GET", "/version")
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        server.kill()


class Hopeless(Toxiproxy):
    """Dies at every start."""

    async def start_again(self) -> None:
        raise StartRefused("its disk is gone")


async def test_pauses_double_for_what_never_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sheafdb.cluster.keeper.LOOK_S", 0.01)
    monkeypatch.setattr("sheafdb.cluster.keeper.PAUSE_S", 0.05)
    server = await Hopeless.start(tmp_path)
    server.kill()
    said: list[str] = []
    keeping = asyncio.create_task(Keeper([server], said.append).run())
    await _until(lambda: len(said) >= 8, "four attempts")
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert [line.rpartition(" in ")[2] for line in said[:8:2]] == ["0 s", "0.05 s", "0.1 s", "0.2 s"]
    assert set(said[1:8:2]) == {"toxiproxy is not back: its disk is gone"}
