"""Waits end with what they wait for or with the deadline, and share their questions to the log."""

import asyncio
import time

import pytest

from core.errors import Timeout, Unavailable
from core.ids import Channel, Position
from querynode.waiting import LogEnd, Signal, until, within


class CountingLog:
    """Answers ``end`` when told to, and counts the calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.value = 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def end(self, channels: list[Channel]) -> list[Position]:
        self.calls += 1
        value = self.value
        await self.gate.wait()
        if self.error:
            raise self.error
        return [Position(value) for _ in channels]


async def test_askers_share_a_call_that_started_after_them() -> None:
    log = CountingLog()
    end = LogEnd(log, Channel(0))  # type: ignore[arg-type]  # only ``end`` is used
    first = asyncio.ensure_future(end.ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log.calls == 1
    log.value = 5  # appended and acknowledged after the first call looked
    late = [asyncio.ensure_future(end.ask()) for _ in range(20)]
    log.gate.set()
    assert await first == 0
    assert await asyncio.gather(*late) == [5] * 20
    assert log.calls == 2


async def test_askers_before_the_call_starts_share_it() -> None:
    log = CountingLog()
    log.gate.set()
    end = LogEnd(log, Channel(0))  # type: ignore[arg-type]  # only ``end`` is used
    assert await asyncio.gather(*(end.ask() for _ in range(10))) == [0] * 10
    assert log.calls == 1


async def test_an_error_reaches_every_asker_and_the_next_one_asks_again() -> None:
    log = CountingLog()
    log.error = Unavailable("gone")
    log.gate.set()
    end = LogEnd(log, Channel(0))  # type: ignore[arg-type]  # only ``end`` is used
    results = await asyncio.gather(*(end.ask() for _ in range(3)), return_exceptions=True)
    assert [type(r) for r in results] == [Unavailable] * 3
    log.error = None
    assert await end.ask() == 0


async def test_one_asker_giving_up_does_not_disturb_the_others() -> None:
    log = CountingLog()
    end = LogEnd(log, Channel(0))  # type: ignore[arg-type]  # only ``end`` is used
    other = asyncio.ensure_future(end.ask())
    with pytest.raises(Timeout, match="the end"):
        await within(time.monotonic() + 0.01, end.ask(), "the end")
    log.gate.set()
    assert await other == 0


async def test_no_change_is_missed_between_looking_and_waiting() -> None:
    signal, state = Signal(), {"done": False}

    async def change() -> None:
        state["done"] = True
        signal.notify()

    task = asyncio.create_task(change())
    await until(lambda: state["done"], lambda: signal, time.monotonic() + 5, "the change")
    await task


async def test_a_wait_says_what_it_was_for() -> None:
    with pytest.raises(Timeout, match="waiting for the moon"):
        await until(lambda: False, Signal, time.monotonic() + 0.01, "the moon")


async def test_a_wait_that_is_cancelled_as_it_ends_is_cancelled() -> None:
    """Whoever cancels a task waits for it to end: one that goes on would be waited for for ever."""
    answer = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(time.monotonic() + 10, answer, "it"))
    await asyncio.sleep(0)
    answer.set_result(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
