"""Starts again what died, as Kubernetes would: at once, then with pauses that double."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.errors import SheafError
from sheafdb.cluster.role_process import RoleProcess
from sheafdb.servers.process import LocalServer

LOOK_S = 0.1
PAUSE_S = 0.5
PAUSE_MOST_S = 15.0
STEADY_S = 60.0
"""A process that lived this long starts over with the shortest pause."""


@dataclass(slots=True)
class _Kept:
    process: RoleProcess | LocalServer
    pause_s: float = 0.0
    began: float = 0.0
    restart: asyncio.Task[None] | None = None


class Keeper:
    """Watches processes from ``run`` until that is cancelled. ``say`` gets a line for each death and return."""

    def __init__(self, processes: Iterable[RoleProcess | LocalServer], say: Callable[[str], None]) -> None:
        self._kept = [_Kept(p, began=time.monotonic()) for p in processes]
        self._say = say

    async def run(self) -> None:
        try:
            while True:
                for kept in self._kept:
                    if kept.restart is not None and kept.restart.done():
                        kept.restart = None
                    if kept.restart is None and not kept.process.alive:
                        kept.restart = asyncio.create_task(self._bring_back(kept))
                await asyncio.sleep(LOOK_S)
        finally:
            restarts = [kept.restart for kept in self._kept if kept.restart is not None]
            for restart in restarts:
                restart.cancel()
            await asyncio.gather(*restarts, return_exceptions=True)

    async def _bring_back(self, kept: _Kept) -> None:
        process = kept.process
        if time.monotonic() - kept.began > STEADY_S:
            kept.pause_s = 0.0
        self._say(f"{process.name} died ({_reason(process.child.exit_code)}), starts again in {kept.pause_s:g} s")
        await asyncio.sleep(kept.pause_s)
        kept.pause_s = min(max(PAUSE_S, kept.pause_s * 2), PAUSE_MOST_S)
        kept.began = time.monotonic()
        try:
            await process.start_again()
        except (SheafError, OSError) as e:
            self._say(f"{process.name} is not back: {e}")
        else:
            self._say(f"{process.name} is back after {time.monotonic() - kept.began:.1f} s (pid {process.pid})")


def _reason(exit_code: int | None) -> str:
    return f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
