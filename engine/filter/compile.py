"""``compile``: from text to a ``Filter`` that any segment can be asked with."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from core.errors import FilterError
from core.schema import Field, Schema
from engine.filter import prune
from engine.filter.batch import Batch
from engine.filter.evaluate import holds
from engine.filter.normal import fields
from engine.filter.tree import Constant, Predicate

if TYPE_CHECKING:
    from engine.filter.parse import Parsed

CACHED_FILTERS = 1024
CACHED_CHARACTERS = 4 * 1024 * 1024
"""Bounds of each cache: entries, and characters of their texts."""
LONG_CHARACTERS = CACHED_CHARACTERS // 16
"""Texts beyond this are not cached: a few would drive out all the others."""
HASHED_LENGTH = 256
"""Values of a list, characters of a string parameter up to which a filter is cached; comparing longer
ones costs as much as compiling."""
QUOTED_CHARACTERS = 2000
"""Characters of a filter that an error message repeats."""


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """A filter that fits one schema. Immutable; any thread may use it.

    text: the filter with every literal replaced by ``?``: safe to log, the same for the same question.
    fields: columns that ``mask`` reads; ``$meta`` for dynamic keys.
    keys: distinct primary keys (int64 or string) outside of which no row matches; None = unknown.
    keys_only: a row matches exactly if its primary key is in ``keys``.
    """

    text: str
    fields: frozenset[str]
    keys: pa.Array | None
    keys_only: bool
    tree: Predicate

    def mask(self, column: Callable[[str], pa.Array], rows: int) -> np.ndarray:
        """bool [rows]: the rows that match; false where the answer is unknown because of a null.

        column: gives a whole column of the segment, ``rows`` long, as one array; asked once per
        name in ``fields``. The result is the caller's to change.
        """
        return holds(self.tree, Batch(column, rows))

    def values(self, field: Field) -> pa.Array | None:
        """Distinct values of the field, of its Arrow type, outside of which no row matches; None = unknown."""
        return prune.values(self.tree, field)[0]

    def may_match(self, bounds: Mapping[str, tuple[Any, Any, int]]) -> bool:
        """False only if no row of a segment can match.

        bounds: (min, max, nulls) per field, of the field's Python type; min and max None where
        unknown; fields that are missing are unknown.
        """
        return prune.may_match(self.tree, bounds)


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Cache(Generic[K, V]):
    """Least recently used out first, bounded by entries and by the sum of their weights. Thread-safe."""

    def __init__(self) -> None:
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: K, value: V, weight: int) -> None:
        with self._lock:
            self._weight -= self._entries.pop(key, (None, 0))[1]
            self._entries[key] = (value, weight)
            self._weight += weight
            while self._weight > CACHED_CHARACTERS or len(self._entries) > CACHED_FILTERS:
                self._weight -= self._entries.popitem(last=False)[1][1]


_parsed: "_Cache[str, Parsed]" = _Cache()
_compiled: _Cache[tuple[Any, ...], tuple[Schema, Filter]] = _Cache()


def compile(text: str, schema: Schema, params: Mapping[str, Any] | None = None) -> Filter:
    """The filter that ``text`` means for rows of ``schema``.

    params: values of the ``{name}`` templates: bool, int, float, str, or a list (also NumPy or Arrow).
    Raises FilterError for anything wrong with the text, the types or the bounds of ``core.limits``,
    and NotYet for a function of Milvus that this version lacks.
    """
    values = _hashable(params or {})
    key = None if values is None or len(text) > LONG_CHARACTERS else (text, id(schema), values)
    if key is not None:
        found = _compiled.get(key)
        # The entry keeps its schema alive, so no other schema has its id.
        if found is not None:
            return found[1]
    try:
        result = _compile(text, schema, params or {})
    except FilterError as e:
        quoted = text if len(text) <= QUOTED_CHARACTERS else text[:QUOTED_CHARACTERS] + "..."
        raise FilterError(f"cannot parse expression: {quoted}, error: {e}") from None
    if key is not None:
        _compiled.put(key, (schema, result), len(text))
    return result


def _compile(text: str, schema: Schema, params: Mapping[str, Any]) -> Filter:
    # The parser's library takes 60 ms to import, which a server's start need not wait for.
    from engine.filter.check import check  # noqa: PLC0415  # as above
    from engine.filter.parse import parse  # noqa: PLC0415  # as above

    if not text.strip():
        return Filter("", frozenset(), None, False, Constant(True))
    parsed = _parsed.get(text)
    if parsed is None:
        parsed = parse(text)
        if len(text) <= LONG_CHARACTERS:
            _parsed.put(text, parsed, len(text))
    tree = check(parsed.tree, schema, params)
    keys, exact = prune.values(tree, schema.primary)
    return Filter(parsed.shape, fields(tree), keys, exact, tree)


def _hashable(params: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The parameters as part of a key; None where a long list makes the key too dear."""
    items: list[Any] = []
    for name, value in sorted(params.items()):
        parts = value if isinstance(value, list | tuple) else (value,)
        if len(parts) > HASHED_LENGTH or any(isinstance(p, str) and len(p) > HASHED_LENGTH for p in parts):
            return None
        if isinstance(value, bool | int | float | str):
            items.append((name, type(value), value))
        elif isinstance(value, list | tuple):
            items.append((name, list, tuple((type(v), v) for v in value)))
        else:
            return None
    try:
        hash(tuple(items))
    except TypeError:
        return None
    return tuple(items)
