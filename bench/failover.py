"""``make failover``: what clients see when processes of a cluster are killed or restarted.

A cluster of 9 role processes, Kafka, etcd and MinIO on this machine; clients with their default
settings. Writes ``docs/failover.md``.
"""

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pymilvus import DataType, MilvusClient

from bench.callers import Ask, Callers
from bench.report import machine
from core.settings import LogOutputSettings
from sheafdb.cluster import Cluster, RoleProcess, Size
from sheafdb.cluster.cluster import ROLES
from sheafdb.logging import configure
from sheafdb.servers.install import install
from sheafdb.servers.progress import shown

DIM, ROWS = 64, 20_000
VECTORS = np.random.default_rng(7).random((ROWS, DIM), dtype="f4")
SIZE = Size(proxy=2, querynode=2, datanode=2, indexnode=1, coordinator=2)
WARM_S = 1.0
AFTER_S = 6.0
"""How long clients go on after a fault: longer than any lease."""
BACK_DEADLINE_S = 60.0
LOADED, WRITTEN = {1: "one_replica", 2: "two_replicas"}, "written"
"""Collections that are searched, by their number of replicas; and the one that is written to."""


@dataclass
class Measure:
    """The tries of one measure. most: the bound of a try's value, in ``unit``."""

    name: str
    unit: str
    most: float
    note: str = ""
    tries: list[float] = field(default_factory=list)

    @property
    def met(self) -> bool:
        return bool(self.tries) and max(self.tries) <= self.most


# --- what the clients do -----------------------------------------------------------------------------
def fill(client: MilvusClient) -> None:
    """Two shards each: every search needs both query nodes where there is one replica. Searches are exact:
    an answer is right or wrong."""
    for replicas, name in LOADED.items():
        schema, index = client.create_schema(), client.prepare_index_params()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        index.add_index("vector", index_type="FLAT", metric_type="L2")
        client.create_collection(name, schema=schema, index_params=index, num_shards=2)
        for first in range(0, ROWS, 5000):
            rows = [{"id": i, "vector": VECTORS[i].tolist()} for i in range(first, first + 5000)]
            client.insert(name, rows)
        client.flush(name)
        client.release_collection(name)
        client.load_collection(name, replica_number=replicas)
    make_written(client)


def make_written(client: MilvusClient) -> None:
    client.create_collection(WRITTEN, dimension=DIM, metric_type="L2", num_shards=2, consistency_level="Strong")


def searches(replicas: int) -> Ask:
    def search(client: MilvusClient, n: int) -> None:
        wanted = n * 7919 % ROWS
        found = client.search(LOADED[replicas], data=[VECTORS[wanted].tolist()], limit=1)
        assert found[0][0]["id"] == wanted, (wanted, found)

    return search


class Writes:
    """Rows of an id of their own; ``written`` were acknowledged."""

    def __init__(self) -> None:
        self._next = 0
        self.written: set[int] = set()

    def __call__(self, client: MilvusClient, _n: int) -> None:
        self._next += 1
        id = self._next
        client.upsert(WRITTEN, [{"id": id, "vector": VECTORS[0].tolist()}])
        self.written.add(id)

    def check(self, client: MilvusClient) -> None:
        """Raises ``AssertionError`` unless all of them are there, once."""
        found = [row["id"] for row in client.query(WRITTEN, filter="id > 0", output_fields=["id"])]
        assert len(found) == len(set(found)), "doubled"
        assert self.written <= set(found), f"{len(self.written - set(found))} rows are lost"


def definitions(client: MilvusClient, n: int) -> None:
    client.create_collection(f"made_{n}", dimension=4)
    client.drop_collection(f"made_{n}")


