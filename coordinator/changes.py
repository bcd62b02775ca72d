"""DDL as pure functions: (change, what the store has) -> conditions and writes of one commit.

The service commits a decision only if everything it was made from still holds, and decides again
otherwise. So each function may believe what it is given. Wordings are Milvus's: clients' test
suites match on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from coordinator.placement import RoleNodes, place
from core.catalog import DEFAULT_DATABASE, DEFAULT_PARTITION, Collection, Index, Partition, Shard
from core.errors import (
    CollectionNotFound,
    DatabaseNotFound,
    IndexNotFound,
    InvalidArgument,
    PartitionNotFound,
    Refused,
)
from core.ids import Channel, CollectionId, FieldId, IndexId, NodeId, PartitionId, Position, Revision, ShardId
from core.limits import FIELDS_MAX, PARTITIONS_MAX, SHARDS_MAX, VECTOR_FIELDS_MAX
from core.manifest import Manifest
from core.schema import FIRST_FIELD_ID, Schema
from engine.vector.declare import declare
from rpc.roles import (
    CatalogChange,
    CreateCollection,
    CreateIndex,
    CreatePartition,
    DropCollection,
    DropIndex,
    DropPartition,
    Load,
    Release,
)
from storage import keys
from storage.meta.port import Condition, Delete, Put


@dataclass(frozen=True)
class Present:
    """What the store has under the name a change is about. Revisions are 0 where nothing is.

    collection: the living collection of that name.
    """

    name_revision: Revision = Revision(0)
    collection: Collection | None = None
    revision: Revision = Revision(0)


@dataclass(frozen=True)
class Context:
    """What a decision may use beside the present state.

    ids: fresh, ``ids_needed`` of them. ends: of each channel of the log, for ``CreateCollection``.
    query_nodes, pinned, large: to place the collection by, should it be loaded.
    """

    ids: Sequence[int]
    timestamp: int
    ends: Sequence[Position] = ()
    query_nodes: RoleNodes = RoleNodes()
    pinned: Mapping[ShardId, NodeId] = field(default_factory=dict)
    large: bool = False


@dataclass(frozen=True)
class Decision:
    """One commit. No writes = the catalog is already as asked for."""

    conditions: tuple[Condition, ...] = ()
    writes: tuple[Put | Delete, ...] = ()


NOTHING = Decision()


def collection_name(change: CatalogChange) -> tuple[str, str]:
    """(database, collection) a change is about. Raises ``DatabaseNotFound``."""
    if change.database not in ("", DEFAULT_DATABASE):
        raise DatabaseNotFound(change.database)
    name = change.name if isinstance(change, CreateCollection | DropCollection) else change.collection
    return DEFAULT_DATABASE, name


def ids_needed(change: CatalogChange) -> int:
    """How many fresh ids ``decide`` takes at most."""
    match change:
        case CreateCollection():
            return 1 + max(1, change.partitions)
        case CreatePartition() | CreateIndex():
            return 1
        case _:
            return 0


def decide(change: CatalogChange, present: Present, context: Context) -> Decision:
    """What to commit for a change. Raises the error the client is to get."""
    if isinstance(change, CreateCollection):
        return _create_collection(change, present, context)
    if isinstance(change, DropCollection):
        return _drop_collection(present)
    if present.collection is None:
        raise CollectionNotFound(change.collection)
    old = present.collection
    match change:
        case CreatePartition():
            new = _create_partition(change, old, context)
        case DropPartition():
            new = _drop_partition(change, old)
        case Load():
            new = _load(change, old, context)
        case Release():
            new = _release(change, old)
        case CreateIndex():
            new = _create_index(change, old, context)
        case DropIndex():
            new = _drop_index(change, old)
    if new == old:
        return NOTHING
    return Decision(_unchanged(present), (_put(new), *_placement_writes(old, new, context)))


# --- collections -----------------------------------------------------------------------------
def _create_collection(change: CreateCollection, present: Present, context: Context) -> Decision:
    if present.collection is not None:
        if not _same(change, present.collection):
            raise Refused(f"create duplicate collection with different parameters, collection: {change.name}")
        return NOTHING
    _check_counts(change)
    ids = iter(context.ids)
    id = CollectionId(next(ids))
    # Neighbouring collections start at different channels, so that single-shard ones spread.
    shards = tuple(Shard(n, Channel((id + n) % len(context.ends))) for n in range(change.shards or 1))
    names = [f"{DEFAULT_PARTITION}_{n}" for n in range(change.partitions)] or [DEFAULT_PARTITION]
    partitions = tuple(Partition(PartitionId(next(ids)), name, context.timestamp) for name in names)
    collection = Collection(
        id=id,
        database=DEFAULT_DATABASE,
        name=change.name,
        schema=_with_field_ids(change.schema),
        shards=shards,
        partitions=partitions,
        consistency=change.consistency,
        properties=change.properties,
        created_ts=context.timestamp,
        updated_ts=context.timestamp,
    )
    manifests = [Manifest(id, s.number, checkpoint=context.ends[s.channel]) for s in shards]
    name_key = keys.name(DEFAULT_DATABASE, change.name)
    return Decision(
        (Condition(name_key, present.name_revision), Condition(keys.collection(id), Revision(0))),
        (
            Put(name_key, keys.encode(str(id))),
            _put(collection),
            *(Put(keys.manifest(m.shard_id), keys.encode(m)) for m in manifests),
        ),
    )


def _check_counts(change: CreateCollection) -> None:
    fields, vectors = len(change.schema.fields), len(change.schema.vectors)
    if fields > FIELDS_MAX + change.schema.dynamic:
        raise InvalidArgument(f"maximum field's number should be limited to {FIELDS_MAX}")
    if vectors > VECTOR_FIELDS_MAX:
        raise InvalidArgument(f"maximum vector field's number should be limited to {VECTOR_FIELDS_MAX}")
    if change.shards > SHARDS_MAX:
        raise InvalidArgument(f"maximum shards's number should be limited to {SHARDS_MAX}")
    if change.partitions > PARTITIONS_MAX:
        raise InvalidArgument(f"partition number ({change.partitions}) exceeds max configuration ({PARTITIONS_MAX})")


def _with_field_ids(schema: Schema) -> Schema:
    """Ids from ``FIRST_FIELD_ID`` on in order, the dynamic field last."""
    ordered = sorted(schema.fields, key=lambda f: f.dynamic)
    return replace(schema, fields=tuple(replace(f, id=FieldId(FIRST_FIELD_ID + n)) for n, f in enumerate(ordered)))


def _same(change: CreateCollection, present: Collection) -> bool:
    return (
        _with_field_ids(change.schema).fields == _with_field_ids(present.schema).fields
        and change.schema.description == present.schema.description
        and (change.shards or 1) == len(present.shards)
        and (present.schema.partition_key is None or max(1, change.partitions) == len(present.partitions))
    )


def _drop_collection(present: Present) -> Decision:
    old = present.collection
    if old is None:
        return NOTHING
    # The value stays until the objects are collected: it is what says that they may be.
    dropped = replace(old, dropped=True, loaded=(), load_all=False)
    writes = (_put(dropped), Delete(keys.name(old.database, old.name)), Delete(keys.placement(old.id)))
    return Decision(_unchanged(present), writes)


# --- partitions ------------------------------------------------------------------------------
def _create_partition(change: CreatePartition, old: Collection, context: Context) -> Collection:
    if change.name in old.partition_by_name:
        return old
    if old.schema.partition_key:
        raise Refused("disable create partition if partition key mode is used")
    if len(old.partitions) >= PARTITIONS_MAX:
        raise Refused(
            f"partition number ({len(old.partitions)}) exceeds max configuration ({PARTITIONS_MAX}), "
            f"collection: {old.name}"
        )
    partition = Partition(PartitionId(context.ids[0]), change.name, context.timestamp)
    loaded = (*old.loaded, partition.id) if old.load_all else old.loaded
    return replace(old, partitions=(*old.partitions, partition), loaded=loaded)


def _drop_partition(change: DropPartition, old: Collection) -> Collection:
    if change.name == DEFAULT_PARTITION:
        raise Refused("default partition cannot be deleted")
    if old.schema.partition_key:
        raise Refused("disable drop partition if partition key mode is used")
    partition = old.partition_by_name.get(change.name)
    if partition is None:
        return old
    if partition.id in old.loaded:
        raise Refused("partition cannot be dropped, partition is loaded, please release it first")
    return replace(old, partitions=tuple(p for p in old.partitions if p.id != partition.id))


# --- loading ---------------------------------------------------------------------------------
def _load(change: Load, old: Collection, context: Context) -> Collection:
    asked = _partition_ids(change.partitions, old)
    if any(f.id not in old.index_by_field for f in old.schema.vectors):
        raise IndexNotFound(f"index not found[collection={old.name}]")
    nodes = len(context.query_nodes.usable)
    # One replica may wait for its first node.
    if change.replicas > max(nodes, 1):
        raise Refused(
            f"when load {change.replicas} replica count: service resource insufficient"
            f"[currentStreamingNode={nodes}][expectedStreamingNode={change.replicas}]"
        )
    old = replace(old, replicas=change.replicas or (old.replicas if old.loaded else 1))
    if not change.partitions:
        return replace(old, loaded=tuple(p.id for p in old.partitions), load_all=True)
    return replace(old, loaded=tuple(p.id for p in old.partitions if p.id in asked or p.id in old.loaded))


def _release(change: Release, old: Collection) -> Collection:
    asked = _partition_ids(change.partitions, old)
    left = tuple(p for p in old.loaded if p not in asked) if change.partitions else ()
    # Partitions made later are no longer wanted once the caller has picked some.
    return old if left == old.loaded else replace(old, loaded=left, load_all=False)


def _partition_ids(names: Sequence[str], collection: Collection) -> frozenset[PartitionId]:
    missing = next((n for n in names if n not in collection.partition_by_name), None)
    if missing is not None:
        raise PartitionNotFound(missing)
    return frozenset(collection.partition_by_name[n].id for n in names)


def _placement_writes(old: Collection, new: Collection, context: Context) -> tuple[Put | Delete, ...]:
    if new.loaded and not old.loaded:
        placement = place(context.query_nodes, new, pinned=context.pinned, large=context.large)
        return (Put(keys.placement(new.id), keys.encode(placement)),) if placement else ()
    if old.loaded and not new.loaded:
        return (Delete(keys.placement(new.id)),)
    return ()


# --- indexes ---------------------------------------------------------------------------------
def _create_index(change: CreateIndex, old: Collection, context: Context) -> Collection:
    field = old.schema.by_name.get(change.field)
    if field is None:
        raise InvalidArgument(f"cannot create index on non-exist field: {change.field}")
    declaration = declare(field.type, field.dim, change.type, change.metric, dict(change.params))
    index = Index(
        id=IndexId(context.ids[0]),
        name=change.name or field.name,
        field_id=field.id,
        type=declaration.type,
        metric=declaration.metric.value,
        params=tuple(sorted(change.params)),
        created_ts=context.timestamp,
    )
    present = old.index_by_field.get(field.id)
    if present is not None:
        # Without a name the declaration is all that was asked for.
        name = change.name or present.name
        if replace(index, id=present.id, name=name, created_ts=present.created_ts) == present:
            return old
        raise Refused("at most one distinct index is allowed per field")
    if any(i.name == index.name for i in old.indexes):
        raise Refused(f"at most one distinct index is allowed per field: index {index.name} is on another field")
    return replace(old, indexes=(*old.indexes, index))


def _drop_index(change: DropIndex, old: Collection) -> Collection:
    left = tuple(i for i in old.indexes if i.name != change.name)
    if left == old.indexes:
        return old
    if old.loaded:
        raise Refused("index cannot be dropped, collection is loaded, please release it first")
    return replace(old, indexes=left)


# ---------------------------------------------------------------------------------------------
def _put(collection: Collection) -> Put:
    return Put(keys.collection(collection.id), keys.encode(collection))


def _unchanged(present: Present) -> tuple[Condition, ...]:
    assert present.collection is not None, "a condition on a collection needs one"
    collection = present.collection
    return (
        Condition(keys.name(collection.database, collection.name), present.name_revision),
        Condition(keys.collection(collection.id), present.revision),
    )
