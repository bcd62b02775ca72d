"""Random writes, seals, compactions, indexes, trims, loads and restarts against a dict.

Whatever the node holds in segments and whatever in memory, at the newest frontier and at pinned
ones, its answers are those of the dict.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from core.errors import SnapshotExpired
from core.ids import PartitionId
from core.settings import QueryNodeSettings
from core.types import DataType
from tests.integration.querynode_rig import PARTITIONS, Rig, collection, vector

KEYS = st.integers(0, 30)
Model = dict[int, tuple[int, PartitionId]]
"""key -> (n, partition)."""


class Machine(RuleBasedStateMachine):
    """``inline_cost`` 0 sends every search and scan through the pool, a large one keeps them on the loop."""

    key_type = DataType.INT64
    rig_type = Rig
    settings = QueryNodeSettings()
    pins = Bundle("pins")

    @initialize(inline_cost=st.sampled_from([0, 10**9]))
    def start(self, inline_cost: int) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        node_settings = replace(self.settings, inline_cost=inline_cost, search_threads=2)
        self.rig = self.run(self.rig_type.open(Path(self.folder.name), collection(self.key_type), node_settings))
        self.model: Model = {}
        self.pinned: dict[int, Model] = {}
        self.loaded = set(PARTITIONS)
        self.written = 0

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.run(self.rig.close())
            self.runner.close()
            self.folder.cleanup()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def key(self, n: int) -> int | str:
        return n if self.key_type is DataType.INT64 else f"k{n}"

    def expected(self, model: Model, partitions: tuple[PartitionId, ...] = PARTITIONS) -> dict[int | str, int]:
        readable = self.loaded.intersection(partitions)
        return {self.key(k): n for k, (n, p) in model.items() if p in readable}

    # --- writes -----------------------------------------------------------------------------------
    @rule(keys=st.lists(KEYS, max_size=8), partition=st.sampled_from(PARTITIONS))
    def upsert(self, keys: list[int], partition: PartitionId) -> None:
        """Keys may repeat within a record: the last row lives."""
        rows = [(k, self.written + i) for i, k in enumerate(keys)]
        self.written += len(rows)
        self.run(self.rig.upsert([(self.key(k), n) for k, n in rows], partition))
        self.model |= {k: (n, partition) for k, n in rows}

    @rule(keys=st.lists(KEYS, max_size=6))
    def delete(self, keys: list[int]) -> None:
        self.run(self.rig.delete([self.key(k) for k in keys]))
        for k in keys:
            self.model.pop(k, None)

    @rule(first=st.lists(KEYS, min_size=1, max_size=4), second=st.lists(KEYS, min_size=1, max_size=4))
    def write_together(self, first: list[int], second: list[int]) -> None:
        """Two records of one append."""
        rows = [(k, self.written + i) for i, k in enumerate(first)]
        self.written += len(rows)
        records = [
            self.rig.upserting([(self.key(k), n) for k, n in rows]),
            self.rig.deleting(list(map(self.key, second))),
        ]
        self.run(self.rig.append(*records))
        self.model |= {k: (n, PARTITIONS[0]) for k, n in rows}
        for k in second:
            self.model.pop(k, None)

    @rule(target=pins)
    def pin(self) -> int:
        timestamp = self.run(self.rig.barrier())
        # The view exists once the barrier is consumed; what happens later must not touch it.
        self.run(self.rig.query(snapshot_ts=timestamp, count_only=True))
        self.pinned[timestamp] = dict(self.model)
        return timestamp

    # --- what the other roles do meanwhile -----------------------------------------------------------
    @rule(settle=st.booleans())
    def seal(self, settle: bool) -> None:
        self.run(self.rig.seal())
        if settle:
            self.run(self.rig.settled())

    @rule()
    def compact(self) -> None:
        """What it replaced is collected as soon as the node has moved on."""
        replaced = self.run(self.rig.compact())
        self.run(self.rig.settled())
        for name in replaced:
            self.run(self.rig.store.objects.delete(name))

    @rule()
    def index(self) -> None:
        self.run(self.rig.index())

    @rule()
    def trim(self) -> None:
        self.run(self.rig.trim())

    @rule()
    def restart(self) -> None:
        """Forgets the pinned views."""
        self.run(self.rig.restart())
        self.pinned.clear()

    @rule(partitions=st.sampled_from([PARTITIONS, PARTITIONS[:1], PARTITIONS[1:]]))
    def load(self, partitions: tuple[PartitionId, ...]) -> None:
        self.run(self.rig.describe(loaded=partitions))
        # Seen by the node before the next step: its catalog is a mirror of the same store.
        self.run(self.rig.seen())
        self.loaded = set(partitions)
        self.pinned.clear()

    # --- reads ------------------------------------------------------------------------------------
    @rule()
    def check_all(self) -> None:
        expected = self.expected(self.model)
        assert self.run(self.rig.rows()) == expected
        assert self.run(self.rig.query(count_only=True)).count == len(expected)

    @rule(partition=st.sampled_from(PARTITIONS), limit=st.integers(1, 5))
    def check_first_of_partition(self, partition: PartitionId, limit: int) -> None:
        if partition not in self.loaded:
            return
        expected = sorted(self.expected(self.model, (partition,)).items())[:limit]
        assert list(self.run(self.rig.rows(partitions=(partition,), limit=limit)).items()) == expected

    @rule(bound=st.integers(0, 60))
    def check_filter(self, bound: int) -> None:
        expected = {k: n for k, n in self.expected(self.model).items() if n >= bound}
        assert self.run(self.rig.rows(f"n >= {bound}")) == expected
        assert self.run(self.rig.query(f"n >= {bound}", count_only=True)).count == len(expected)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=5))
    def check_keys(self, keys: list[int]) -> None:
        wanted = {self.key(k) for k in keys}
        expected = {k: n for k, n in self.expected(self.model).items() if k in wanted}
        assert self.run(self.rig.rows("id in {wanted}", filter_params={"wanted": sorted(wanted)})) == expected

    @rule(seed=st.integers(0, 5), k=st.integers(1, 12), bound=st.none() | st.integers(0, 40))
    def check_search(self, seed: int, k: int, bound: int | None) -> None:
        queries = np.stack([vector(10**6 + seed), vector(10**6 + seed + 1)])
        filter = "" if bound is None else f"n < {bound}"
        reply = self.run(self.rig.search(queries, k, filter=filter))
        rows = [(key, n) for key, n in self.expected(self.model).items() if bound is None or n < bound]
        assert reply.counts.tolist() == [min(k, len(rows))] * 2
        found = list(zip(reply.rows.pks.to_pylist(), reply.rows.columns["n"].to_pylist(), strict=True))
        start = 0
        for query, count in zip(queries, reply.counts.tolist(), strict=True):
            distances = {row: float(np.square(vector(row[1]) - query).sum()) for row in rows}
            hits, scores = found[start : start + count], reply.scores[start : start + count]
            # bf16 codes of an index may swap neighbours that are as near as their rounding.
            np.testing.assert_allclose(scores, [distances[h] for h in hits], rtol=0.02, atol=0.02)
            np.testing.assert_allclose(scores, sorted(distances.values())[:count], rtol=0.03, atol=0.03)
            start += count

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def check_pinned(self, data: st.DataObject) -> None:
        timestamp = data.draw(st.sampled_from(sorted(self.pinned)))
        expected = self.expected(self.pinned[timestamp])
        assert self.run(self.rig.rows(snapshot_ts=timestamp)) == expected
        assert self.run(self.rig.query(snapshot_ts=timestamp, count_only=True)).count == len(expected)
        keys = sorted(expected)[:3] or [self.key(0)]
        found = self.run(self.rig.rows("id in {keys}", filter_params={"keys": keys}, snapshot_ts=timestamp))
        assert found == {k: expected[k] for k in keys if k in expected}

    @rule(timestamp=pins)
    def check_forgotten(self, timestamp: int) -> None:
        if timestamp in self.pinned or not hasattr(self, "rig"):
            return
        try:
            self.run(self.rig.query(snapshot_ts=timestamp, count_only=True))
        except SnapshotExpired:
            return


class StringKeyMachine(Machine):
    key_type = DataType.VARCHAR


@pytest.mark.parametrize("machine", [Machine, StringKeyMachine])
def test_answers_are_those_of_a_dict(machine: type[Machine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=40))
