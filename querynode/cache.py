"""What can be computed again, kept up to a number of bytes: decoded columns, filter masks."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class ByteCache(Generic[V]):
    """Least recently used out first. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> V | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Hashable, value: V) -> bool:
        """Keeps a value, unless it alone would take over a quarter of the room; whether it did."""
        if value.nbytes > self.bytes_max // 4:
            return False
        with self._lock:
            old = self._values.pop(key, None)
            self.bytes += value.nbytes - (old.nbytes if old is not None else 0)
            self._values[key] = value
            while self.bytes > self.bytes_max:
                _, evicted = self._values.popitem(last=False)
                self.bytes -= evicted.nbytes
        return True
