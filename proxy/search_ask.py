"""What a search asks of each shard."""

import math
from dataclasses import dataclass

import numpy as np

from core.catalog import Consistency
from proxy.search_plan import SearchPlan
from rpc.reads import SearchRequest


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of a search that differs between the pages of an iterator."""

    level: Consistency
    snapshot_ts: int
    k: int
    near: float | None


def shard_request(
    plan: SearchPlan,
    queries: np.ndarray,
    scope: Scope,
    deadline: float = math.inf,
    *,
    shard: int,
    sizes: tuple[int, ...] = (),
) -> SearchRequest:
    return SearchRequest(
        plan.collection.id,
        shard,
        plan.partitions,
        plan.filter,
        plan.filter_params,
        plan.output.fetch,
        scope.level,
        scope.snapshot_ts,
        deadline,
        field_id=plan.field.id,
        queries=queries,
        metric=plan.metric,
        k=scope.k,
        params=plan.params,
        radius=plan.far,
        range_filter=scope.near,
        group_by=plan.group_by.name if plan.group_by else "",
        group_size=plan.group_size,
        sizes=sizes,
    )
