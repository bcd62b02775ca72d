"""Searches that were asked before with another vector, known again by their bytes.

A program sends the same search over and over and changes the vector only. To take its message apart
and plan it costs half as much as the search itself; to see that all bytes around the vector are
those of an earlier message costs next to nothing.
"""

from typing import Generic, TypeVar

T = TypeVar("T")

SHAPES_MAX = 1024
REST_BYTES_MAX = 4096
"""Bounds of what is kept: a message with more than that besides its vector is planned anew each time."""
PLACES_MAX = 4
"""Places of a vector that are looked at in a message of some length."""
VECTOR_BYTES_MIN = 16
"""Shorter ones may well occur twice in a message."""


class Shapes(Generic[T]):
    """What is known of searches with one vector, by the rest of their messages. Any thread may use it."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[tuple[int, int], ...]] = {}
        """Where the vector was in messages of this length: its first byte, and the first byte after it."""
        self._known: dict[tuple[str, int, bytes], T] = {}

    def find(self, message: bytes, database: str) -> tuple[T, bytes] | None:
        """What is known of a message's like, and its vector's bytes; None for one that is not known.

        database: the one named beside the message.
        """
        for start, end in self._places.get(len(message), ()):
            known = self._known.get((database, start, message[:start] + message[end:]))
            if known is not None:
                return known, message[start:end]
        return None

    def remember(self, message: bytes, database: str, vector: bytes, known: T) -> None:
        """From now on messages that differ from this one in the bytes of its only vector are known."""
        rest_bytes = len(message) - len(vector)
        if rest_bytes > REST_BYTES_MAX or len(vector) < VECTOR_BYTES_MIN or message.count(vector) != 1:
            return
        start = message.index(vector)
        end = start + len(vector)
        if len(self._known) >= SHAPES_MAX:
            self._known, self._places = {}, {}
        self._known[database, start, message[:start] + message[end:]] = known
        places = self._places.get(len(message), ())
        if (start, end) not in places:
            self._places[len(message)] = ((start, end), *places)[:PLACES_MAX]
