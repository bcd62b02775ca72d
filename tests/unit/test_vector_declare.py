"""Index declarations and search parameters, with the wordings Milvus's own suite matches on."""

import pytest

from core.errors import IndexNotSupported, InvalidArgument, NotYet
from core.types import DataType
from engine.vector.declare import KNOWN, check_search_params, declare
from engine.vector.metric import Metric

FLOAT, BINARY = DataType.FLOAT_VECTOR, DataType.BINARY_VECTOR


@pytest.mark.parametrize("type", ["", "AUTOINDEX", "HNSW", "FLAT"])
def test_a_float_vector_defaults_to_cosine(type: str) -> None:
    declared = declare(FLOAT, 8, type, "", {})
    assert declared.metric is Metric.COSINE
    assert declared.type == (type or "AUTOINDEX")


@pytest.mark.parametrize("type", ["", "AUTOINDEX", "BIN_FLAT"])
def test_a_binary_vector_defaults_to_hamming(type: str) -> None:
    assert declare(BINARY, 8, type, "", {}).metric is Metric.HAMMING


def test_build_parameters_come_as_strings_and_have_defaults() -> None:
    assert declare(FLOAT, 8, "HNSW", "L2", {"M": "30", "other": "x"}).params == {"M": 30, "efConstruction": 200}


@pytest.mark.parametrize(
    ("data_type", "type", "metric", "params", "error", "text"),
    [
        (FLOAT, "NOSUCH", "L2", {}, InvalidArgument, "invalid index type: NOSUCH"),
        (FLOAT, "hnsw", "L2", {}, InvalidArgument, "invalid index type: hnsw"),
        (FLOAT, "IVF_FLAT", "L2", {}, NotYet, "IVF_FLAT"),
        (FLOAT, "HNSW", "WRONG", {}, InvalidArgument, "float vector index does not support metric type: WRONG"),
        (FLOAT, "HNSW", "WRONG", {}, InvalidArgument, "not found or not supported, supported: [L2 IP COSINE]"),
        (FLOAT, "FLAT", "HAMMING", {}, InvalidArgument, "float vector index does not support metric type: HAMMING"),
        (BINARY, "BIN_FLAT", "L2", {}, InvalidArgument, "binary vector index does not support metric type: L2"),
        (BINARY, "HNSW", "JACCARD", {}, IndexNotSupported, "data type BinaryVector can't build with this index HNSW"),
        (FLOAT, "BIN_FLAT", "", {}, IndexNotSupported, "data type FloatVector can't build with this index BIN_FLAT"),
        (DataType.INT64, "AUTOINDEX", "", {}, NotYet, "Int64"),
        (DataType.SPARSE_FLOAT_VECTOR, "AUTOINDEX", "IP", {}, NotYet, "SparseFloatVector"),
        (FLOAT, "HNSW", "", {"M": "1"}, InvalidArgument, "param 'M' (1) should be in range [2, 2048]"),
        (FLOAT, "HNSW", "", {"M": "2049"}, InvalidArgument, "param 'M' (2049) should be in range [2, 2048]"),
        (FLOAT, "HNSW", "", {"efConstruction": "-1"}, InvalidArgument, "(-1) should be in range [1, 2147483647]"),
        (FLOAT, "HNSW", "", {"M": "16.0"}, InvalidArgument, "wrong data type in json"),
        (FLOAT, "HNSW", "", {"M": "True"}, InvalidArgument, "invalid integer value, key: 'M', value: 'True'"),
        (FLOAT, "HNSW", "", {"M": "[16]"}, InvalidArgument, "invalid integer value, key: 'M', value: '[16]'"),
        (FLOAT, "HNSW", "", {"M": "9" * 4000}, InvalidArgument, "invalid integer value, key: 'M'"),
    ],
)
def test_what_cannot_be_declared(
    data_type: DataType, type: str, metric: str, params: dict[str, str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        declare(data_type, 8, type, metric, params)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("type", sorted(KNOWN))
def test_types_of_later_versions_are_named(type: str) -> None:
    with pytest.raises(NotYet, match=type):
        declare(FLOAT, 8, type, "", {})


def test_ef() -> None:
    assert check_search_params("HNSW", {"ef": 64, "nprobe": 3}, 10) == {"ef": 64}
    assert check_search_params("AUTOINDEX", {"ef": "32"}, 10) == {"ef": 32}
    assert check_search_params("", {"ef": 10}, 10) == {"ef": 10}
    assert check_search_params("HNSW", {}, 10) == {}
    assert check_search_params("FLAT", {"ef": "nonsense"}, 10) == {}


@pytest.mark.parametrize(
    ("ef", "text"),
    [
        (1, "ef(1) should be larger than k(10)"),
        (-1, "param 'ef' (-1) should be in range [1, 2147483647]"),
        (2**40, "should be in range [1, 2147483647]"),
        (32.0, "Type conflict in json: param 'ef' (32.0) should be integer"),
        (True, "Type conflict in json: param 'ef' (true) should be integer"),
        (None, "Type conflict in json: param 'ef' (null) should be integer"),
        ([32], "param 'ef' ([32]) should be integer"),
        ({"a": 1}, "should be integer"),
        ("x" * 9999, "should be integer"),
    ],
)
def test_wrong_ef(ef: object, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_search_params("HNSW", {"ef": ef}, 10)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 200
