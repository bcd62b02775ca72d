"""When to walk the graph and when to scan: costs of the two, and how wide to walk under a filter.

Costs are in multiply-adds of one query, at about 0.085 ns each. The constants are a fit to HNSW (M=16,
float32 and bf16, one thread, faiss 1.15) at 8 to 384 dimensions, among them 62,666 x 384 real
embeddings, where a walk took 1.7 us per unit of ``ef``, a filtered scan 50 ns per scored row and
1.8 ns per row passed over (docs/performance.md).

A walk is never steered by the filter. It collects the ``ef`` nearest rows of the whole segment and
keeps those the filter allows: if at least k are left, they are the k nearest allowed rows as surely
as an unfiltered search finds its own. If fewer are left (the filter favours rows far from the
query), the walk is widened, or the allowed rows are scanned. Handing the bitmap to the walk costs
the same and gives k rows always, but on filters that correlate with the vectors (one section of
the Debian archive, say) its recall fell to 0.68 to 0.85, and nothing in the answer showed it.
"""

WALK_PER_EF = 7000, 34
"""A walk per unit of ``ef``: fixed, and per dimension."""
SCORE = 20
"""A scan per scored row, besides its dimensions."""
PICK = 210
"""A filtered scan per scored row, besides its dimensions: the branch is mispredicted, the next row not prefetched."""
SKIP = 21
"""A filtered scan per row of the segment."""
GATHER_SHARE = 64
"""A scan of bf16 codes for fewer than one row in this many copies them together first."""
MARGIN = 1.5
"""How many times the expected number of allowed rows a filtered walk collects; at random filters
93 % of queries then need no second look."""
WIDEN = 4
"""Factor by which a walk that found too few is widened."""


def scan_cost(rows: int, survivors: int, dim: int) -> int:
    """Scoring ``survivors`` of ``rows`` rows."""
    if survivors == rows:
        return rows * (dim + SCORE)
    return survivors * (dim + PICK) + rows * SKIP


def walk_cost(ef: int, dim: int) -> int:
    """A walk that keeps the ``ef`` nearest."""
    fixed, per_dim = WALK_PER_EF
    return ef * (fixed + per_dim * dim)


def walk_pays(rows: int, survivors: int, ef: int, dim: int) -> bool:
    """Whether the walk is cheaper than scanning the survivors."""
    return walk_cost(ef, dim) < scan_cost(rows, survivors, dim)


def filtered_ef(rows: int, survivors: int, k: int, ef: int) -> int:
    """How many nearest rows to collect so that ``k`` survivors are likely among them."""
    return max(ef, int(MARGIN * k * rows / survivors) + 1)
