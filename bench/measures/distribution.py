"""What it costs to be a cluster: the same rows, segments and indexes in one process and in several, turn
by turn in one run, all of it on this machine.

Searches are compared by calls per second and core used: client and servers share the machine's cores, and
a cluster would not have to.
"""

import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import psutil
from pymilvus import MilvusClient

from bench.clients import BareSearch, Load, drive
from bench.cluster import BenchCluster
from bench.context import (
    BATCH,
    COLLECTION,
    HNSW,
    Bench,
    Row,
    create,
    insert_all,
    insert_requests,
    search_request,
    smallest_ef,
)
from bench.context import search_requests as single_requests
from bench.measures.batch import NQ
from bench.measures.profile import RATE, spy
from bench.measures.strong import reads_after_writes
from bench.server import Server

CLIENTS = (1, 8, 32)
PROFILED_CLIENTS = 8
STEPS_SHOWN = 20
PROXY = "proxy-1"
ROUNDS = 3
SECONDS = 1.5
INSERTED_ROWS = 20_000
STRONG_ROUNDS = 100
HALVES = ("first", "second")
"""Partitions: each a segment, so that there is something to spread."""
SETTINGS: dict[str, object] = {"index_node.rows_min": 1000, "query_node.spread_bytes": 1}
QUIET_S = 3.0
"""Longer than a query node takes to open the index that the coordinator has just named."""
QUIET_CORES, QUIET_AFTER_S = 0.12, 60.0
"""What idle servers take of a core; and how long they are given to come to that after rows or nodes came: with one
client, what they still do then would count as a good part of what its calls cost."""
AT_LEAST = 0.5
WAITING = ("_more (rpc/direct.py", "NativeListener._next (")
HEADING = "What distribution costs"


