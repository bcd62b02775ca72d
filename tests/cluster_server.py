"""A cluster of several processes for the end-to-end tests, in the place of the one process of ``tests.server``."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from sheafdb.cluster import Cluster, Endpoints, RoleProcess, Size
from tests.served import Served

SIZE = Size(proxy=2, querynode=3, datanode=2, indexnode=1, coordinator=1)


class ClusterServer(Served):
    """Serves when it is made. The proxies are used in turn, as behind a load balancer; each has another listener.

    settings: dotted names to values, for all processes.
    """

    def __init__(self, folder: Path, endpoints: Endpoints, settings: Mapping[str, Any]) -> None:
        super().__init__()
        # Of its own: the tests' loops come and go.
        self._loop = asyncio.new_event_loop()
        try:
            self._cluster = self._loop.run_until_complete(
                Cluster.start(
                    folder,
                    size=SIZE,
                    endpoints=endpoints,
                    settings=settings,
                    of_process={"proxy-1": {"server.listener": "native"}, "proxy-2": {"server.listener": "grpc"}},
                )
            )
        except BaseException:
            self._loop.close()
            raise
        self._turns = itertools.cycle(self._cluster.proxies)

    @property
    def address(self) -> str:
        return next(self._turns)

    @property
    def alive(self) -> bool:
        return all(p.alive for p in self._processes)

    @property
    def rss(self) -> int:
        return sum(psutil.Process(p.pid).memory_info().rss for p in self._processes)

    def restart_one(self, nth: int, *, kill: bool) -> None:
        process = self._processes[nth % len(self._processes)]
        if process.role == "proxy":
            self._disconnect()
        if kill:
            process.kill()
        else:
            code = self._loop.run_until_complete(process.stop())
            assert code == 0, process.child.last_words()
        self._loop.run_until_complete(process.start_again())

    def close(self) -> None:
        self._disconnect()
        self._cluster.kill()
        self._loop.close()

    def output(self) -> str:
        return "\n".join(f"{p.name} ({p.exit_code}): {p.child.last_words()}" for p in self._processes if not p.alive)

    def _log_files(self) -> Sequence[Path]:
        return [p.log for p in self._processes]

    @property
    def _processes(self) -> list[RoleProcess]:
        return list(self._cluster.roles.values())
