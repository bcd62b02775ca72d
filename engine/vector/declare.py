"""Index types, metrics and parameters as Milvus declares them, and the checks on what a client sends.

Wordings are those of Milvus 2.5 (``pkg/util/indexparamcheck`` and knowhere's config checks), because
clients' test suites match on them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import IndexNotSupported, InvalidArgument, NotYet
from core.types import TYPES, DataType
from engine.vector.metric import METRICS, Metric

INT_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Parameter:
    """An integer parameter of an index type; both bounds are allowed values."""

    default: int
    min: int
    max: int


@dataclass(frozen=True, slots=True)
class IndexType:
    """One row of the table.

    vectors: vector types it indexes. build: parameters of the declaration. ef: takes ``ef`` at search.
    """

    vectors: frozenset[DataType]
    build: dict[str, Parameter] = field(default_factory=dict)
    ef: bool = False


# M and efConstruction of AUTOINDEX, and the defaults of HNSW: at 62,666 x 384 (docs/performance.md)
# recall@10 is 0.95 at ef=16 and 0.99 at ef=64; a larger M buys little there and costs 8 bytes a link.
_GRAPH = {"M": Parameter(16, 2, 2048), "efConstruction": Parameter(200, 1, INT_MAX)}
_FLOAT = frozenset({DataType.FLOAT_VECTOR})
_BINARY = frozenset({DataType.BINARY_VECTOR})

SERVED: dict[str, IndexType] = {
    "FLAT": IndexType(_FLOAT),
    "BIN_FLAT": IndexType(_BINARY),
    "HNSW": IndexType(_FLOAT, _GRAPH, ef=True),
    "AUTOINDEX": IndexType(_FLOAT | _BINARY, _GRAPH, ef=True),
}
"""Index types this version builds."""

KNOWN = frozenset({
    "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "IVF_RABITQ", "HNSW_SQ", "HNSW_PQ", "HNSW_PRQ", "DISKANN", "SCANN",
    "BIN_IVF_FLAT", "MINHASH_LSH", "GPU_IVF_FLAT", "GPU_IVF_PQ", "GPU_BRUTE_FORCE", "GPU_CAGRA",
    "SPARSE_INVERTED_INDEX", "SPARSE_WAND", "INVERTED", "BITMAP", "STL_SORT", "Trie", "NGRAM", "RTREE",
})  # fmt: skip
"""Index types of Milvus that this version does not build yet."""

EF_DEFAULT_MIN = 64
"""``ef`` of a search that names none is at least this."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A checked index declaration. ``params`` holds every build parameter, defaults filled in."""

    type: str
    metric: Metric
    params: dict[str, float | str]


def declare(data_type: DataType, dim: int, type: str, metric: str, params: Mapping[str, str]) -> Declaration:
    """Checks an index declaration. type "" = AUTOINDEX; metric "" = the vector type's default.

    params: as the client gave them; unknown ones are ignored, as Milvus does.
    Raises ``InvalidArgument``, ``IndexNotSupported`` (the type does not fit the field), ``NotYet``.
    """
    name = type or "AUTOINDEX"
    if name not in SERVED and name not in KNOWN:
        raise InvalidArgument(f"invalid index type: {type}")
    label = TYPES[data_type].label
    if name in KNOWN:
        raise NotYet(f"index type {name} is not served by this version yet: use one of {', '.join(sorted(SERVED))}")
    if not TYPES[data_type].vector:
        raise NotYet(f"an index on a field of type {label} is not served by this version yet: filters need none")
    if data_type not in METRICS:
        raise NotYet(f"an index on a field of type {label} is not served by this version yet")
    chosen = _metric(data_type, metric)
    row = SERVED[name]
    if data_type not in row.vectors:
        raise IndexNotSupported(f"data type {label} can't build with this index {name}: invalid parameter")
    if dim < 1:
        raise InvalidArgument(f"invalid dimension: {dim}. should be in range 1 ~ 32768")
    checked: dict[str, float | str] = {}
    if data_type is not DataType.BINARY_VECTOR:
        checked = {key: _integer(key, params.get(key), p) for key, p in row.build.items()}
    return Declaration(name, chosen, checked)


def _metric(data_type: DataType, metric: str) -> Metric:
    allowed = METRICS[data_type]
    if not metric:
        return allowed[0]
    if metric not in allowed:
        kind = "binary" if data_type is DataType.BINARY_VECTOR else "float"
        supported = " ".join(sorted(allowed, key=["L2", "IP", "COSINE", "HAMMING", "JACCARD"].index))
        raise InvalidArgument(
            f"{kind} vector index does not support metric type: {metric}: "
            "invalid parameter[expected=valid index params][actual=invalid index params]: "
            f"metric type not found or not supported, supported: [{supported}]"
        )
    return Metric(metric)


def _integer(key: str, text: str | None, parameter: Parameter) -> int:
    if text in (None, "", "None"):
        return parameter.default
    # Milvus tells a number of the wrong kind from something that is no number at all.
    if re.fullmatch(r"[+-]?\d+\.\d*", text):
        raise InvalidArgument(f"wrong data type in json: param '{key}' ({text}) should be integer")
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise InvalidArgument(f"invalid integer value, key: '{key}', value: '{text[:64]}': invalid parameter")
    return _in_range(key, int(text), parameter.min, parameter.max)


def _in_range(key: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise InvalidArgument(f"Out of range in json: param '{key}' ({value}) should be in range [{low}, {high}]")
    return value


def check_search_params(declaration_type: str, params: Mapping[str, Any], k: int) -> dict[str, float]:
    """The index parameters of a search, as numbers: {"ef": n} where the client gave a valid one.

    params: values of the request's JSON. k: rows wanted per query, offset included. Parameters
    of other index types are ignored, as Milvus does. Raises ``InvalidArgument``.
    """
    if "ef" not in params or not SERVED.get(declaration_type or "AUTOINDEX", SERVED["AUTOINDEX"]).ef:
        return {}
    value = params["ef"]
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        shown = {True: "true", False: "false", None: "null"}[value] if value in (True, False, None) else value
        raise InvalidArgument(f"Type conflict in json: param 'ef' ({shown!s:.64}) should be integer")
    _in_range("ef", value, 1, INT_MAX)
    if value < k:
        raise InvalidArgument(f"ef({value}) should be larger than k({k})")
    return {"ef": value}


def default_ef(k: int) -> int:
    """``ef`` of a search for ``k`` rows that names none: recall@k >= 0.97 on the measured set."""
    return max(EF_DEFAULT_MIN, k + k // 2)
