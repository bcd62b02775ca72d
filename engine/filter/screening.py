"""Which documents can't match, told from their text: that takes a tenth of the time of parsing them.

A string within JSON stands there as it is, between quotes, or it is written with an escape. So text
that holds neither the quoted string nor a backslash doesn't hold the string, whoever wrote it.
"""

import numpy as np

from engine.filter.batch import Batch, as_bool
from engine.filter.kernels import pc
from engine.filter.tree import Compare, Literal, Path, PathIn, Predicate

STRINGS_MAX = 4
"""Strings looked for; each costs a pass over the text."""
SHARE_MAX = 0.5
"""Where more of the rows than this are left, all are parsed, once for all tests."""


def candidates(test: Predicate, batch: Batch) -> np.ndarray | None:
    """int64, ascending: rows outside of which the test is not true; None = that would spare nothing."""
    match test:
        case Compare("==", Path(name), Literal(str() as wanted)):
            strings = frozenset({wanted})
        case PathIn(Path(name), strings, types) if types == {str} and len(strings) <= STRINGS_MAX:
            pass
        case _:
            return None
    if batch.parsed(name):
        return None
    text = batch.column(name)
    found = as_bool(pc.match_substring(text, "\\"))
    for string in strings:
        found |= as_bool(pc.match_substring(text, f'"{string}"'))
    rows = np.flatnonzero(found)
    return rows if len(rows) <= SHARE_MAX * batch.rows else None
