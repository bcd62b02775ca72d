"""The reply to a search: the shards' answers glued together and put on the wire."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from proxy.rows_out import write_column, write_floats, write_ids
from proxy.search_merge import Hits, merge, merge_groups
from proxy.search_pages import Page
from proxy.search_plan import SearchPlan
from proxy.wire import milvus, schema
from rpc.gathering import split
from rpc.reads import SearchReply

SCORES: int = schema.SearchResultData.DESCRIPTOR.fields_by_name["scores"].number


def glue(plan: SearchPlan, replies: list[SearchReply]) -> Hits:
    better = plan.metric.larger_is_better
    if plan.group_by:
        return merge_groups(replies, plan.limit, plan.offset, plan.group_size, better)
    return merge(replies, plan.limit, plan.offset, better)


def write_each(plan: SearchPlan, replies: Sequence[SearchReply], sizes: Sequence[int]) -> list[Any]:
    """The replies to several searches with one vector each, from each shard's answer to all of them; sizes: as in
    ``SearchRequest``."""
    each = zip(*(split(reply, sizes) for reply in replies), strict=True)
    return [write_reply(plan, 1, glue(plan, list(own))) for own in each]


def write_reply(plan: SearchPlan, nq: int, hits: Hits, page: Page | None = None) -> Any:
    scores = hits.scores
    if plan.round_decimal >= 0:
        scores = np.round(scores.astype(np.float64), plan.round_decimal)
    reply = milvus.SearchResults.FromString(plan.template)
    data = reply.results
    data.num_queries = nq
    data.topks.extend(hits.counts.tolist())
    data.all_search_count = len(scores)
    write_floats(scores, data, SCORES)
    write_ids(hits.rows.pks, data.ids)
    for field in plan.output.fields:
        column = hits.rows.pks if field.primary else hits.rows.columns[field.name]
        data.fields_data.append(write_column(field, column))
    if plan.group_by and hits.groups is not None:
        data.group_by_field_value.CopyFrom(write_column(plan.group_by, hits.groups))
    if page is not None:
        reply.session_ts = page.snapshot_ts
        if page.token:
            reply.results.search_iterator_v2_results.token = page.token
            reply.results.search_iterator_v2_results.last_bound = page.last_bound
    return reply
