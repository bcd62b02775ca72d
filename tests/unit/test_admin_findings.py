"""What ``sheafdb admin verify`` calls wrong, and what it says that it costs: without any store."""

from dataclasses import replace

import pytest

from core.ids import Channel, CollectionId, Position
from core.manifest import Manifest
from sheafdb.admin import findings
from sheafdb.admin.findings import ChannelState, Finding, Harm
from sheafdb.admin.picture import Picture
from storage.objects.port import ObjectInfo
from tests.unit.admin_samples import (
    BYTES,
    COLLECTION,
    END,
    FIRST,
    INDEX,
    PICTURE,
    SEALED,
    SEGMENT,
    TOMBSTONES,
    with_manifest,
)

OBJECTS = {name: ObjectInfo(name, len(data), 1_000) for name, data in BYTES.items()}
CHANNELS = (
    ChannelState(Channel(0), Position(SEALED), Position(END)),
    ChannelState(Channel(1), Position(0), Position(0)),
)


def brief(found: list[Finding]) -> list[tuple[Harm, str, str]]:
    return [(f.harm, f.what, f.subject) for f in found]


def of_log(picture: Picture, *changed: ChannelState) -> list[Finding]:
    states = {s.channel: s for s in (*CHANNELS, *changed)}
    return list(findings.of_log(picture, states.values()))


def test_nothing_is_wrong_in_a_whole_store() -> None:
    assert not list(findings.of_metadata(PICTURE))
    assert not list(findings.of_objects(PICTURE, OBJECTS))
    assert not list(findings.orphans(PICTURE, OBJECTS.values(), 10**15))
    assert not of_log(PICTURE)


@pytest.mark.parametrize(
    ("name", "harm", "cost"),
    [
        (SEGMENT, Harm.DATA, "reads of shard 1/0 .default.docs. fail until the object is restored: it holds 20 rows"),
        (TOMBSTONES, Harm.DATA, "it holds 6 deletes"),
        (INDEX, Harm.SPEED, "searches of 20 rows are exact"),
    ],
)
def test_a_missing_or_short_object_costs_what_its_kind_is_for(name: str, harm: Harm, cost: str) -> None:
    without = {n: o for n, o in OBJECTS.items() if n != name}
    missing = list(findings.of_objects(PICTURE, without))
    assert brief(missing) == [(harm, "object missing", name)]
    with pytest.raises(AssertionError, match=cost):
        raise AssertionError(missing[0].cost)
    short = list(findings.of_objects(PICTURE, {**OBJECTS, name: ObjectInfo(name, 1, 1_000)}))
    assert brief(short) == [(harm, "object of wrong size", name)]
    assert f"1 bytes, {len(BYTES[name])} expected" in short[0].detail


def test_only_old_objects_that_nothing_names_are_orphans() -> None:
    orphan, noted, young = (
        ObjectInfo(f"default/docs-1/shard=0/segment-{n}.parquet", 70, ms)
        for n, ms in ((90, 1_000), (91, 1_000), (92, 5_000))
    )
    picture = replace(PICTURE, garbage=frozenset({noted.name}))
    found = list(findings.orphans(picture, [*OBJECTS.values(), orphan, noted, young], 5_000))
    assert brief(found) == [(Harm.SPACE, "orphan", orphan.name)]
    assert "70 bytes" in found[0].cost


def test_manifests_and_collections_that_do_not_belong_together() -> None:
    stray = Manifest(CollectionId(9), 0, segments=FIRST.segments)
    assert brief(list(findings.of_metadata(with_manifest(stray)))) == [
        (Harm.SPACE, "manifest of an unknown collection", "shard 9/0")
    ]
    extra = Manifest(COLLECTION.id, 5, segments=FIRST.segments)
    assert brief(list(findings.of_metadata(with_manifest(extra)))) == [
        (Harm.DATA, "manifest of an unknown shard", "shard 1/5")
    ]
    one = replace(PICTURE, manifests={FIRST.shard_id: FIRST})
    assert brief(list(findings.of_metadata(one))) == [(Harm.DATA, "manifest missing", "shard 1/1")]
    dropped = replace(one, collections={COLLECTION.id: replace(COLLECTION, dropped=True)})
    assert not list(findings.of_metadata(dropped)), "its manifests go first"


@pytest.mark.parametrize(
    ("start", "end", "what"),
    [
        (SEALED, SEALED, ""),
        (0, END, ""),
        (SEALED + 1, END, "checkpoint before the log"),
        (0, SEALED - 1, "checkpoint after the log"),
    ],
)
def test_a_checkpoint_is_between_start_and_end_of_its_channel(start: int, end: int, what: str) -> None:
    sealed_there = Manifest(COLLECTION.id, 0)
    found = of_log(with_manifest(sealed_there), ChannelState(Channel(0), Position(start), Position(end)))
    assert [f.what for f in found] == ([what] if what else [])


def test_a_log_that_lost_its_tail_would_swallow_new_rows() -> None:
    found = of_log(replace(PICTURE, checkpoints={}), ChannelState(Channel(0), Position(0), Position(1)))
    assert brief(found) == [(Harm.DATA, "manifest after the log", "shard 1/0")]
    assert "rows written next would be taken for sealed ones and lost" in found[0].cost


def test_what_else_is_wrong_with_a_log() -> None:
    found = of_log(replace(PICTURE, checkpoints={}))
    assert [f.what for f in found] == ["checkpoint missing"]
    found = of_log(replace(PICTURE, checkpoints={**PICTURE.checkpoints, Channel(9): Position(0)}))
    assert brief(found) == [(Harm.DATA, "channel missing", "channel 9")]
    found = of_log(PICTURE, replace(CHANNELS[0], damage="position 4"))
    assert brief(found) == [(Harm.DATA, "log unreadable", "channel 0")]
