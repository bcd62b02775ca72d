"""One hash of a key, the same on every machine and for ever: shards, partitions and bloom filters use it."""

import numpy as np
import pyarrow as pa
import xxhash


def hash_keys(keys: pa.Array) -> np.ndarray:
    """uint64 [n]: splitmix64 of an int64 key, xxh3-64 of the UTF-8 bytes of a string key."""
    if pa.types.is_int64(keys.type):
        with np.errstate(over="ignore"):
            z = keys.to_numpy(zero_copy_only=False).astype(np.int64, copy=False).view(np.uint64)
            z = z + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return z ^ (z >> np.uint64(31))
    # map() over a C function: no Python frame per key.
    return np.fromiter(map(xxhash.xxh3_64_intdigest, keys.cast(pa.binary()).to_pylist()), np.uint64, len(keys))


def shard_of(keys: pa.Array, shards: int) -> np.ndarray:
    """int64 [n]: the shard number of each key."""
    if shards == 1:
        return np.zeros(len(keys), np.int64)
    return (hash_keys(keys) % np.uint64(shards)).astype(np.int64)


def partition_of(keys: pa.Array, partitions: int) -> np.ndarray:
    """int64 [n]: the place of each partition key's partition; null lies with 0 or the empty string."""
    if keys.null_count:
        keys = keys.fill_null("" if pa.types.is_string(keys.type) else 0)
    return (hash_keys(keys) % np.uint64(partitions)).astype(np.int64)