class Pair:
    """The two servers under measurement, and what the CPU time of a call is in each."""

    def __init__(self, bench: Bench, alone: Server, cluster: BenchCluster) -> None:
        self._bench, self.alone, self.cluster = bench, alone, cluster
        self._seconds = min(bench.seconds, SECONDS)
        self.lines: list[str] = []

    def search(self, of: str, work: BareSearch, clients: int, at_least: float | None, queries: int = 1) -> None:
        """Adds the row of one load. of: which processes answer."""
        rounds = [
            (self._drive(self.alone, work, clients), self._drive(self.cluster, work, clients)) for _ in range(ROUNDS)
        ]
        ratio = median(per_core(theirs) / per_core(ours) for ours, theirs in rounds)
        ours, theirs = (sorted(loads, key=lambda load: load.qps)[ROUNDS // 2] for loads in zip(*rounds, strict=True))
        what = f"nq = {queries}, " if queries > 1 else ""
        note = (
            f"{theirs.qps:,.0f} QPS with {cores(theirs):.2f} cores, p50 {theirs.p50_ms:.2f} ms;"
            f" standalone {ours.qps:,.0f} with {cores(ours):.2f}, p50 {ours.p50_ms:.2f} ms"
        )
        name = f"{of}, {what}{clients} clients: QPS per core used, of standalone"
        self._bench.add(Row(name, ratio, "x", at_least, note=note))
        self.lines.append(f"| {of}, {what}{clients} clients | {spent_us(ours)} | {spent_us(theirs)} |")

    def _drive(self, server: Server | BenchCluster, work: BareSearch, clients: int) -> Load:
        return drive(server.address, work, clients, self._seconds, lambda: spent(server))


def measure(bench: Bench) -> None:
    options = [f"{name}={value}" for name, value in SETTINGS.items()]
    with Server(settings=options) as alone, BenchCluster(SETTINGS) as cluster:
        inserts(bench, alone, cluster)
        for server in (alone, cluster):
            fill(bench, server)
        wait_until_quiet(alone)
        ef, _ = smallest_ef(alone, bench.data)
        single = BareSearch(single_requests(bench.data.queries, ef))
        batch = BareSearch([search_request(list(bench.data.queries[:NQ]), ef)])
        pair, leader = Pair(bench, alone, cluster), ""
        for of, at_least in (("proxy and query node", None), ("proxy, leader and worker", AT_LEAST)):
            if at_least:
                leader = cluster.spread()
            for server in (alone, cluster):
                wait_until_quiet(server)
            for clients in CLIENTS:
                pair.search(of, single, clients, at_least)
            pair.search(of, batch, 1, at_least, NQ)
        profiles = profile(cluster, single, (PROXY, leader), max(bench.seconds, 3.0))
        strong_reads(bench, alone, cluster)
    bench.sections[HEADING] = page(pair.lines, profiles)
    print(bench.sections[HEADING])


def spent(server: Server | BenchCluster) -> Mapping[str, float]:
    """CPU seconds until now, by process."""
    pids = {"standalone": server.pid} if isinstance(server, Server) else server.pids
    return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in pids.items()}


def wait_until_quiet(server: Server | BenchCluster) -> None:
    """Returns once what came before is done; or goes on after a while."""
    end = time.monotonic() + QUIET_AFTER_S
    while time.monotonic() < end:
        before = sum(spent(server).values())
        time.sleep(QUIET_S)
        if sum(spent(server).values()) - before < QUIET_S * QUIET_CORES:
            return


def per_core(load: Load) -> float:
    return load.qps / cores(load)


def cores(load: Load) -> float:
    return sum(load.cpu_s.values()) / load.seconds


def spent_us(load: Load) -> str:
    """CPU time of a call, by process; those that hardly took part left out."""
    each = {name: 1e6 * cpu_s / (load.qps * load.seconds) for name, cpu_s in load.cpu_s.items()}
    total = sum(each.values())
    parts = [f"{name} {us:,.0f}" for name, us in sorted(each.items(), key=lambda item: -item[1]) if us > total / 50]
    return f"{total:,.0f} ({', '.join(parts)})" if len(each) > 1 else f"{total:,.0f}"


def fill(bench: Bench, server: Server | BenchCluster) -> None:
    """All rows, half of them in each partition, sealed and indexed."""
    client = server.client()
    create(client, bench.data.dim, HNSW)
    for name in HALVES:
        client.create_partition(COLLECTION, name)
    requests = insert_requests(bench.data)
    for number, request in enumerate(requests):
        request.partition_name = HALVES[2 * number // len(requests)]
    insert_all(server.address, requests)
    client.flush(COLLECTION)
    wait_for_index(client)
    client.close()


def wait_for_index(client: MilvusClient) -> None:
    end = time.monotonic() + 300.0
    while time.monotonic() < end:
        index = client.describe_index(COLLECTION, "vector")
        if index["indexed_rows"] == index["total_rows"]:
            return
        time.sleep(0.2)
    raise SystemExit("the rows were not indexed in time")


def inserts(bench: Bench, alone: Server, cluster: BenchCluster) -> None:
    requests = insert_requests(bench.data)[: INSERTED_ROWS // BATCH]
    rows = sum(r.num_rows for r in requests)

    def rate(server: Server | BenchCluster) -> float:
        client = server.client()
        create(client, bench.data.dim, HNSW)
        took = insert_all(server.address, requests)
        client.drop_collection(COLLECTION)
        client.close()
        return rows / took

    rounds = [(rate(alone), rate(cluster)) for _ in range(ROUNDS)]
    ratio = median(theirs / ours for ours, theirs in rounds)
    ours, theirs = (median(rates) for rates in zip(*rounds, strict=True))
    note = f"{theirs:,.0f} rows/s to Kafka, {ours:,.0f} standalone; one client"
    bench.add(Row(f"cluster: insert, {BATCH} rows a call, of standalone", ratio, "x", note=note))


def strong_reads(bench: Bench, alone: Server, cluster: BenchCluster) -> None:
    standalone = reads_after_writes(alone.address, bench.data, STRONG_ROUNDS)
    eventually, strong = reads_after_writes(cluster.address, bench.data, STRONG_ROUNDS)
    note = (
        f"p50 {strong:.2f} ms strong, {eventually:.2f} ms eventually;"
        f" standalone {standalone[1]:.2f} and {standalone[0]:.2f} ms"
    )
    bench.add(Row("cluster: strong read after write, added p50", strong - eventually, "ms", note=note))


def profile(cluster: BenchCluster, work: BareSearch, names: Sequence[str], seconds: float) -> dict[str, Counter[str]]:
    """py-spy's samples of these processes under 8 clients, by innermost function."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in names}
        commands = ([*spy(cluster.pids[n], int(seconds)), "--output", str(file)] for n, file in files.items())
        spying = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
        drive(cluster.address, work, PROFILED_CLIENTS, seconds)
        if any(process.wait() for process in spying):
            raise SystemExit("py-spy could not watch the cluster: it needs root, or kernel.yama.ptrace_scope = 0")
        return {name: leaves(file.read_text()) for name, file in files.items()}


def leaves(stacks: str) -> Counter[str]:
    """Samples by innermost function, waiting for another process left out."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frame = stack.split(";")[-1]
        if not frame.startswith(WAITING):
            found[frame] += int(count)
    return found


def page(lines: list[str], profiles: dict[str, Counter[str]]) -> str:
    parts = [
        "CPU time of a call in µs, all processes of SheafDB together. Kafka, etcd and MinIO take no part in a search.",
        "",
        "| search | standalone | cluster |",
        "|---|---|---|",
        *lines,
    ]
    for name, samples in profiles.items():
        title = f"{name} under {PROFILED_CLIENTS} clients"
        parts += ["", f"| {title}, by innermost function, of {RATE:,} samples a second | share |", "|---|---|"]
        parts += [f"| `{step}` | {100 * n / samples.total():.1f} % |" for step, n in samples.most_common(STEPS_SHOWN)]
    return "\n".join(parts)
