"""Clients that call until they are stopped, with every call timed: what applications see of a fault."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from pymilvus import MilvusClient

PAUSE_S = 0.005
"""Between the calls of one client: the machine is to be busy, not to be full."""

Ask = Callable[[MilvusClient, int], None]
"""Makes the nth call of a client. Raises what the client raises, ``AssertionError`` when the answer is wrong."""


@dataclass(frozen=True)
class Call:
    """began, ended: ``time.monotonic()``. error: None when it was answered rightly."""

    began: float
    ended: float
    error: Exception | None

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Callers:
    """``with Callers(address, asks)``: one thread and one client, of default settings, per ask."""

    def __init__(self, address: str, asks: Sequence[Ask]) -> None:
        self._address = address
        self._calls: list[Call] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(ask,), name="caller") for ask in asks]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Returns when the last call is over. Idempotent."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def calls(self) -> list[Call]:
        """Those that are over."""
        return list(self._calls)

    @property
    def failed(self) -> list[Exception]:
        return [call.error for call in self.calls if call.error]

    @property
    def longest_s(self) -> float:
        return max((call.seconds for call in self.calls), default=0.0)

    def back_s(self, since: float) -> float | None:
        """Seconds from ``since`` to the first right answer to a call that began after it."""
        ends = [call.ended for call in self.calls if not call.error and call.began >= since]
        return min(ends) - since if ends else None

    def _run(self, ask: Ask) -> None:
        n = 0
        with closing(MilvusClient(f"http://{self._address}", dedicated=True)) as client:
            while not self._stopping.is_set():
                began, error = time.monotonic(), None
                try:
                    ask(client, n)
                except Exception as e:
                    error = e
                self._calls.append(Call(began, time.monotonic(), error))
                n += 1
                self._stopping.wait(PAUSE_S)
