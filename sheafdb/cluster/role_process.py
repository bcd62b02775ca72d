"""One role of a cluster as a process: started, killed, paused, started again under the same name."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from core.errors import StartRefused, Timeout
from sheafdb.servers.child import POLL_S, Child

START_DEADLINE_S = 90.0
DRAIN_DEADLINE_S = 60.0


class RoleProcess:
    """``sheafdb ROLE --config FILE`` in a folder of its own. ``name`` is its node id over all its lives;
    those of a proxy overlap, so each has a number too.

    address: host:port of the Milvus protocol for a proxy, else "".
    """

    def __init__(
        self, role: str, name: str, folder: Path, *, config: Path, options: Sequence[str], address: str = ""
    ) -> None:
        self.role, self.name, self.folder, self.address = role, name, folder, address
        self.starts = 0
        self._command = [sys.executable, "-m", "sheafdb.cli", role, "--config", str(config)]
        self._extra = options
        self._child: Child | None = None
        self._started_at = 0.0

    @property
    def log(self) -> Path:
        """Its log lines, of all its lives."""
        return self.folder / f"{self.name}.log"

    @property
    def child(self) -> Child:
        assert self._child is not None, f"{self.name} was never started"
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        """A paused one is alive."""
        return self._child is not None and self._child.alive

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative: the signal that ended it."""
        return self.child.exit_code

    @property
    def ready_line(self) -> str:
        """What it said when it was ready; "" before."""
        try:
            line, complete, _ = (self.folder / f"{self.name}.out").read_text(errors="replace").partition("\n")
        except FileNotFoundError:
            return ""
        return line if complete else ""

    @property
    def lived_s(self) -> float:
        """Seconds since it was last started."""
        return time.monotonic() - self._started_at

    def spawn(self, *, failpoints: str = "") -> None:
        """Starts it and returns at once. failpoints: as ``core.failpoints`` reads them, for this life only."""
        assert not self.alive, f"{self.name} runs already"
        self._spawn(failpoints)

    def _spawn(self, failpoints: str = "") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.starts += 1
        self._started_at = time.monotonic()
        id = f"{self.name}.{self.starts}" if self.address else self.name
        self._child = Child(
            [*self._command, "--set", f"node.id={id}", *self._extra],
            self.log,
            out=self.folder / f"{self.name}.out",
            cwd=self.folder,
            env={"SHEAFDB_FAILPOINTS": failpoints},
        )

    async def ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Returns once it serves. Raises ``StartRefused`` when it ends instead, ``Timeout`` when it does
        neither; it is left running then."""
        end = time.monotonic() + deadline_s
        while True:
            # The exit is looked at first: what it wrote before it is complete then.
            code = self.child.exit_code
            if self.ready_line and code is None:
                return
            if code is not None:
                raise StartRefused(f"{self.name} ended with {code}: {self.child.last_words()}")
            if time.monotonic() > end:
                raise Timeout(f"waited {deadline_s:g} s for {self.name} to be ready: {self.child.last_words()}")
            await asyncio.sleep(POLL_S)

    async def start_again(self) -> None:
        """Spawns it and waits until it serves."""
        self.spawn()
        await self.ready()

    async def restart(self) -> None:
        """As a rolling restart does: SIGTERM, drained, started again. A proxy's next life serves on its port
        before the present one is told to end, so that no client is refused."""
        if not self.address:
            await self.stop()
            await self.start_again()
            return
        before = self.child
        self._spawn()
        try:
            await self.ready()
        except BaseException:
            self.child.kill()
            self._child = before
            raise
        await before.stop(DRAIN_DEADLINE_S)

    async def stop(self) -> int:
        """SIGTERM; the exit code. Raises ``Timeout``, with the process killed, when it does not drain."""
        return await self.child.stop(DRAIN_DEADLINE_S) if self._child else 0

    def kill(self) -> None:
        """SIGKILL; gone when this returns."""
        if self._child:
            self._child.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self.child.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.child.resume()
