"""Records of the log: a protobuf header around an Arrow body."""

from dataclasses import dataclass

import pyarrow as pa

from core.errors import Corrupted
from core.ids import CollectionId, PartitionId, ShardId
from core.varint import varint
from rpc.pb import record_pb2
from rpc.pb.record_pb2 import BARRIER, DELETE, INSERT, UPSERT

__all__ = ["BARRIER", "DELETE", "INSERT", "UPSERT", "Record", "decode", "encode"]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One log record. ``batch``: INSERT/UPSERT rows in schema form (``core.schema``), DELETE one
    column "pk", BARRIER None."""

    kind: record_pb2.Kind
    shard: ShardId
    partition: PartitionId
    schema_version: int
    timestamp: int
    batch: pa.RecordBatch | None


BODY_TAG = b"\x4a"
"""Field 9 of the message, as length-delimited bytes; it is the last one, so it can be appended."""


def encode(record: Record) -> bytes:
    head = record_pb2.Record(
        format=FORMAT,
        kind=record.kind,
        collection=record.shard.collection,
        shard=record.shard.number,
        partition=record.partition,
        schema_version=record.schema_version,
        timestamp=record.timestamp,
        rows=record.batch.num_rows if record.batch is not None else 0,
    ).SerializeToString()
    if record.batch is None:
        return head
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, record.batch.schema) as writer:
        writer.write_batch(record.batch)
    body = sink.getvalue()
    # Not through the message: protobuf would copy the body twice, at twice the cost of all the rest.
    return b"".join((head, BODY_TAG, varint(body.size), memoryview(body)))


def decode(payload: bytes) -> Record:
    """The record; column buffers point into ``payload`` where possible. Raises ``Corrupted``."""
    try:
        m = record_pb2.Record.FromString(payload)
        if m.format != FORMAT:
            raise ValueError(f"format {m.format}, this version reads {FORMAT}")
        batch = None
        if m.body:
            with pa.ipc.open_stream(pa.py_buffer(m.body)) as reader:
                batch = reader.read_next_batch()
    except Exception as e:
        raise Corrupted("log record", str(e)) from e
    shard = ShardId(CollectionId(m.collection), m.shard)
    return Record(m.kind, shard, PartitionId(m.partition), m.schema_version, m.timestamp, batch)
