"""A search prepared once per view of its shard, and found again for as long as that view is the newest."""

import weakref
from collections.abc import Callable

from rpc.reads import PreparedSearch, SearchRequest
from rpc.roles import QueryNode


class Newest:
    """The search of one shape at one node. The view owns what is prepared; here it is referred to weakly,
    so that a search nobody uses any more keeps no outdated view alive.

    request: what is searched, but for the queries. Any thread may use it where any may use the node.
    """

    def __init__(self, node: QueryNode, request: Callable[[], SearchRequest]) -> None:
        self._node, self._request = node, request
        self._prepared: weakref.ref[PreparedSearch] | None = None

    def find(self) -> PreparedSearch | None:
        """One that may be run now; None when the node has to be asked."""
        prepared = self._prepared() if self._prepared else None
        if prepared is not None and prepared.holds:
            return prepared
        prepared = self._node.prepare(self._request())
        if prepared is not None:
            prepared.keep()
            self._prepared = weakref.ref(prepared)
        return prepared
