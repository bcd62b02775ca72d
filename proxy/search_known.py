"""Searches whose like was answered before: everything but the vector is known, and those alike are taken together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from core.catalog import Consistency
from proxy.call import Call
from proxy.query_vectors import as_matrix
from proxy.search_plan import SearchPlan
from proxy.search_shapes import Shapes
from rpc.gathering import K_MAX, most_together
from storage.catalog import Catalog

LEVELS = frozenset({Consistency.BOUNDED, Consistency.EVENTUALLY})
"""Levels that most often need no wait."""


class Alike(NamedTuple):
    """Searches that differ in their vectors only. numbers: of their calls; vectors: the bytes of each one's."""

    plan: SearchPlan
    level: Consistency
    numbers: list[int]
    vectors: list[bytes]

    @property
    def sizes(self) -> tuple[int, ...]:
        """As in ``SearchRequest``."""
        return (1,) * len(self.numbers) if len(self.numbers) > 1 else ()

    def queries(self) -> np.ndarray:
        """Raises ``InvalidArgument`` when one of them can't be searched for."""
        return as_matrix(b"".join(self.vectors), len(self.vectors), self.plan.field)


class KnownSearches:
    """Searches with one vector, without groups. Any thread may use it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._shapes: Shapes[tuple[SearchPlan, Consistency]] = Shapes()

    def remember(self, plan: SearchPlan, level: Consistency, queries: np.ndarray, call: Call) -> None:
        """Takes note of a request that is being answered: from now on those like it are known."""
        if len(queries) == 1 and level in LEVELS and not (plan.filter_params or plan.group_by) and plan.k <= K_MAX:
            self._shapes.remember(call.message, call.named_database, queries.tobytes(), (plan, level))

    def alike(self, calls: Sequence[Call]) -> list[Alike]:
        """The known ones among these, in groups that can go as one; those by range alone, as one of them may have
        to look much further than the others."""
        groups: list[Alike] = []
        last: dict[int, Alike] = {}
        for number, call in enumerate(calls):
            found = self._shapes.find(call.message, call.named_database)
            if found is None:
                continue
            (plan, level), vector = found
            # A collection value is replaced when anything about it changes, so identity is enough.
            if self._catalog.get(plan.collection.id) is not plan.collection:
                continue
            group = last.get(id(plan))
            apart = plan.near is not None or plan.far is not None
            if group is None or apart or len(group.numbers) == most_together(plan.k):
                group = last[id(plan)] = Alike(plan, level, [], [])
                groups.append(group)
            group.numbers.append(number)
            group.vectors.append(vector)
        return groups
