"""An event loop on virtual time that runs several processes and can stop or end one of them.

Nothing waits: when nothing is ready the clock jumps to the next timer. A callback belongs to the
process that asked for it; those of a paused process are kept until it goes on, those of a dead one
are dropped. With the same seed the same callbacks run in the same order.
"""

import asyncio
import heapq
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any

EPOCH_S = 1_700_000_000
"""The wall clock at virtual time 0."""
THREAD_S = (0.0001, 0.02)
"""How long work on a thread takes: least and most."""
TASKS_MAX = 200
"""Of a process, those that are done included."""
LOOK_TURNS = 16
"""Turns between looks at what a run waits for."""


class Process:
    """What is paused, ends and is cut off as one. ``name`` is the node's, kept over restarts.

    look: called after each of its steps. woken_s: when it last was paused.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive, self.dying, self.paused = True, False, False
        self.look: Callable[[], None] | None = None
        self.woken_s = -1000.0
        self.backlog: list[Handle] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def __repr__(self) -> str:
        return self.name


WORLD = Process("world")
"""Of what is no process: stores, network, the schedule itself."""
CURRENT: ContextVar[Process] = ContextVar("process", default=WORLD)


class Handle:
    """One callback to come; an ``asyncio.TimerHandle`` in all that asyncio asks of it."""

    __slots__ = ("args", "callback", "context", "process", "when_s")

    def __init__(self, callback: Callable[..., object], args: Any, context: Context, when_s: float) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args, self.context, self.when_s = args, context, when_s
        self.process = context.get(CURRENT, WORLD)

    def cancel(self) -> None:
        self.callback = None

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.when_s


class VirtualLoop(asyncio.AbstractEventLoop):
    """failed: told of what nobody else catches."""

    def __init__(self, chance: random.Random, failed: Callable[[str], None]) -> None:
        self.now = 0.0
        self.steps = 0
        self.outside = Context()
        """For callbacks of no process."""
        self._chance, self._failed = chance, failed
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._order = count()

    # --- running -----------------------------------------------------------------------------
    def run(self, until: Callable[[], bool], deadline_s: float) -> bool:
        """Runs until the condition holds (asked as time passes) or the time is reached; whether it holds."""
        ready, timers, self._stopped = self._ready, self._timers, False
        for turn in count():
            while ready:
                self._step(ready.popleft())
            if self._stopped or (turn % LOOK_TURNS == 0 and until()):
                return until()
            if not timers or timers[0][0] > deadline_s:
                self.now = max(self.now, deadline_s)
                return until()
            self.now, _, handle = heapq.heappop(timers)
            if handle.callback is not None:
                ready.append(handle)
        raise AssertionError("time goes on")

    def stop(self) -> None:
        """``run`` returns soon."""
        self._stopped = True

    def _step(self, handle: Handle) -> None:
        callback, process = handle.callback, handle.process
        if callback is None or not process.alive:
            return
        if process.paused:
            process.backlog.append(handle)
            return
        self.steps += 1
        try:
            handle.context.run(callback, *handle.args)
        except Exception as e:  # as the real loop: the others go on
            self._failed(f"callback of {process} raised {e!r}")
        if process.look:
            process.look()

    # --- processes ---------------------------------------------------------------------------
    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of that process."""
        context = copy_context()
        context.run(CURRENT.set, process)
        return context.run(self.create_task, work)

    def resume(self, process: Process) -> None:
        """What came meanwhile happens now."""
        if process.paused:
            process.woken_s = self.now
        process.paused = False
        self._ready.extend(process.backlog)
        process.backlog.clear()

    def kill(self, process: Process) -> None:
        """Ends it between two callbacks. Its clean-up code runs, and reaches nobody."""
        process.dying = True
        self.resume(process)
        for task in process.tasks:
            task.cancel()
        while self._ready:
            self._step(self._ready.popleft())
        process.alive = False

    # --- asyncio.AbstractEventLoop: as much of it as asyncio's own primitives need ---------------
    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = Handle(callback, args, copy_context() if context is None else context, self.now)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = Handle(callback, args, copy_context() if context is None else context, when)
        heapq.heappush(self._timers, (max(when, self.now), next(self._order), handle))
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        process = (context or copy_context()).get(CURRENT, WORLD)
        process.tasks.append(task)
        if len(process.tasks) > TASKS_MAX:
            process.tasks = [t for t in process.tasks if not t.done()]
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Threads are short waits: the work is done at the end of one."""
        done = self.create_future()

        def run() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(func(*args))
            except Exception as e:
                done.set_exception(e)

        least, most = THREAD_S
        self.call_later(least + (most - least) * self._chance.random() ** 3, run)
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._failed(f"{context.get('message')}: {context.get('exception')!r}")


@contextmanager
def virtual_time(loop: VirtualLoop) -> Iterator[None]:
    """Inside, the loop is the running one, and Python's clocks show its time."""
    before = time.monotonic, time.time_ns, time.time
    running = asyncio._get_running_loop()
    hooks = sys.get_asyncgen_hooks()
    time.monotonic = lambda: loop.now
    time.time = lambda: EPOCH_S + loop.now
    time.time_ns = lambda: int((EPOCH_S + loop.now) * 1e9)
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(running)
        sys.set_asyncgen_hooks(*hooks)
        time.monotonic, time.time_ns, time.time = before
