"""DDL as pure functions: what is committed, what is refused, and in which words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from coordinator.changes import NOTHING, Context, Decision, Present, collection_name, decide, ids_needed
from coordinator.placement import RoleNodes, place
from core.catalog import Collection, Placement
from core.errors import (
    CollectionNotFound,
    DatabaseNotFound,
    IndexNotFound,
    InvalidArgument,
    PartitionNotFound,
    Refused,
    SheafError,
)
from core.ids import FieldId, NodeId, Position, Revision
from core.limits import PARTITIONS_MAX
from core.manifest import Manifest
from core.schema import DYNAMIC, Field, Schema
from core.types import DataType
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

NONE = FieldId(0)
SCHEMA = Schema(
    (
        Field(NONE, DYNAMIC, DataType.JSON, dynamic=True),
        Field(NONE, "id", DataType.INT64, primary=True),
        Field(NONE, "vector", DataType.FLOAT_VECTOR, dim=8),
        Field(NONE, "word", DataType.VARCHAR, max_length=10),
    )
)
KEYED = replace(SCHEMA, fields=(*SCHEMA.fields, Field(NONE, "tenant", DataType.INT64, partition_key=True)))
ENDS = (Position(5), Position(6), Position(7))
CREATE = CreateCollection("default", "c", SCHEMA, shards=2)
NODES = RoleNodes(frozenset({NodeId("p"), NodeId("q"), NodeId("r")}), frozenset({NodeId("r")}))


class Catalog:
    """One name of a catalog: applies decisions as the metadata store would."""

    def __init__(self) -> None:
        self.present = Present()
        self.keys: dict[str, bytes] = {}
        self._ids = iter(range(1000, 100_000))
        self._revision = 1

    def do(self, change: CatalogChange) -> Decision:
        self._revision += 1
        ids: Sequence[int] = [next(self._ids) for _ in range(ids_needed(change))]
        decision = decide(change, self.present, Context(ids, self._revision, ENDS, NODES))
        for write in decision.writes:
            match write:
                case Put(key, value):
                    self.keys[key] = value
                case Delete(key):
                    self.keys.pop(key, None)
        if decision.writes:
            name = keys.name("default", "c")
            taken = name in self.keys
            value = self.keys.get(keys.collection(int(self.keys[name]))) if taken else None
            collection = keys.decode(Collection, value) if value else None
            revision = Revision(self._revision if taken else 0)
            self.present = Present(revision, collection, revision)
        return decision

    @property
    def collection(self) -> Collection:
        assert self.present.collection is not None
        return self.present.collection


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog()
    catalog.do(CREATE)
    return catalog


def index(field: str = "vector", **more: Any) -> CreateIndex:
    return CreateIndex("", "c", field, **more)


# --- collections -----------------------------------------------------------------------------
def test_create_numbers_fields_and_puts_the_dynamic_one_last(catalog: Catalog) -> None:
    schema = catalog.collection.schema
    assert [(f.id, f.name) for f in schema.fields] == [(100, "id"), (101, "vector"), (102, "word"), (103, DYNAMIC)]


def test_create_starts_each_shard_at_the_end_of_its_channel(catalog: Catalog) -> None:
    c = catalog.collection
    assert [s.channel for s in c.shards] == [(c.id + n) % 3 for n in range(2)]
    for shard in c.shards:
        manifest = keys.decode(Manifest, catalog.keys[keys.manifest(c.shard_ids[shard.number])])
        assert manifest == Manifest(c.id, shard.number, checkpoint=ENDS[shard.channel])


def test_create_is_conditional_on_the_name_being_free() -> None:
    decision = decide(CREATE, Present(), Context(range(1000, 1002), 7, ENDS))
    assert Condition(keys.name("default", "c"), Revision(0)) in decision.conditions


def test_the_same_again_is_success_and_another_schema_is_refused(catalog: Catalog) -> None:
    assert catalog.do(CREATE) == NOTHING
    for other in (
        replace(CREATE, shards=1),
        replace(CREATE, schema=KEYED),
        replace(CREATE, schema=replace(SCHEMA, description="x")),
    ):
        with pytest.raises(Refused, match="create duplicate collection with different parameters, collection: c"):
            catalog.do(other)


def test_a_partition_key_makes_numbered_partitions() -> None:
    catalog = Catalog()
    create = CreateCollection("default", "c", KEYED, partitions=3)
    catalog.do(create)
    assert [p.name for p in catalog.collection.partitions] == ["_default_0", "_default_1", "_default_2"]
    assert len({p.id for p in catalog.collection.partitions} | {catalog.collection.id}) == 4
    assert catalog.do(create) == NOTHING
    with pytest.raises(Refused, match="partition key"):
        catalog.do(CreatePartition("", "c", "p"))
    with pytest.raises(Refused, match="partition key"):
        catalog.do(DropPartition("", "c", "_default_1"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace(CREATE, shards=17), "shards"),
        (CreateCollection("default", "c", KEYED, partitions=PARTITIONS_MAX + 1), "partition number"),
        (replace(CREATE, schema=Schema(SCHEMA.fields * 20)), "maximum field"),
        (replace(CREATE, schema=Schema(SCHEMA.fields[1:3] * 11)), "maximum vector field"),
    ],
)
def test_limits(change: CreateCollection, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        Catalog().do(change)


def test_drop_frees_the_name_and_keeps_the_value(catalog: Catalog) -> None:
    id = catalog.collection.id
    catalog.do(index())
    catalog.do(Load("", "c"))
    catalog.do(DropCollection("", "c"))
    assert keys.name("default", "c") not in catalog.keys
    assert keys.placement(id) not in catalog.keys
    dropped = keys.decode(Collection, catalog.keys[keys.collection(id)])
    assert dropped.dropped
    assert not dropped.loaded
    assert catalog.do(DropCollection("", "c")) == NOTHING
    catalog.do(CREATE)
    assert catalog.collection.id != id


def test_unknown_collections_and_databases() -> None:
    for change in (CreatePartition("", "c", "p"), Load("", "c"), index(), DropIndex("", "c", "i"), Release("", "c")):
        with pytest.raises(CollectionNotFound, match=r"collection not found\[database=default\]\[collection=c\]"):
            Catalog().do(change)
    with pytest.raises(DatabaseNotFound, match=r"database not found\[database=nodb\]"):
        collection_name(DropCollection("nodb", "c"))
    assert collection_name(Load("", "c")) == ("default", "c")


# --- partitions ------------------------------------------------------------------------------
def test_partitions_come_and_go(catalog: Catalog) -> None:
    catalog.do(CreatePartition("", "c", "p"))
    assert [p.name for p in catalog.collection.partitions] == ["_default", "p"]
    assert catalog.do(CreatePartition("", "c", "p")) == NOTHING
    catalog.do(DropPartition("", "c", "p"))
    assert [p.name for p in catalog.collection.partitions] == ["_default"]
    assert catalog.do(DropPartition("", "c", "p")) == NOTHING
    with pytest.raises(Refused, match="default partition cannot be deleted"):
        catalog.do(DropPartition("", "c", "_default"))


def test_a_loaded_partition_is_not_dropped(catalog: Catalog) -> None:
    catalog.do(CreatePartition("", "c", "p"))
    catalog.do(index())
    catalog.do(Load("", "c"))
    with pytest.raises(Refused, match=r"^partition cannot be dropped, partition is loaded, please release it first$"):
        catalog.do(DropPartition("", "c", "p"))
    catalog.do(Release("", "c", ("p",)))
    catalog.do(DropPartition("", "c", "p"))


def test_there_is_a_limit_to_partitions(catalog: Catalog) -> None:
    many = tuple(replace(catalog.collection.partitions[0], name=f"p{n}") for n in range(PARTITIONS_MAX))
    catalog.present = replace(catalog.present, collection=replace(catalog.collection, partitions=many))
    with pytest.raises(Refused, match="exceeds max configuration"):
        catalog.do(CreatePartition("", "c", "one more"))


# --- loading ---------------------------------------------------------------------------------
def test_load_needs_an_index_on_every_vector_field(catalog: Catalog) -> None:
    with pytest.raises(IndexNotFound, match=r"^index not found\[collection=c\]$"):
        catalog.do(Load("", "c"))


def test_load_and_release_of_all(catalog: Catalog) -> None:
    catalog.do(index())
    catalog.do(Load("", "c"))
    c = catalog.collection
    assert c.loaded == tuple(p.id for p in c.partitions)
    assert c.load_all
    placement = keys.decode(Placement, catalog.keys[keys.placement(c.id)])
    assert placement == place(NODES, c)
    assert {n for r in placement.replicas for n in r.leaders} == {"p", "q"}
    assert catalog.do(Load("", "c")) == NOTHING
    catalog.do(CreatePartition("", "c", "p"))
    assert len(catalog.collection.loaded) == 2, "a partition made later is loaded too"
    catalog.do(Release("", "c"))
    assert catalog.collection.loaded == ()
    assert keys.placement(c.id) not in catalog.keys
    assert catalog.do(Release("", "c")) == NOTHING


def test_load_and_release_of_partitions(catalog: Catalog) -> None:
    catalog.do(index())
    for name in ("p", "q", "r"):
        catalog.do(CreatePartition("", "c", name))
    catalog.do(Load("", "c", ("p",)))
    catalog.do(Load("", "c", ("q",)))
    ids = {p.name: p.id for p in catalog.collection.partitions}
    assert catalog.collection.loaded == (ids["p"], ids["q"])
    assert not catalog.collection.load_all
    catalog.do(Release("", "c", ("p",)))
    assert catalog.collection.loaded == (ids["q"],)
    catalog.do(Release("", "c", ("q",)))
    assert keys.placement(catalog.collection.id) not in catalog.keys
    for change in (Load("", "c", ("zz",)), Release("", "c", ("zz",))):
        with pytest.raises(PartitionNotFound, match=r"partition not found\[partition=zz\]"):
            catalog.do(change)


def test_replicas_are_on_different_nodes_or_refused(catalog: Catalog) -> None:
    catalog.do(index())
    words = r"when load 3 replica count: service resource insufficient\[currentStreamingNode=2\]"
    with pytest.raises(Refused, match=words):
        catalog.do(Load("", "c", replicas=3))
    catalog.do(Load("", "c", replicas=2))
    placement = keys.decode(Placement, catalog.keys[keys.placement(catalog.collection.id)])
    assert [r.leaders for r in placement.replicas] in ([("p", "p"), ("q", "q")], [("q", "q"), ("p", "p")])
    assert catalog.do(Load("", "c")) == NOTHING, "no number named: as it is"
    catalog.do(Load("", "c", replicas=1))
    assert catalog.collection.replicas == 1
    catalog.do(Load("", "c", replicas=2))
    catalog.do(Release("", "c"))
    catalog.do(Load("", "c"))
    assert catalog.collection.replicas == 1


# --- indexes ---------------------------------------------------------------------------------
def test_indexes_come_and_go(catalog: Catalog) -> None:
    catalog.do(index(type="HNSW", metric="L2", params=(("M", "8"),)))
    (made,) = catalog.collection.indexes
    assert (made.name, made.type, made.metric, made.params) == ("vector", "HNSW", "L2", (("M", "8"),))
    assert catalog.do(index(type="HNSW", metric="L2", params=(("M", "8"),))) == NOTHING
    with pytest.raises(Refused, match="at most one distinct index is allowed per field"):
        catalog.do(index(type="HNSW", metric="IP", params=(("M", "8"),)))
    with pytest.raises(Refused, match="at most one distinct index is allowed per field"):
        catalog.do(index(name="other", type="HNSW", metric="L2", params=(("M", "8"),)))
    catalog.do(DropIndex("", "c", "vector"))
    assert catalog.collection.indexes == ()
    assert catalog.do(DropIndex("", "c", "vector")) == NOTHING


def test_an_index_without_a_type_is_autoindex(catalog: Catalog) -> None:
    catalog.do(index())
    assert catalog.collection.indexes[0].type == "AUTOINDEX"
    assert catalog.collection.indexes[0].metric == "COSINE"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (index("zz"), "cannot create index on non-exist field: zz"),
        (index(type="NOSUCH"), "invalid index type: NOSUCH"),
        (index(metric="HAMMING"), "metric type not found or not supported"),
    ],
)
def test_bad_indexes_are_refused(catalog: Catalog, change: CreateIndex, words: str) -> None:
    with pytest.raises(SheafError, match=words):
        catalog.do(change)


def test_an_index_of_a_loaded_collection_is_not_dropped(catalog: Catalog) -> None:
    catalog.do(index(name="i"))
    catalog.do(Load("", "c"))
    with pytest.raises(Refused, match=r"^index cannot be dropped, collection is loaded, please release it first$"):
        catalog.do(DropIndex("", "c", "i"))


def test_only_schema_changes_move_the_schema_time(catalog: Catalog) -> None:
    before = catalog.collection.updated_ts
    for change in (
        CreatePartition("", "c", "p"),
        index(),
        Load("", "c"),
        Release("", "c"),
        DropIndex("", "c", "vector"),
    ):
        catalog.do(change)
    assert catalog.collection.updated_ts == before
