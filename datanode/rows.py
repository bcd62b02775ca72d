"""From the records of a shard to the rows and kills that are left of them. Pure, vectorised.

The last record about a key decides (invariant 6): a row survives iff no later row or delete of
its key follows, in log order and, within one record, in row order. The kills that must reach older
segments are those of UPSERT and DELETE records; INSERT records hold keys that nothing older has.
"""

import json
from collections.abc import Collection as Members
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.ids import PartitionId
from core.schema import Schema
from datanode.state import Entry
from storage.record import DELETE, INSERT
from storage.segment_file import POSITION, TS

DELETED_KEY = "pk"
"""The only column of a DELETE record."""


@dataclass(frozen=True)
class Kills:
    """keys: unique, [n]; positions: int64 [n]. Older rows of each key are dead."""

    keys: pa.Array
    positions: np.ndarray

    def filter(self, mask: np.ndarray) -> "Kills":
        return Kills(self.keys.filter(pa.array(mask)), self.positions[mask])


@dataclass(frozen=True)
class Survivors:
    """Rows of one partition: ``table`` as buffered (schema fields, POSITION, TS), ``order`` the
    int64 numbers of the surviving ones in primary key order, unique keys."""

    table: pa.Table
    order: np.ndarray


@dataclass(frozen=True)
class Reduced:
    survivors: dict[PartitionId, Survivors]
    kills: Kills


def reduce(entries: Sequence[Entry], schema: Schema, partitions: Members[PartitionId]) -> Reduced:
    """What is left of the records. Rows of other partitions than ``partitions`` are dropped; that
    they were written still ends older rows of their keys.

    entries: in log order, at least one, each with a batch.
    """
    primary = schema.primary.name
    chunks, counts = [], []
    for e in entries:
        batch = e.record.batch
        assert batch is not None, "only records with rows or keys are buffered"
        chunks.append(batch.column(DELETED_KEY if e.record.kind == DELETE else primary))
        counts.append(batch.num_rows)
    encoded = pa.chunked_array(chunks, schema.primary.arrow_type).combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    # NumPy keeps the last of several values assigned to one place.
    last = np.empty(len(encoded.dictionary), np.int64)
    last[codes] = np.arange(len(codes))
    newest = last[codes] == np.arange(len(codes))
    positions = np.repeat(np.array([e.position for e in entries], np.int64), counts)
    kills = np.repeat(np.array([e.record.kind != INSERT for e in entries]), counts)
    ended = np.full(len(last), -1, np.int64)
    ended[codes[kills]] = positions[kills]
    killed = ended >= 0
    starts = np.concatenate([[0], np.cumsum(counts)])
    by_partition: dict[PartitionId, list[int]] = {}
    for n, e in enumerate(entries):
        if e.record.kind != DELETE and e.record.partition in partitions:
            by_partition.setdefault(e.record.partition, []).append(n)
    survivors = {}
    for partition, members in by_partition.items():
        alive = np.concatenate([newest[starts[n] : starts[n + 1]] for n in members])
        if alive.any():
            survivors[partition] = _survivors([entries[n] for n in members], alive, schema)
    return Reduced(survivors, Kills(encoded.dictionary.filter(pa.array(killed)), ended[killed]))


def newest_kills(parts: Sequence[tuple[pa.Array, np.ndarray]], key_type: pa.DataType) -> Kills:
    """The kills of several tombstone files as one: for each key the newest."""
    encoded = pa.chunked_array([keys for keys, _ in parts], key_type).combine_chunks().dictionary_encode()
    positions = np.concatenate([p for _, p in parts]) if parts else np.empty(0, np.int64)
    newest = np.full(len(encoded.dictionary), -1, np.int64)
    np.maximum.at(newest, encoded.indices.to_numpy(), positions)
    return Kills(encoded.dictionary, newest)


def dead_rows(keys: pa.Array, positions: np.ndarray, kills: Kills) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a segment are dead, and which kills did it: (bool [rows], bool [kills]).

    keys: unique, [rows]; positions: int64 [rows].
    """
    found = pc.call_function("index_in", [kills.keys], pc.SetLookupOptions(keys))
    hits = found.is_valid().to_numpy(zero_copy_only=False)
    rows = found.drop_null().to_numpy().astype(np.int64)
    older = positions[rows] < kills.positions[hits]
    dead = np.zeros(len(keys), np.bool_)
    dead[rows[older]] = True
    did = hits.copy()
    did[hits] = older
    return dead, did


def sorted_order(keys: pa.Array) -> np.ndarray:
    """int64 [n]: the row numbers in key order."""
    return pc.call_function("sort_indices", [keys]).to_numpy().astype(np.int64)


def _survivors(entries: Sequence[Entry], alive: np.ndarray, schema: Schema) -> Survivors:
    batches = [_conform(e.record.batch, schema) for e in entries]
    counts = [b.num_rows for b in batches]
    table = pa.Table.from_batches(batches, schema.arrow).combine_chunks()
    positions = np.repeat(np.array([e.position for e in entries], np.int64), counts)
    stamps = np.repeat(np.array([e.record.timestamp for e in entries], np.int64), counts)
    table = table.append_column(POSITION, pa.array(positions)).append_column(TS, pa.array(stamps))
    rows = np.flatnonzero(alive)
    keys = table.column(schema.primary.name).combine_chunks().take(pa.array(rows))
    return Survivors(table, rows[sorted_order(keys)])


def _conform(batch: pa.RecordBatch | None, schema: Schema) -> pa.RecordBatch:
    """A batch in the form of the present schema; fields added since are default or null."""
    assert batch is not None, "rows have a batch"
    if batch.schema.equals(schema.arrow):
        return batch
    columns = []
    for f in schema.fields:
        if f.name in batch.schema.names:
            columns.append(batch.column(f.name))
        elif f.default:
            columns.append(pa.repeat(pa.scalar(json.loads(f.default), f.arrow_type), batch.num_rows))
        else:
            columns.append(pa.nulls(batch.num_rows, f.arrow_type))
    return pa.RecordBatch.from_arrays(columns, schema=schema.arrow)
