"""A standalone server as a process: event loop, signals, the ready line, the exit code."""

import asyncio
import gc
import signal
from pathlib import Path

import uvloop

from core.settings import Settings
from sheafdb import __version__, logging
from sheafdb.standalone import Standalone

FAILED = 1
"""Exit code when a part of the server died; ``sheafdb.supervision`` has logged which."""


def run(folder: Path, settings: Settings) -> int:
    """Serves until a signal or a failure; the exit code. Raises ``StartRefused``."""
    gc.freeze()
    gc.enable()
    logging.configure(settings.logging)
    return uvloop.run(_run(folder, settings))


async def _run(folder: Path, settings: Settings) -> int:
    stop = _stop_signal()
    opening = asyncio.create_task(Standalone.open(folder, settings), name="start")
    if not await _first(opening, stop):
        return 0
    server = opening.result()
    _settle()
    print(_ready_line(folder, server), flush=True)
    failed = await _first(server.failed, stop)
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


def _ready_line(folder: Path, server: Standalone) -> str:
    return f"SheafDB {__version__} standalone is ready: {server.uri} (data: {folder}, metrics: {server.metrics_uri})"
