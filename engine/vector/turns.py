"""Many readers or one writer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock held by many readers or one writer. A waiting writer goes before new readers, and the
    readers that waited for it go before the next writer, so neither starves. One writer at a time
    may wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False
        self._writer_waits = False
        self._readers_wait = 0
        self._owed = 0
        """Readers that waited for the last writer and have not had their turn."""

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Holds it with other readers."""
        with self._changed:
            if self._writing or self._writer_waits:
                self._wait_for_turn()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    def _wait_for_turn(self) -> None:
        self._readers_wait += 1
        self._changed.wait_for(lambda: not self._writing and (self._owed or not self._writer_waits))
        self._readers_wait -= 1
        self._owed = max(0, self._owed - 1)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds it alone."""
        with self._changed:
            self._writer_waits = True
            self._changed.wait_for(lambda: not self._writing and not self._readers and not self._owed)
            self._writer_waits, self._writing = False, True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._owed = self._readers_wait
                self._changed.notify_all()
