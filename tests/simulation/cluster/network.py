"""Who reaches whom, and when: every message of the cluster takes its chances here.

A request may be late, lost, or carried out with its reply lost. A cut link loses both; the caller
learns of it after a while, as a lost connection is noticed, and can't tell the one from the other.
"""

import asyncio
import random
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from core.errors import SheafError, Unavailable
from tests.simulation.cluster.loop import CURRENT, Process, VirtualLoop

T = TypeVar("T")

META, LOG, OBJECTS = "meta", "log", "objects"
STORES = (META, LOG, OBJECTS)
NOTICE_S = (0.05, 3.0)
"""Until a caller gives a lost message up: least and most."""
GIVE_UP_S = 8.0
"""Longest wait for a node that is there and does not answer."""


class Network:
    """Links by the names of their two ends. lost: chance of a message to be lost on a good link.
    slow: chance of one to be late."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self.loop, self._chance = loop, chance
        self.lost = self.slow = 0.0
        self._cuts: dict[tuple[str, str], int] = {}
        self.cut_s: dict[str, float] = {}
        """When a link of that name was last cut or healed."""
        self.ambush: Callable[[Process, str], bool] | None = None
        """Asked before each message to a store; may stop the sender. Whether it is to be before the message leaves."""
        self._healed: list[asyncio.Future[None]] = []

    # --- links -------------------------------------------------------------------------------
    def cut(self, a: str, b: str) -> None:
        self._cuts[a, b] = self._cuts.get((a, b), 0) + 1
        self.cut_s[a] = self.cut_s[b] = self.loop.now

    def heal(self, a: str, b: str) -> None:
        self._cuts[a, b] -= 1
        self.cut_s[a] = self.cut_s[b] = self.loop.now
        if not self._cuts[a, b]:
            del self._cuts[a, b]
            self._wake()

    def heal_all(self) -> None:
        """And nothing is lost or late from now on."""
        for pair in self._cuts:
            self.cut_s.update(dict.fromkeys(pair, self.loop.now))
        self._cuts.clear()
        self.lost = self.slow = 0.0
        self._wake()

    def reaches(self, a: str, b: str) -> bool:
        return (a, b) not in self._cuts and (b, a) not in self._cuts

    def _wake(self) -> None:
        waiting, self._healed = self._healed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until_reached(self, process: Process, service: str) -> None:
        while not self.reaches(process.name, service):
            healed = self.loop.create_future()
            self._healed.append(healed)
            await healed

    def delay(self) -> float:
        if self._chance.random() < self.slow:
            return self._chance.uniform(0.05, 1.0)
        return self._chance.uniform(0.0002, 0.004)

    def deliver(self, told: asyncio.Future[None]) -> None:
        """Tells who waits, some time later."""

        def tell() -> None:
            if not told.done():
                told.set_result(None)

        self._at(self.delay(), tell)

    # --- calls -------------------------------------------------------------------------------
    async def call(self, service: str, work: Callable[[], T]) -> T:
        """Has a store do something at one moment between now and the answer."""
        process = CURRENT.get()
        if process.dying:
            raise Unavailable("this process has ended")
        if self.ambush and self.ambush(process, service):
            await asyncio.sleep(0)  # paused: it sends once it is woken
        answer: asyncio.Future[T] = self.loop.create_future()
        self._at(self.delay(), self._arrive, process, service, work, answer)
        return await answer

    def _at(self, delay_s: float, callback: Callable[..., None], *args: Any) -> None:
        self.loop.call_later(delay_s, callback, *args, context=self.loop.outside)

    def _arrive(self, process: Process, service: str, work: Callable[[], T], answer: asyncio.Future[T]) -> None:
        if not self._passes(process.name, service):
            self._give_up(service, answer)
            return
        context = copy_context()
        context.run(CURRENT.set, process)  # stores ask who does it
        try:
            result, error = context.run(work), None
        except SheafError as e:
            result, error = None, e
        if process.alive:
            self._at(self.delay(), self._reply, process, service, answer, result, error)

    def _reply(self, process: Process, service: str, answer: asyncio.Future[Any], result: Any, error: Any) -> None:
        if not self._passes(process.name, service):
            self._give_up(service, answer)
        elif not answer.done():
            answer.set_exception(error) if error else answer.set_result(result)

    def _passes(self, a: str, b: str) -> bool:
        return self.reaches(a, b) and not (self.lost and self._chance.random() < self.lost)

    def _give_up(self, service: str, answer: asyncio.Future[Any]) -> None:
        def fail() -> None:
            if not answer.done():
                answer.set_exception(Unavailable(f"{service} does not answer"))

        least, most = NOTICE_S
        self._at(least + (most - least) * self._chance.random() ** 2, fail)

    async def ask(self, process: Process | None, work: Callable[[], Any]) -> Any:
        """Has another process run a coroutine, and answers what it does."""
        caller, answer = CURRENT.get(), self.loop.create_future()
        if caller.dying:
            raise Unavailable("this process has ended")
        if process is None:
            await asyncio.sleep(self.delay())
            raise Unavailable("the node is not there")

        async def serve() -> None:
            try:
                result, error = await work(), None
            except Exception as e:
                result, error = None, e
            self._at(self.delay(), self._reply, caller, process.name, answer, result, error)

        def arrive() -> None:
            if process.alive and self._passes(caller.name, process.name):
                self.loop.spawn(process, serve())
            else:
                self._give_up(process.name, answer)

        def late() -> None:
            if not answer.done():
                answer.set_exception(Unavailable(f"{process} did not answer in {GIVE_UP_S} s"))

        self._at(self.delay(), arrive)
        self._at(GIVE_UP_S, late)
        return await answer
