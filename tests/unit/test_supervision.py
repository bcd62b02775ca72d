import asyncio
import contextlib

import pytest

from sheafdb import supervision
from sheafdb.supervision import Supervisor


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "SCAN_INTERVAL_S", 0.01)


async def test_a_background_task_that_dies_is_noticed() -> None:
    supervisor = Supervisor()

    async def dies() -> None:
        await asyncio.sleep(0.05)
        raise ValueError("gone")

    task = asyncio.create_task(dies(), name="tail")
    assert await asyncio.wait_for(supervisor.failed, 5) == "tail"
    assert task.done()
    supervisor.close()


async def test_tasks_that_are_awaited_cancelled_or_return_are_no_failure() -> None:
    supervisor = Supervisor()

    async def fails_under_care() -> None:
        await asyncio.sleep(0.05)
        raise ValueError("handled")

    watched = asyncio.create_task(fails_under_care())
    returns = asyncio.create_task(asyncio.sleep(0.05))
    cancelled = asyncio.create_task(asyncio.sleep(60))
    with pytest.raises(ValueError, match="handled"):
        await watched
    await asyncio.sleep(0.05)
    cancelled.cancel()
    for _ in range(10):
        await asyncio.sleep(0.01)
    assert returns.done()
    assert not supervisor.failed.done()
    supervisor.close()
    with contextlib.suppress(asyncio.CancelledError):
        await cancelled
