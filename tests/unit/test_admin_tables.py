"""What the tables of ``sheafdb admin`` show of a picture of the metadata store."""

from dataclasses import replace

import pytest

from core.catalog import Cluster, Placement, Replica
from core.errors import InvalidArgument, Refused
from core.ids import Channel, NodeId, Position, Revision, SegmentId
from rpc.reads import Holder, ShardPhase, ShardStatus
from sheafdb.admin import drain, move, output, tables
from sheafdb.admin.picture import Picture, picture
from sheafdb.registration import FORMAT, Registration
from storage import keys
from storage.meta.port import Item
from tests.unit.admin_samples import BYTES, COLLECTION, FIRST, PICTURE, SECOND

A, B, D = NodeId("a"), NodeId("b"), NodeId("d")
NODE = Registration("127.0.0.1:1", FORMAT, "0.1", "x")
CLUSTER = replace(
    PICTURE,
    placements={COLLECTION.id: Placement(COLLECTION.id, (Replica((A, B), (A, B), (B, B)),))},
    owners={Channel(0): D, Channel(1): D},
    nodes={("querynode", A): NODE, ("querynode", B): NODE, ("datanode", D): NODE, ("proxy", NodeId("p")): NODE},
    drains=frozenset({("querynode", A)}),
)


def test_the_picture_is_what_the_keys_say() -> None:
    values = {
        keys.collection(COLLECTION.id): COLLECTION,
        keys.manifest(FIRST.shard_id): FIRST,
        keys.node("querynode", A): NODE.text(),
        keys.node("querynode", B): "no registration",
        keys.drain("querynode", A): "",
        keys.LEADER: "c1",
    }
    items = [Item(key, keys.encode(value), Revision(1)) for key, value in values.items()]
    found = picture([*items, Item(keys.manifest(SECOND.shard_id), b"\xff\xff", Revision(1))])
    assert found.collections == {COLLECTION.id: COLLECTION}
    assert found.manifests == {FIRST.shard_id: FIRST}
    assert found.nodes == {("querynode", A): NODE, ("querynode", B): None}
    assert (found.drains, found.leader) == ({("querynode", A)}, "c1")
    assert list(found.unreadable) == ["manifests/1/1"]


def test_nodes_show_what_each_has_and_wishes_that_outlived_their_node() -> None:
    left = replace(CLUSTER, drains=CLUSTER.drains | {("datanode", NodeId("gone"))})
    rows = {row["id"]: row for row in tables.nodes(left)}
    assert (rows["a"]["state"], rows["a"]["leads"], rows["a"]["replicas"]) == ("draining", 1, 1)
    assert (rows["b"]["state"], rows["b"]["leads"]) == ("up", 2)
    assert rows["d"]["channels"] == 2
    assert rows["gone"]["state"] == "gone, drain wish left"


def test_status_counts() -> None:
    row = tables.status(CLUSTER, Cluster("id", 1))
    assert row["nodes"] == {"datanode": 1, "proxy": 1, "querynode": 2}
    assert (row["collections"], row["loaded"], row["shards"], row["segments"], row["rows"]) == (1, 1, 2, 1, 20)
    assert row["bytes"] == sum(map(len, BYTES.values()))
    assert row["draining"] == ["querynode/a"]


def test_shards_join_manifests_with_what_their_leaders_say() -> None:
    share = Holder(B, (SegmentId(1),), 700)
    said = ShardStatus(FIRST.shard_id, ShardPhase.READY, 4, 5, 20, 3, 1000, holders=(share,))
    rows = tables.shards(CLUSTER, {A: {FIRST.shard_id: said}, B: "no route"})
    first, second = rows
    assert (first["shard"], first["leader"], first["coming"], first["phase"]) == ("1/0", "a", "b", "ready")
    assert (first["frontier"], first["growing_rows"], first["memory"]) == (5, 3, 1000)
    assert (first["workers"], second["workers"]) == ({"b": 700}, {})
    assert (second["phase"], second["problem"]) == ("no answer", "no route")
    assert [row["phase"] for row in tables.shards(PICTURE, {})] == ["released", "released"]