# --- what is done to the cluster -----------------------------------------------------------------------
class Failover:
    """The measures over one filled cluster; each try adds to ``measures``."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.writes = Writes()
        self.measures: dict[str, Measure] = {}

    async def query_node_killed(self, replicas: int, victim: RoleProcess) -> None:
        with Callers(self.cluster.proxies[0], [searches(replicas)] * 4) as callers:
            killed = await self._kill(victim)
            back_s = await _back(callers, killed)
            await asyncio.sleep(AFTER_S)
            await asyncio.to_thread(callers.stop)
        name = f"query node killed, replica_number={replicas}"
        self._failed(name, callers)
        if replicas > 1:
            self._note(f"{name}: longest search", callers.longest_s, most=5.0)
        else:
            self._note(f"{name}: first right answer", back_s, most=5.0)
        await victim.start_again()

    async def query_node_paused(self, victim: RoleProcess) -> None:
        """It is alive, silent, and keeps its connections."""
        with Callers(self.cluster.proxies[0], [searches(2)] * 4) as callers:
            await asyncio.sleep(WARM_S)
            victim.pause()
            await asyncio.sleep(AFTER_S)
            victim.resume()
            await asyncio.to_thread(callers.stop)
        name = "query node paused (SIGSTOP), replica_number=2"
        self._failed(name, callers)
        self._note(f"{name}: longest search", callers.longest_s, most=2.0)

    async def proxy_killed(self, victim: RoleProcess) -> None:
        other = next(a for a in self.cluster.proxies if a != victim.address)
        with Callers(victim.address, [Writes()]) as same, Callers(other, [self.writes]) as others:
            killed = await self._kill(victim)
            await victim.start_again()
            back_s = await _back(same, killed)
            await asyncio.to_thread(others.stop)
        self._failed("proxy killed, clients of the other one", others)
        self._note("proxy killed: writes on the other one, longest", others.longest_s, most=3.0)
        self._note("proxy killed and started at once: writes on it are back", back_s, most=3.0)

    async def data_node_killed(self, victim: RoleProcess) -> None:
        with Callers(self.cluster.proxies[0], [self.writes]) as writers, Callers(self.cluster.proxies[0], [flush]) as f:
            killed = await self._kill(victim)
            back_s = await _back(writers, killed)
            flushed_s = await _back(f, killed)
            await asyncio.to_thread(writers.stop)
        self._failed("data node killed", writers, f)
        self._note("data node killed: writes are back", back_s, most=5.0)
        self._note("data node killed: a flush is back", flushed_s, most=5.0)
        await victim.start_again()

    async def leader_killed(self) -> None:
        victim = await self.cluster.leader()
        assert victim, "nobody leads"
        address = self.cluster.proxies[0]
        with Callers(address, [self.writes]) as writers, Callers(address, [definitions]) as definers:
            killed = await self._kill(victim)
            back_s, defined_s = await _back(writers, killed), await _back(definers, killed)
            await asyncio.to_thread(writers.stop)
        self._failed("leading coordinator killed", writers, definers)
        self._note("leading coordinator killed: writes are back", back_s, most=5.0)
        self._note("leading coordinator killed: DDL is back", defined_s, most=5.0)
        await victim.start_again()

    async def all_killed(self, *, servers: bool) -> None:
        cluster = self.cluster
        for process in [*cluster.roles.values(), *(cluster.servers.values() if servers else ())]:
            process.kill()
        started = time.monotonic()
        for process in cluster.roles.values():
            process.spawn()
        if servers:
            await asyncio.gather(*(server.start_again() for server in cluster.servers.values()))
        await asyncio.to_thread(self._until_right)
        what = "all roles and Kafka, etcd, MinIO" if servers else "all roles"
        self._note(f"{what} killed and started at once: first right answers", time.monotonic() - started, most=15.0)
        await asyncio.gather(*(process.ready() for process in cluster.roles.values()))

    async def rolling_restart(self, roles: Sequence[str] = ROLES) -> None:
        proxies = self.cluster.proxies
        asks: list[list[Ask]] = [[searches(2), searches(1), self.writes], [searches(2), Writes(), definitions]]
        with ExitStack() as stack:
            callers = [stack.enter_context(Callers(at, some)) for at, some in zip(proxies, asks, strict=False)]
            await asyncio.sleep(WARM_S)
            for role in roles:
                for process in self.cluster.of(role):
                    await process.restart()
            await asyncio.sleep(WARM_S)
            for some in callers:
                await asyncio.to_thread(some.stop)
        self._failed("rolling restart of all roles", *callers)
        self._note("rolling restart of all roles: longest call", max(c.longest_s for c in callers), most=10.0)

    def check(self, client: MilvusClient) -> None:
        """Raises ``AssertionError`` unless searches are right and acknowledged rows are there."""
        for replicas in LOADED:
            searches(replicas)(client, 1)
        self.writes.check(client)

    async def _kill(self, victim: RoleProcess) -> float:
        await asyncio.sleep(WARM_S)
        victim.kill()
        return time.monotonic()

    def _until_right(self) -> None:
        end = time.monotonic() + BACK_DEADLINE_S
        while True:
            try:
                client = MilvusClient(f"http://{self.cluster.proxies[0]}", dedicated=True, timeout=2)
                try:
                    return self.check(client)
                finally:
                    client.close()
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def _failed(self, name: str, *callers: Callers) -> None:
        failed = [error for some in callers for error in some.failed]
        made = sum(len(some.calls) for some in callers)
        for error in failed[:3]:
            print(f"  failed: {error}", file=sys.stderr)
        self._note(f"{name}: failed calls", len(failed), most=0, unit="", note=f"of {made:,}")

    def _note(self, name: str, value: float, *, most: float, unit: str = "s", note: str = "") -> None:
        measure = self.measures.setdefault(name, Measure(name, unit, most))
        measure.tries.append(value)
        measure.note = note
        print(f"{name}: {value:.2f} {unit} {note}".rstrip(), file=sys.stderr, flush=True)


def flush(client: MilvusClient, _n: int) -> None:
    client.flush(WRITTEN)


async def _back(callers: Callers, since: float) -> float:
    """Waits for the first right answer to a call made after ``since``."""
    end = time.monotonic() + BACK_DEADLINE_S
    while (back_s := callers.back_s(since)) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"not back after {BACK_DEADLINE_S} s: {callers.failed[-1:]}")
        await asyncio.sleep(0.02)
    return back_s


# --- the tool --------------------------------------------------------------------------------------------
async def run(folder: Path, tries: int) -> list[Measure]:
    """All measures on a new cluster in ``folder``."""
    cluster = await Cluster.start(folder, size=SIZE, settings={"server.metrics_port": -1, "logging.level": "warning"})
    try:
        measured = Failover(cluster)
        with_client = _with_client(cluster)
        await with_client(fill)
        for n in range(tries):
            for replicas in LOADED:
                await measured.query_node_killed(replicas, cluster.of("querynode")[n % SIZE.querynode])
            await measured.query_node_paused(cluster.of("querynode")[n % SIZE.querynode])
            await measured.proxy_killed(cluster.of("proxy")[n % SIZE.proxy])
            await measured.data_node_killed(cluster.of("datanode")[n % SIZE.datanode])
            await measured.leader_killed()
        for _ in range(tries):
            await measured.all_killed(servers=False)
            await measured.all_killed(servers=True)
        for _ in range(max(1, tries - 1)):
            await measured.rolling_restart()
        await with_client(measured.check)
        return list(measured.measures.values())
    finally:
        cluster.kill()


def _with_client(cluster: Cluster) -> Callable[[Callable[[MilvusClient], None]], Awaitable[None]]:
    def use(ask: Callable[[MilvusClient], None]) -> None:
        client = MilvusClient(f"http://{cluster.proxies[0]}", dedicated=True)
        try:
            ask(client)
        finally:
            client.close()

    return lambda ask: asyncio.to_thread(use, ask)


def render(measures: Sequence[Measure], seconds: float) -> str:
    lines = [
        "# What clients see of a failure",
        "",
        f"Written by `make failover`, in {seconds:.0f} s. Processes are ended by SIGKILL, in a rolling"
        " restart by SIGTERM. Times are seconds from the kill (of a whole cluster: from the start of its processes,"
        " the import of their code included) to the end of the first call that began after it and was answered"
        " rightly. Clients are pymilvus with its default settings, on the same machine as everything else.",
        "",
        f"Machine: {machine()}",
        "",
        f"Cluster: {', '.join(f'{getattr(SIZE, r)} {r}' for r in ROLES)}, one Kafka, etcd and"
        f" MinIO. Load: 2 to 6 clients, each with a pause of 5 ms between its calls: searches of two collections of"
        f" {ROWS:,} x {DIM} in two shards, upserts of one row, flushes, collections made and dropped.",
        "",
        "| | median | worst | bound | tries | |",
        "|---|---|---|---|---|---|",
    ]
    for m in measures:
        median, worst = (f"{value:.3g} {m.unit}".strip() for value in (statistics.median(m.tries), max(m.tries)))
        bound = f"{m.most:g} {m.unit}".strip()
        lines.append(
            f"| {m.name} | **{median}** | {worst} | {bound} | {len(m.tries)} | {'met' if m.met else 'missed'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.failover", description=__doc__)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/failover.md"))
    arguments = parser.parse_args()
    configure(LogOutputSettings(level="warning"))
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    with shown() as progress:
        install(("kafka", "etcd", "minio"), progress)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sheafdb-failover-") as folder:
        measures = asyncio.run(run(Path(folder), arguments.tries))
    page = render(measures, time.monotonic() - began)
    arguments.out.write_text(page)
    print(page)
    return 0 if all(m.met for m in measures) else 1


if __name__ == "__main__":
    sys.exit(main())
