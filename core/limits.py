"""Every bound on input in one place, with the value Milvus documents unless the line says why not."""

NAME_LENGTH_MAX = 255
FIELDS_MAX = 64
VECTOR_FIELDS_MAX = 10
SHARDS_MAX = 16
PARTITIONS_MAX = 1024
DIM_MAX = 32_768
BINARY_DIM_MAX = 262_144
VARCHAR_LENGTH_MAX = 65_535
ARRAY_CAPACITY_MAX = 4_096
JSON_BYTES_MAX = 65_536
JSON_DEPTH_MAX = 64
"""Ours: deeper documents cost a parser's stack and no caller needs them."""
TOPK_MAX = 16_384
NQ_MAX = 16_384
RESULT_WINDOW_MAX = 16_384
"""offset + limit of a search or query."""
RESULT_ENTRIES_MAX = 10_000_000
"""nq * (offset + limit) of a search. Ours: what fits a reply message and bounds a search's memory."""
GROUP_SIZE_MAX = 10
FILTER_LENGTH_MAX = 1_048_576
"""Characters of a filter. Ours: a bound that keeps parsing well under a second."""
FILTER_DEPTH_MAX = 200
"""Nesting of a filter. Ours: below Python's recursion limit with room to spare."""
FILTER_TERMS_MAX = 20_000
"""Nodes of a filter's tree, values in ``in [...]`` lists not counted."""
FILTER_PATTERN_MAX = 1_000
"""Characters of a ``like`` pattern with wildcards within. Ours: twice that takes seconds per long string."""
MESSAGE_BYTES_MAX = 256 * 1024 * 1024
"""One gRPC message, either way."""
INSERT_BYTES_MAX = 128 * 1024 * 1024
"""Payload of one insert or upsert."""
PROPERTIES_MAX = 64
