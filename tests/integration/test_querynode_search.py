"""Searches of a query node over a real store."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import (
    FieldNotFound,
)
from core.types import DataType
from querynode.block import BLOCK_ROWS
from tests.integration.querynode_rig import VECTOR, Rig, collection, vector
from tests.integration.querynode_steps import FIRST, SECOND, opened, rows, wait_for


@pytest.mark.parametrize("metric", ["L2", "IP", "COSINE"])
@pytest.mark.parametrize("inline_cost", [0, 10**9])
async def test_growing_sealed_and_indexed_rows_in_one_answer(tmp_path: Path, metric: str, inline_cost: int) -> None:
    rig = await opened(tmp_path, collection(metric=metric), inline_cost=inline_cost)
    await rig.upsert(rows(*range(100)))
    await rig.seal()
    await rig.index()
    await rig.upsert(rows(*range(100, 150)), SECOND)
    await rig.seal()
    await rig.settled()
    await rig.upsert(rows(*range(150, 200)))
    await rig.delete(list(range(0, 200, 5)))
    queries = np.stack([vector(10_000 + i) for i in range(7)])
    reply = await rig.search(queries, 10, output=("v", "n"))
    alive = np.array([n for n in range(200) if n % 5])
    vectors = np.stack([vector(n) for n in alive])
    if metric == "L2":
        scores = np.square(queries[:, None] - vectors).sum(2)
    else:
        lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
        scores = queries @ vectors.T / (lengths if metric == "COSINE" else 1)
    best = np.argsort(scores if metric == "L2" else -scores, axis=1)[:, :10]
    assert reply.counts.tolist() == [10] * 7
    found = reply.rows.pks.to_numpy().reshape(7, 10)
    overlap = [len(set(f) & set(alive[b])) for f, b in zip(found.tolist(), best, strict=True)]
    assert sum(overlap) >= 69
    assert list(reply.rows.columns) == ["v", "n"]
    assert reply.rows.columns["n"].to_pylist() == reply.rows.pks.to_pylist()
    flat = np.array(reply.rows.columns["v"].to_pylist(), np.float32)
    assert np.array_equal(flat, np.stack([vector(n) for n in reply.rows.pks.to_pylist()]))
    await rig.close()


async def test_a_search_by_groups(rig: Rig) -> None:
    """n is the group: five rows of each, at the same place."""
    await rig.upsert([(10 * n + i, n) for n in range(30) for i in range(5)])
    await rig.seal()
    await rig.settled()
    await rig.upsert([(10 * n + i, n) for n in range(30, 40) for i in range(5)])
    order = np.argsort([np.square(vector(n) - vector(999)).sum() for n in range(40)])
    reply = await rig.search(vector(999)[None], 6, group_by="n")
    assert reply.groups is not None
    assert reply.groups.to_pylist() == order[:6].tolist()
    reply = await rig.search(vector(999)[None], 6, group_by="n", group_size=2, output=())
    assert reply.groups is not None
    assert reply.groups.to_pylist() == np.repeat(order[:3], 2).tolist()
    assert reply.rows.columns == {}
    reply = await rig.search(vector(999)[None], 100, group_by="n", filter="n < 3")
    assert reply.counts.tolist() == [3]


async def test_a_search_between_scores(rig: Rig) -> None:
    await rig.upsert(rows(*range(60)))
    await rig.seal()
    await rig.settled()
    await rig.upsert(rows(*range(60, 80)))
    distances = sorted(float(np.square(vector(n) - vector(500)).sum()) for n in range(80))
    reply = await rig.search(vector(500)[None], 50, radius=distances[30], range_filter=distances[10] - 1e-4)
    np.testing.assert_allclose(reply.scores, distances[10:30], rtol=1e-4)


async def test_an_empty_shard(rig: Rig) -> None:
    reply = await rig.search(np.stack([vector(1), vector(2)]), 5, group_by="n")
    assert reply.counts.tolist() == [0, 0]
    assert len(reply.scores) == len(reply.rows.pks) == 0
    assert reply.rows.columns["n"].to_pylist() == []
    assert await rig.rows("n > 1", limit=3) == {}
    assert (await rig.query("n > 1", count_only=True)).count == 0


async def test_an_unknown_output_field(rig: Rig) -> None:
    with pytest.raises(FieldNotFound, match="nope"):
        await rig.query(output=("nope",))
    with pytest.raises(FieldNotFound, match="nope"):
        await rig.search(vector(1)[None], 1, output=("nope",))


async def test_indexed_segments_hold_no_full_vectors(rig: Rig) -> None:
    await rig.upsert(rows(*range(500)))
    await rig.seal()
    await rig.settled()
    await rig.search(vector(1)[None], 1)
    (segment,) = rig.node._placed.all()[0].shard.sealed.values()
    assert segment._vectors
    await rig.index()
    await rig.settled()
    await rig.search(vector(1)[None], 1, output=("v",))
    assert not segment._vectors
    assert segment.index(rig.collection.schema.by_id[VECTOR]) is not None


async def test_many_growing_rows_get_an_interim_index(tmp_path: Path) -> None:
    rig = await opened(tmp_path, interim_rows=2 * BLOCK_ROWS)
    total = 3 * BLOCK_ROWS + 100
    for start in range(0, total, 5000):
        await rig.upsert(rows(*range(start, min(start + 5000, total))))

    shard = rig.node._placed.all()[0].shard

    async def frozen() -> bool:
        return FIRST in shard.growing.frozen and shard.growing.frozen[FIRST].rows == 3 * BLOCK_ROWS

    await wait_for(frozen)
    await rig.delete([5, 20_000])
    wanted = [5, 17, 9_000, 20_000, total - 1]
    reply = await rig.search(np.stack([vector(n) for n in wanted]), 1, params={"ef": 200})
    found = reply.rows.pks.to_pylist()
    assert (found[1], found[2], found[4]) == (17, 9_000, total - 1)
    assert not {5, 20_000} & set(found)
    assert (await rig.query(count_only=True)).count == total - 2
    await rig.seal()
    await rig.settled()
    assert not shard.growing.frozen
    assert (await rig.query(count_only=True)).count == total - 2
    await rig.close()


async def test_string_keys(tmp_path: Path) -> None:
    rig = await opened(tmp_path, collection(DataType.VARCHAR))
    names = ["zoë", "", "a", "aa", "Ω", "𝄞", "a b"]
    await rig.upsert([(k, n) for n, k in enumerate(names)])
    await rig.seal()
    await rig.settled()
    await rig.upsert([("Ω", 50), ("b", 51)])
    await rig.delete(["a", "never"])
    expected = {k: n for n, k in enumerate(names) if k != "a"} | {"Ω": 50, "b": 51}
    assert await rig.rows() == expected
    assert await rig.rows('id in ["Ω", "𝄞", "a", "nobody"]') == {"Ω": 50, "𝄞": 5}
    assert list(await rig.rows(limit=2)) == ["", "a b"]
    await rig.close()
