"""Reads of a collection with a partition key go only to the partitions that its filter leaves."""

import pyarrow as pa
import pytest

from core.catalog import Collection, Partition, Shard
from core.hashing import partition_of
from core.ids import Channel, CollectionId, FieldId, PartitionId
from core.schema import Field, Schema
from core.types import DataType
from engine.filter import compile as compile_filter
from proxy.partition_pruning import narrowed

PARTITIONS = 16
N = Field(FieldId(101), "n", DataType.INT64)


def collection(type: DataType, *, keyed: bool = True) -> Collection:
    tenant = Field(FieldId(102), "tenant", type, max_length=20, partition_key=keyed, nullable=True)
    schema = Schema((Field(FieldId(100), "id", DataType.INT64, primary=True), N, tenant))
    partitions = tuple(Partition(PartitionId(10 + i), f"_default_{i}", 0) for i in range(PARTITIONS))
    return Collection(CollectionId(1), "default", "c", schema, (Shard(0, Channel(0)),), partitions)


def read(text: str, type: DataType = DataType.INT64, *, keyed: bool = True) -> set[int]:
    """Places of the partitions read, of all of them."""
    c = collection(type, keyed=keyed)
    filter = compile_filter(text, c.schema, {"some": [3, 4]}) if text else None
    return {int(p) - 10 for p in narrowed(c, tuple(p.id for p in c.partitions), filter)}


def places(*keys: int | str) -> set[int]:
    return set(partition_of(pa.array(keys), PARTITIONS).tolist())


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("tenant == 7", [7]),
        ("7 == tenant and n > 3", [7]),
        ("tenant in [1, 2, 3] and not (n in [1])", [1, 2, 3]),
        ("tenant in {some}", [3, 4]),
        ("tenant == 1 or (tenant == 2 and n == 3)", [1, 2]),
        ("tenant in [1, 2] and tenant in [2, 3]", [2]),
    ],
)
def test_only_the_partitions_of_the_keys_it_names_are_read(text: str, keys: list[int]) -> None:
    assert read(text) == places(*keys) < set(range(PARTITIONS))


def test_keys_of_text() -> None:
    assert read("tenant in ['acme', 'é', '']", DataType.VARCHAR) == places("acme", "é", "")


@pytest.mark.parametrize(
    "text",
    ["", "n == 7", "tenant != 7", "tenant > 7", "tenant == 7 or n == 1", "tenant is null", "not (tenant == 7)"],
)
def test_all_partitions_are_read_where_any_key_may_match(text: str) -> None:
    assert read(text) == set(range(PARTITIONS))


def test_without_a_partition_key_a_filter_says_nothing_of_partitions() -> None:
    assert read("tenant == 7", keyed=False) == set(range(PARTITIONS))


def test_a_filter_that_nothing_passes_still_names_a_partition() -> None:
    assert len(read("tenant in [1] and tenant in [2]")) == 1
    c = collection(DataType.INT64)
    other = next(p.id for p in c.partitions if int(p.id) - 10 not in places(7))
    assert narrowed(c, (other,), compile_filter("tenant == 7", c.schema)) == (other,)


def test_null_lies_where_rows_without_a_key_are_written() -> None:
    assert partition_of(pa.array([None, 0]), PARTITIONS).tolist() == [*places(0)] * 2
    assert partition_of(pa.array([None, ""]), PARTITIONS).tolist() == [*places("")] * 2
