"""SIGKILL at random moments under concurrent writers, again and again, against a dict.

``SHEAFDB_KILLS`` sets the number of kills, ``SHEAFDB_KILLS_SEED`` replays a run's choices.
"""

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from pymilvus import MilvusException
from pymilvus.grpc_gen import milvus_pb2

from tests.e2e.ledger import Ledger, Writer, check, create_table
from tests.server import TINY, Server

KILLS = int(os.environ.get("SHEAFDB_KILLS", "16"))
WRITERS = 3
KEYS = 1500


@pytest.mark.timeout(max(300, 15 * KILLS))
def test_nothing_acknowledged_is_lost(launch: Callable[..., Server]) -> None:
    seed = int(os.environ.get("SHEAFDB_KILLS_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
    print(f"SHEAFDB_KILLS={KILLS} SHEAFDB_KILLS_SEED={seed}")
    chance = random.Random(seed)
    server, ledger = launch(TINY).start(), Ledger()
    create_table(server.client(), "t", num_shards=2)

    for kill in range(KILLS):
        run_and_kill(server, ledger, chance)
        if chance.random() < 0.3:  # once more, while it recovers
            server.spawn()
            time.sleep(chance.uniform(0, 0.8))
            server.kill()
        server.start()
        try:
            check(server.client(), "t", ledger)
        except AssertionError as e:
            raise AssertionError(f"after kill {kill} of seed {seed}: {e}") from e


def run_and_kill(server: Server, ledger: Ledger, chance: random.Random) -> None:
    """Writers and a flusher run; in the midst of it the server is killed; they all end."""
    dying = False

    def work(writer: Writer) -> None:
        try:
            while True:
                writer.step()
        except (MilvusException, grpc.RpcError, ValueError) as e:  # ValueError: the channel was closed
            if not dying:
                raise AssertionError(f"refused by a living server: {e}") from e

    def flush(pause_s: float) -> None:
        stub = server.stub()
        try:
            while not dying:
                time.sleep(pause_s)
                stub.Flush(milvus_pb2.FlushRequest(collection_names=["t"]), timeout=30)
        except (grpc.RpcError, ValueError):
            assert dying

    writers = [
        Writer(server, "t", ledger, seed=chance.randrange(2**32), first=i * KEYS, keys=KEYS) for i in range(WRITERS)
    ]
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        running = [pool.submit(work, w) for w in writers] + [pool.submit(flush, chance.uniform(0.05, 0.4))]
        time.sleep(chance.uniform(0.02, 1.5))
        dying = True
        server.kill()
        for thread in running:
            thread.result()