def test_collections_segments_channels() -> None:
    (row,) = tables.collections(CLUSTER)
    assert (row["name"], row["loaded"], row["segments"], row["rows"]) == ("docs", "all", 1, 20)
    (row,) = tables.segments(CLUSTER)
    assert (row["segment"], row["shard"], row["indexed"], row["collection"]) == (7, "1/0", "101", "default.docs")
    rows = tables.channels(CLUSTER, [Position(2), Position(0)], [Position(9), Position(4)])
    assert [(r["owner"], r["checkpoint"], r["unsealed"], r["shards"]) for r in rows] == [
        ("d", 3, 6, 1),
        ("d", None, 4, 1),
    ]


def test_a_table_is_aligned_and_an_empty_one_says_so() -> None:
    rows = [{"name": "x", "rows": 5, "at": None}, {"name": "long", "rows": 1234, "at": 7}]
    assert output.table(rows).splitlines() == ["name  rows  at", "x        5   -", "long  1234   7"]
    assert output.table([]) == "(none)"
    assert output.facts({"id": "x", "nodes": {"proxy": 2}}) == "id     x\nnodes  proxy 2"


def test_a_node_is_drained_only_where_that_means_something() -> None:
    free = replace(CLUSTER, drains=frozenset())
    assert drain.target(free, A) == ("querynode", A)
    with pytest.raises(Refused, match="no other querynode"):
        drain.target(CLUSTER, B)
    with pytest.raises(Refused, match="no other datanode is there to take over from d"):
        drain.target(free, D)
    with pytest.raises(InvalidArgument, match="proxy p holds nothing"):
        drain.target(free, NodeId("p"))
    with pytest.raises(InvalidArgument, match="no node z is registered; there are: a, b, d"):
        drain.target(free, NodeId("z"))
    with pytest.raises(InvalidArgument, match="no node z is registered; there are: none"):
        drain.target(Picture(), NodeId("z"))
    assert drain.target(CLUSTER, A, undo=True) == ("querynode", A)
    with pytest.raises(InvalidArgument, match="no node b is asked to drain; there are: a"):
        drain.target(CLUSTER, B, undo=True)


def test_a_move_names_what_there_is() -> None:
    free = replace(CLUSTER, drains=frozenset(), shard_pins={FIRST.shard_id: A})
    shard, channel = move.find(free, "shard", "docs/1"), move.find(free, "channel", "1")
    assert (shard.id, shard.holders(free), shard.pin(free)) == (SECOND.shard_id, [B], None)
    assert (channel.id, channel.holders(free)) == (Channel(1), [D])
    assert move.find(free, "shard", "default.docs/0").pin(free) == A
    for kind, text, words in (
        ("shard", "docs/2", "collection docs has no shard 2; there are: 0, 1"),
        ("shard", "other/0", r"there is no collection other; there are: default\.docs"),
        ("shard", "docs", r"docs names no shard; a shard is \[DATABASE\.\]COLLECTION/NUMBER"),
        ("channel", "7", "there is no channel 7; there are: 0, 1"),
        ("channel", "x", "there is no channel x"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            move.find(free, kind, text)
    move.check(free, shard, A)
    move.check(free, channel, D)
    with pytest.raises(InvalidArgument, match="no querynode z is registered; there are: a, b"):
        move.check(free, shard, NodeId("z"))
    with pytest.raises(InvalidArgument, match="datanode d is no querynode; there are: a, b"):
        move.check(free, shard, D)
    with pytest.raises(InvalidArgument, match="querynode a is no datanode; there are: d"):
        move.check(free, channel, A)
    with pytest.raises(Refused, match="querynode a is asked to drain"):
        move.check(CLUSTER, shard, A)
    with pytest.raises(Refused, match="not loaded"):
        move.check(replace(free, placements={}), shard, A)
    rows = tables.shards(free, {})
    assert [row["pinned"] for row in rows] == ["a", ""]
