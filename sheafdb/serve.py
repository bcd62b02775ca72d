"""A server as a process: event loop, signals, the ready line, the exit code."""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

import uvloop

from core.settings import LogOutputSettings
from sheafdb import logging, process

GIVE_BACK_S = 10.0
"""Pause between looks for memory that may go back to the system."""
FAILED = 1
"""Exit code when a part of the server died; ``sheafdb.supervision`` has logged which."""


class Server(Protocol):
    """What a process serves. ``failed`` is done once a part of it has died."""

    failed: asyncio.Future[str]

    @property
    def ready_line(self) -> str:
        """What the process says when it serves."""
        ...

    async def close(self) -> None: ...


Open = Callable[[], Awaitable[Server]]


def run(open: Open, settings: LogOutputSettings) -> int:
    """Serves until a signal or a failure; the exit code. Raises ``StartRefused``."""
    gc.freeze()
    gc.enable()
    logging.configure(settings)
    return uvloop.run(_run(open))


async def _run(open: Open) -> int:
    stop = _stop_signal()
    opening = asyncio.ensure_future(open())
    if not await _first(opening, stop):
        return 0
    server = opening.result()
    _settle()
    print(server.ready_line, flush=True)
    giving_back = asyncio.create_task(_give_back(), name="giving memory back")
    failed = await _first(server.failed, stop)
    giving_back.cancel()
    await server.close()
    return FAILED if failed else 0


async def _first(work: asyncio.Future, stop: asyncio.Future) -> bool:
    """Waits for either; False, with the work cancelled and over, when it was ``stop``."""
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
        return False
    return True


def _stop_signal() -> asyncio.Future[None]:
    """Done at the first SIGTERM or SIGINT. The second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stop = loop.create_future()

    def on_signal() -> None:
        stop.set_result(None)
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(sig)
            signal.signal(sig, signal.SIG_DFL)

    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, on_signal)
    return stop


def _settle() -> None:
    """Keeps what start-up made out of every later garbage collection: full ones take 1 ms, not 50."""
    gc.collect()
    gc.freeze()


async def _give_back() -> None:
    while True:
        await asyncio.sleep(GIVE_BACK_S)
        await asyncio.to_thread(process.give_back)
