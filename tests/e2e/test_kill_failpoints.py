"""SIGKILL at every named place of a server: nothing acknowledged is lost, nothing deleted rises, nothing is twice.

The places of an adoption are passed in tests/integration/test_adopt.py.
"""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from pymilvus import MilvusException
from pymilvus.grpc_gen import milvus_pb2

from core.failpoints import NAMES
from tests.e2e.ledger import ONCE, Ledger, Writer, check, create_table, read_all
from tests.e2e.tables import ID, create, vector_field
from tests.server import TINY, Server, StartFailed

Launch = Callable[..., Server]
SIGKILLED = -9
DEATH_DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, int]]:
    """A stopped server's folder with sealed, indexed, deleted and unsealed rows, and what is in it."""
    server = Server(tmp_path_factory.mktemp("baseline") / "data", TINY)
    try:
        server.start()
        create_table(server.client(), "t", num_shards=2)
        ledger = Ledger()
        writer = Writer(server, "t", ledger, seed=1)
        for step in range(6):
            writer.put(list(range(step * 100, step * 100 + 150)))
            writer.delete(list(range(step * 100, step * 100 + 20)))
            if step % 2:
                server.client().flush("t")
        check(server.client(), "t", ledger)
        assert server.stop() == 0
    finally:
        server.close()
    return server.folder, dict(ledger.rows)


def churn(server: Server, writer: Writer, step: int) -> None:
    """Passes every failpoint sooner or later: writes, deletes, flushes and DDL; the rest follows from them."""
    writer.put(writer.some_keys(200))
    writer.delete(writer.some_keys(40))
    writer.put(writer.some_keys(), upsert=False)
    writer.read(writer.some_keys())
    writer.stub.Flush(milvus_pb2.FlushRequest(collection_names=["t"]), timeout=30)
    side = f"side{step}"
    create(writer.client, side, [ID, vector_field(4)], **ONCE)
    writer.client.create_partition(side, "p", **ONCE)
    if step % 2:
        writer.client.drop_collection(side, **ONCE)


@pytest.mark.parametrize("failpoint", [n for n in NAMES if not n.startswith("adopt.")])
def test_kill_at(launch: Launch, tmp_path: Path, baseline: tuple[Path, dict[int, int]], failpoint: str) -> None:
    """At one of its first passages; which, the run's seed says (``--randomly-seed`` replays it)."""
    passage = random.randint(1, 3)
    folder, rows = baseline
    shutil.copytree(folder, tmp_path / "data")
    server = launch(TINY, folder=tmp_path / "data")
    ledger = Ledger()
    ledger.rows = dict(rows)

    assert run_until_dead(server, ledger, f"{failpoint}=kill@{passage}") == SIGKILLED

    server.start()
    client = server.client()
    check(client, "t", ledger)
    sides = [c for c in client.list_collections() if c != "t"]
    for side in sides:
        assert client.describe_collection(side)["collection_name"] == side
        client.drop_collection(side)

    writer = Writer(server, "t", ledger, seed=passage + 100)
    for _ in range(5):
        writer.step()
    client.flush("t")
    check(client, "t", ledger)
    server.restart(kill=False)
    check(server.client(), "t", ledger)


def run_until_dead(server: Server, ledger: Ledger, failpoints: str) -> int:
    """Churns until the failpoint ends the process; its exit code. It may do so before it is ready."""
    try:
        server.start(failpoints=failpoints)
    except StartFailed as e:
        if e.returncode is None:
            raise
        return e.returncode
    end = time.monotonic() + DEATH_DEADLINE_S
    try:
        writer = Writer(server, "t", ledger, seed=7)
        step = 0
        while time.monotonic() < end:
            churn(server, writer, step)
            step += 1
    except (MilvusException, grpc.RpcError):
        server.wait_dead(5)  # fails if the server answered an error and lives
    assert not server.alive, f"{failpoints} was not passed in {DEATH_DEADLINE_S} s"
    return server.wait_dead(5)


@pytest.mark.parametrize("failpoint", ["write.before_append", "write.appended", "log.before_commit", "log.committed"])
def test_generated_keys_are_written_once(launch: Launch, failpoint: str) -> None:
    """The one write whose repetition would show: rows that get their keys from the server."""
    server = launch(TINY).start()
    create_table(server.client(), "auto", auto_id=True, num_shards=2)
    given: list[int] = []
    rows = [{"n": i, "vector": [float(i)] * 8} for i in range(50)]
    server.restart(failpoints=f"{failpoint}=kill@4")
    client = server.client(patient=False)

    def insert_until_dead() -> None:
        for _ in range(10):
            given.extend(client.insert("auto", rows, **ONCE)["ids"])

    with pytest.raises((MilvusException, grpc.RpcError)):
        insert_until_dead()
    assert server.wait_dead(10) == SIGKILLED
    server.start()
    found = server.client().query("auto", filter="", limit=10_000, output_fields=["n"])
    assert len({r["id"] for r in found}) == len(found)
    assert {r["id"] for r in found} >= set(given)
    assert len(found) in (len(given), len(given) + 50)


def test_a_folder_read_twice_is_the_same(launch: Launch, tmp_path: Path, baseline: tuple[Path, dict[int, int]]) -> None:
    """Killed again and again while it recovers, the server ends up with the same rows."""
    folder, rows = baseline
    shutil.copytree(folder, tmp_path / "data")
    server = launch(TINY, folder=tmp_path / "data")
    for delay_ms in range(0, 1200, 150):
        server.spawn()
        time.sleep(delay_ms / 1000)
        server.kill()
    server.start()
    assert read_all(server.client(), "t") == rows
