"""Placement and index decisions, without I/O."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from coordinator.index_plan import indexed, missing, undefined, with_index, without, without_index
from coordinator.placement import RoleNodes, place
from coordinator.state import ClusterState, reconcile
from core.catalog import ChannelOwner, Collection, Index, Partition, Placement, Shard
from core.ids import Channel, CollectionId, FieldId, IndexId, NodeId, PartitionId, Position, Revision, SegmentId
from core.manifest import IndexFile, Manifest, ObjectRef, Segment
from core.schema import Field, Schema
from core.types import DataType
from storage import keys
from storage.meta.port import Delete, Put
from tests.fakes import led_by

SCHEMA = Schema(
    (
        Field(FieldId(100), "id", DataType.INT64, primary=True),
        Field(FieldId(101), "vector", DataType.FLOAT_VECTOR, dim=4),
    )
)
HNSW = Index(IndexId(50), "vector", FieldId(101), "HNSW", "L2", (("M", "16"),))
COLLECTION = Collection(
    id=CollectionId(1),
    database="default",
    name="c",
    schema=SCHEMA,
    shards=tuple(Shard(n, Channel(n)) for n in range(3)),
    partitions=(Partition(PartitionId(2), "_default", 0),),
    indexes=(HNSW,),
    loaded=(PartitionId(2),),
)
NODES = st.frozensets(st.sampled_from([NodeId(f"n{i}") for i in range(8)]))


def segment(id: int, rows: int = 5_000, partition: int = 2) -> Segment:
    name = f"default/c-1/shard=0/segment-{id}.parquet"
    return Segment(SegmentId(id), PartitionId(partition), ObjectRef(name, 1, 1), rows, Position(0), Position(9))


def built(index: Index, name: str = "x") -> IndexFile:
    return IndexFile(index.field_id, index.id, ObjectRef(name, 1, 1), "faiss")


def manifest(*segments: Segment) -> Manifest:
    return Manifest(COLLECTION.id, 0, segments=segments)


# --- placement -------------------------------------------------------------------------------
def apply(state: ClusterState) -> ClusterState:
    """The state once every move is committed."""
    owners, placements = dict(state.owners), dict(state.placements)
    for number, move in enumerate(reconcile(state), start=100):
        match move.write:
            case Put(key, value) if key.startswith(keys.OWNERS):
                channel = Channel(int(key.removeprefix(keys.OWNERS)))
                owners[channel] = (keys.decode(ChannelOwner, value), Revision(number))
            case Put(key, value):
                placement = keys.decode(Placement, value)
                placements[placement.collection] = (placement, Revision(number))
            case Delete(key):
                del placements[CollectionId(int(key.removeprefix(keys.PLACEMENTS)))]
    return replace(state, owners=owners, placements=placements)


@given(st.lists(st.tuples(NODES, NODES, st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_reconciling_ends_and_leaves_everything_with_living_nodes(steps) -> None:
    state = ClusterState(4, RoleNodes(), RoleNodes(), {}, {}, {})
    for data_nodes, query_nodes, loaded, exists in steps:
        value = replace(COLLECTION, loaded=COLLECTION.loaded if loaded else ())
        collections = {value.id: (value, Revision(7))} if exists else {}
        nodes = {"data_nodes": RoleNodes(data_nodes), "query_nodes": RoleNodes(query_nodes)}
        state = apply(replace(state, collections=collections, **nodes))
        assert list(reconcile(state)) == []
        if data_nodes:
            assert {o.node for o, _ in state.owners.values()} <= data_nodes
            assert len(state.owners) == 4
        if not exists or not loaded:
            assert not state.placements
        elif query_nodes:
            present = state.placements[value.id][0]
            assert present == place(RoleNodes(query_nodes), value, present)


def test_nothing_moves_while_no_node_lives() -> None:
    owner = {Channel(0): (ChannelOwner(NodeId("old")), Revision(3))}
    placement = {COLLECTION.id: (led_by(COLLECTION.id, (NodeId("old"),) * 3), Revision(4))}
    state = ClusterState(1, RoleNodes(), RoleNodes(), owner, {COLLECTION.id: (COLLECTION, Revision(2))}, placement)
    assert list(reconcile(state)) == []


# --- indexes ---------------------------------------------------------------------------------
def test_missing_indexes() -> None:
    done = replace(segment(1), indexes=(built(HNSW),))
    outdated = replace(segment(2), indexes=(built(replace(HNSW, id=IndexId(49))),))
    builds = missing(COLLECTION, [manifest(done, outdated, segment(3, rows=9), segment(4))], rows_min=10)
    assert [b.segment.id for b in builds] == [2, 4]
    task = builds[1].task(77)
    assert task.target == "default/c-1/shard=0/segment-4.index-50-77"
    assert (task.column, task.dim, task.params) == ("vector", 4, HNSW.params)


def test_flat_needs_no_file() -> None:
    assert indexed(segment(1), replace(HNSW, type="FLAT"), rows_min=10)


def test_an_index_is_added_to_its_segment_if_that_is_still_there() -> None:
    old = replace(segment(1), indexes=(built(replace(HNSW, id=IndexId(49)), "old"),))
    new = with_index(manifest(old, segment(2)), SegmentId(1), built(HNSW, "new"))
    assert new is not None
    assert [i.object.name for i in new.segments[0].indexes] == ["new"]
    assert new.version == 1
    assert with_index(manifest(segment(2)), SegmentId(1), built(HNSW)) is None


def test_an_unreadable_index_is_taken_out_once() -> None:
    m = manifest(replace(segment(1), indexes=(built(HNSW, "bad"),)))
    new = without_index(m, SegmentId(1), "bad")
    assert new is not None
    assert new.segments[0].indexes == ()
    assert without_index(new, SegmentId(1), "bad") is None
    assert without_index(m, SegmentId(9), "bad") is None
    assert missing(COLLECTION, [new], rows_min=1), "so it is built again"


def test_what_ddl_dropped_is_taken_out_and_nothing_newer() -> None:
    stale = replace(segment(1), indexes=(built(replace(HNSW, id=IndexId(49)), "stale"), built(HNSW, "kept")))
    dropped = undefined(manifest(stale, segment(2, partition=3)), COLLECTION)
    new = without(manifest(stale, segment(2, partition=3), segment(4, partition=5)), dropped)
    assert new is not None
    assert [s.id for s in new.segments] == [1, 4]
    assert [i.object.name for i in new.segments[0].indexes] == ["kept"]
    assert without(new, dropped) is None
    assert not any(undefined(manifest(segment(1)), COLLECTION))
