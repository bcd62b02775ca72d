"""A search prepared once per view of its shard, and found again for as long as that view is the newest."""

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

KEPT_MAX = 1024
KEY_BYTES_MAX = 4096
"""Bounds of what is found again: searches with longer filters are prepared each time."""


class Prepared(Protocol):
    """What is over one view."""

    def keep(self) -> None:
        """The view holds it from now on, for as long as it is the newest, or until others take its place: whoever
        wants to run it again refers to it weakly, and so keeps no outdated view alive."""
        ...

    @property
    def holds(self) -> bool:
        """Whether the view is still the newest, and as fresh as the request wants it."""
        ...


P = TypeVar("P", bound=Prepared)


class Newest(Generic[P]):
    """The search of one shape at one node. The view owns what is prepared; here it is referred to weakly,
    so that a search nobody uses any more keeps no outdated view alive.

    prepare: gives one, or None when the node has to be asked. Any thread may use it where any may prepare.
    """

    def __init__(self, prepare: Callable[[], P | None]) -> None:
        self._prepare = prepare
        self._prepared: weakref.ref[P] | None = None

    def find(self) -> P | None:
        """One that may be run now; None when the node has to be asked."""
        prepared = self._prepared() if self._prepared else None
        if prepared is not None and prepared.holds:
            return prepared
        prepared = self._prepare()
        if prepared is not None:
            prepared.keep()
            self._prepared = weakref.ref(prepared)
        return prepared


class Known(Generic[P]):
    """What was prepared, by the bytes that asked for it; those asked for last. One thread only."""

    def __init__(self, prepare: Callable[[bytes], P | None]) -> None:
        self._prepare = prepare
        self._found: OrderedDict[bytes, Newest[P]] = OrderedDict()

    def find(self, key: bytes) -> P | None:
        """As ``Newest.find``."""
        newest = self._found.get(key)
        if newest is None:
            if len(key) > KEY_BYTES_MAX:
                return self._prepare(key)
            newest = self._found[key] = Newest(lambda: self._prepare(key))
            if len(self._found) > KEPT_MAX:
                self._found.popitem(last=False)
        else:
            self._found.move_to_end(key)
        return newest.find()
