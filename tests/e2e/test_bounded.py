"""Overwriting the same keys for ever takes bounded room: the log is trimmed, dead rows and objects go.

``SHEAFDB_UPSERTS`` sets the number of rows written (the issue's million: 1000000).
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pymilvus import DataType

from tests.e2e.tables import ID, count, create, vector_field
from tests.server import TINY, Server
from tests.waiting import wait_until

UPSERTS = int(os.environ.get("SHEAFDB_UPSERTS", "200000"))
KEYS, BATCH, DIM = 10_000, 1000, 16
MB = 1 << 20


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder. Files may go while we look."""
    total = 0
    for p in [path, *path.rglob("*")] if path.is_dir() else path.parent.glob(f"{path.name}*"):
        try:
            total += p.stat().st_size if p.is_file() else 0
        except FileNotFoundError:
            continue
    return total


@pytest.mark.timeout(max(300, UPSERTS // 1000))
def test_log_objects_and_metadata_stay_bounded(launch: Callable[..., Server]) -> None:
    settings = TINY | {"data_node.segment_bytes": MB, "index_node.rows_min": 1_000_000, "log.channels": 1}
    server = launch(settings).start()
    client = server.client()
    index = {"vector": {"index_type": "FLAT", "metric_type": "L2"}}
    create(client, "t", [ID, ("n", DataType.INT64, {}), vector_field(DIM)], index, consistency_level="Strong")
    rng = np.random.default_rng(0)
    last: dict[int, int] = {}
    sizes: list[dict[str, int]] = []
    for n in range(UPSERTS // BATCH):
        keys = rng.choice(KEYS, BATCH, replace=False).tolist()
        values = rng.standard_normal((BATCH, DIM), np.float32)
        client.upsert("t", [{"id": k, "n": n, "vector": v} for k, v in zip(keys, values, strict=True)])
        last.update(dict.fromkeys(keys, n))
        sizes.append({part: size(server.folder / part) for part in ("log.db", "objects", "meta.db")})

    def settled() -> bool:
        return size(server.folder / "objects") < 8 * len(last) * (DIM * 4 + 32)

    wait_until(settled, "compaction and collection to leave little more than the live rows", 60)
    peaks = {part: max(s[part] for s in sizes) for part in sizes[0]}
    half = len(sizes) // 2
    for part, peak in peaks.items():
        early = max(s[part] for s in sizes[:half])
        assert peak <= 1.5 * early + 4 * MB, f"{part} grew from {early} to {peak} in the second half"
    written = UPSERTS * (DIM * 4 + 16)
    assert peaks["meta.db"] < 8 * MB
    assert written < 50 * MB or peaks["log.db"] < written / 2, "the log was not trimmed"

    assert count(client, "t") == len(last)
    rows = client.query("t", filter="", limit=KEYS, output_fields=["n"])
    assert {r["id"]: r["n"] for r in rows} == last
    before = size(server.folder / "log.db")
    server.restart()
    assert count(server.client(), "t") == len(last)
    assert size(server.folder / "log.db") <= before + 4 * MB
