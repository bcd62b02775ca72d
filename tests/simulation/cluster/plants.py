"""Bugs planted into the product, one at a time: each is one the simulation must find."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

import coordinator.garbage
import coordinator.state
import datanode.compact
import datanode.seal
import querynode.handoff
import querynode.service
import storage.manifests
from coordinator.leadership import Leadership
from coordinator.placement import place
from core.catalog import Collection, Consistency
from core.ids import CollectionId, Position, Revision
from core.manifest import Manifest
from datanode.channel import OwnedChannel
from datanode.key_filters import KeyFilters
from datanode.resources import Resources
from datanode.state import ChannelState, Cut
from proxy.definitions import Definitions
from querynode.growing import Growing
from querynode.links import WorkerLink
from querynode.shard import ShardState, TailKills
from storage.manifests import Authority
from storage.meta.port import Condition, MetaStore

Plant = Callable[[], AbstractContextManager[Any]]
PLANTS: dict[str, Plant] = {}


def plant(made: Plant) -> Plant:
    PLANTS[made.__name__] = made
    return made


class Unfenced(Authority):
    """An entitlement that is never asked for."""

    @property
    def condition(self) -> Condition:
        return Condition("no such key", Revision(0))

    async def check(self, meta: MetaStore) -> None:
        pass


@plant
@contextmanager
def seal_commits_under_any_epoch() -> Iterator[None]:
    real = datanode.seal.commit_manifest

    async def commit(meta: Any, shard: Any, change: Any, authority: Authority, grace_s: float) -> Any:
        return await real(meta, shard, change, Unfenced(authority.key, authority.epoch), grace_s)

    with mock.patch.object(datanode.seal, "commit_manifest", commit):
        yield


@plant
@contextmanager
def old_leader_is_not_fenced() -> Iterator[None]:
    real: Any = Leadership.authority

    def authority(self: Leadership) -> Authority:
        held = real.fget(self)
        return Unfenced(held.key, held.epoch)

    with mock.patch.object(Leadership, "authority", property(authority)):
        yield


@plant
@contextmanager
def checkpoint_moves_before_the_manifest() -> Iterator[None]:
    real = ChannelState.cut

    def cut(self: ChannelState, shard: Any) -> Cut:
        taken = real(self, shard)
        self.sealed(shard, taken.frontier, 0.0)
        return taken

    with mock.patch.object(ChannelState, "cut", cut):
        yield


@plant
def log_is_trimmed_past_unsealed_rows() -> AbstractContextManager[Any]:
    return mock.patch.object(ChannelState, "checkpoint", property(lambda self: self.frontier))


@plant
def garbage_is_collected_without_grace() -> AbstractContextManager[Any]:
    return mock.patch.object(coordinator.garbage, "wall_ms", return_value=1 << 60)


@plant
@contextmanager
def garbage_is_noted_without_grace() -> Iterator[None]:
    real = storage.manifests._garbage
    with mock.patch.object(storage.manifests, "_garbage", lambda manifest, names, _: real(manifest, names, 0.0)):
        yield


@plant
@contextmanager
def hand_off_before_the_tail_reached_the_checkpoint() -> Iterator[None]:
    real, swap = querynode.handoff.until, ShardState.swap

    async def until(holds: Any, signal: Any, deadline: float, what: str) -> None:
        if not what.endswith("to reach the checkpoint"):
            await real(holds, signal, deadline, what)

    def early(self: ShardState, manifest: Manifest, *args: Any, **named: Any) -> None:
        self.applied = max(self.applied, manifest.checkpoint)  # past the assertion that guards it
        swap(self, manifest, *args, **named)

    with mock.patch.object(querynode.handoff, "until", until), mock.patch.object(ShardState, "swap", early):
        yield


@plant
def deletes_are_not_applied_to_a_coming_segment() -> AbstractContextManager[Any]:
    return mock.patch.object(TailKills, "since", return_value=None)


@plant
@contextmanager
def late_deletes_are_not_applied_to_a_coming_segment() -> Iterator[None]:
    real = TailKills.since
    with mock.patch.object(TailKills, "since", lambda self, start: None if start else real(self, start)):
        yield


@plant
@contextmanager
def placement_breaks_before_it_makes() -> Iterator[None]:
    class Everyone:
        def __contains__(self, _: object) -> bool:
            return True

    def hasty(nodes: Any, collection: Any, present: Any, ready: Any, *rest: Any, **named: Any) -> Any:
        return place(nodes, collection, present, Everyone(), *rest, **named)

    with mock.patch.object(coordinator.state, "place", hasty):
        yield


@plant
@contextmanager
def older_segments_are_not_told_of_deletes() -> Iterator[None]:
    async def needed(self: KeyFilters, segments: Any, primary: Any, kills: Any) -> np.ndarray:
        return np.zeros(len(kills.keys), np.bool_)

    with mock.patch.object(KeyFilters, "needed", needed):
        yield


@plant
@contextmanager
def compaction_drops_tombstones_still_needed() -> Iterator[None]:
    async def still_needed(self: Any, job: Any, kills: Any) -> np.ndarray:
        return np.zeros(len(kills.keys), np.bool_)

    with mock.patch.object(datanode.compact.Look, "still_needed", still_needed):
        yield


@plant
@contextmanager
def strong_reads_do_not_ask_for_the_end() -> Iterator[None]:
    real = querynode.service.fresh

    def fresh(shard: ShardState, read: Any, staleness_s: float) -> bool:
        strong = read.consistency is Consistency.STRONG and not read.snapshot_ts
        return shard.ready and shard.covers(read.partitions) if strong else real(shard, read, staleness_s)

    with mock.patch.object(querynode.service, "fresh", fresh):
        yield


@plant
@contextmanager
def flush_does_not_wait_for_the_tail() -> Iterator[None]:
    async def at_once(self: OwnedChannel, frontier: Position) -> None:
        pass

    with mock.patch.object(OwnedChannel, "_until_frontier", at_once):
        yield


@plant
@contextmanager
def growing_rows_are_dropped_one_position_too_far() -> Iterator[None]:
    real = Growing.drop
    with mock.patch.object(Growing, "drop", lambda self, before: real(self, Position(before + 1))):
        yield


@plant
def workers_answer_before_the_deletes_reach_them() -> AbstractContextManager[Any]:
    return mock.patch.object(WorkerLink, "after", return_value=0)


@plant
@contextmanager
def seals_drop_the_rows_of_new_partitions() -> Iterator[None]:
    real = Resources.collection

    async def collection(self: Resources, id: CollectionId) -> Collection | None:
        found = await real(self, id)
        return found and replace(found, partitions=found.partitions[:1])

    with mock.patch.object(Resources, "collection", collection):
        yield


@plant
def proxies_write_by_what_they_knew() -> AbstractContextManager[Any]:
    async def beside(_: Definitions, work: Any) -> Any:
        return await work()

    return mock.patch.object(Definitions, "_beside", beside)


@plant
def proxies_say_what_they_knew() -> AbstractContextManager[Any]:
    async def catch_up(_: Definitions) -> None: ...

    return mock.patch.object(Definitions, "_catch_up", catch_up)


@plant
def cut_off_proxies_ask_no_coordinator() -> AbstractContextManager[Any]:
    async def be_told(_: Definitions) -> None: ...

    return mock.patch.object(Definitions, "_be_told", be_told)


def planted(name: str) -> Mapping[str, Plant]:
    """The plant of that name, or all of them for "all"."""
    return PLANTS if name == "all" else {name: PLANTS[name]}
