"""A real server process for tests: started on a free port, killed and restarted at will."""

import atexit
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.served import Served

ADDRESS = re.compile(r"(\d+\.\d+\.\d+\.\d+):(\d+)")
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0

TINY: dict[str, Any] = {
    "data_node.segment_bytes": 32 * 1024,
    "data_node.compact_interval_s": 0.2,
    "data_node.compact_segments": 2,
    "data_node.trim_interval_s": 0.2,
    "coordinator.garbage_grace_s": 0.3,
    "coordinator.garbage_interval_s": 0.2,
    "coordinator.index_retry_s": 0.2,
    "index_node.rows_min": 64,
    "query_node.interim_rows": 128,
}
"""Settings with which a few thousand small rows seal, get indexed, compact, collect and trim."""

_alive: set["Server"] = set()


class StartFailed(Exception):
    """The process ended, or said nothing, before it was ready. ``output`` is what it wrote."""

    def __init__(self, returncode: int | None, output: str) -> None:
        super().__init__(f"server did not start (return code {returncode}):\n{output}")
        self.returncode, self.output = returncode, output


class Server(Served):
    """One data folder and the process that serves it, if any.

    settings: dotted names to values, on top of the defaults.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.settings = {"server.metrics_port": -1, "logging.format": "json", **(settings or {})}
        self.logs = folder.parent / f"{folder.name}.stderr"
        self.starts = 0
        self.port = 0
        self._ready_file = folder.parent / f"{folder.name}.stdout"
        self._process: subprocess.Popen[bytes] | None = None

    # --- the process ---------------------------------------------------------------------------
    def spawn(self, *, failpoints: str = "", port: int = 0) -> None:
        """Starts the process and returns at once."""
        assert not self.alive
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.starts += 1
        command = [sys.executable, "-m", "sheafdb.cli", "standalone", "--data", str(self.folder), "--port", str(port)]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        with self._ready_file.open("wb") as out, self.logs.open("ab") as err:
            self._process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                env={**os.environ, "SHEAFDB_FAILPOINTS": failpoints},
                start_new_session=True,
            )
        _alive.add(self)

    def wait_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Returns once the ready line is there. Raises ``StartFailed``."""
        process, end = self.process, time.monotonic() + deadline_s
        while True:
            # The exit is looked at first: what the process wrote before it is complete then.
            returncode = process.poll()
            line, complete, _ = self._ready_file.read_text().partition("\n")
            if returncode is not None or time.monotonic() > end:
                self.kill()
                raise StartFailed(returncode, self.output())
            if complete and (found := ADDRESS.search(line)):
                self.port = int(found[2])
                return
            time.sleep(0.01)

    def start(self, *, failpoints: str = "", port: int = 0) -> "Server":
        self.spawn(failpoints=failpoints, port=port)
        self.wait_ready()
        return self

    def kill(self) -> None:
        """SIGKILL, as a power cut to the process."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def restart(self, *, kill: bool = True, failpoints: str = "", port: int = 0) -> "Server":
        if kill:
            self.kill()
        else:
            assert self.stop() == 0, self.output()
        return self.start(failpoints=failpoints, port=port)

    def restart_one(self, nth: int, *, kill: bool) -> None:
        self.restart(kill=kill)

    def wait_dead(self, deadline_s: float) -> int:
        """The exit code of a process that ends by itself; kills it and raises after the deadline."""
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still alive after {deadline_s} s") from None
        self._disconnect()
        return code

    def close(self) -> None:
        self.kill()

    def _end(self, sig: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            os.killpg(self._process.pid, sig)
        try:
            code = self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise AssertionError(f"server ignored {sig.name} for {STOP_DEADLINE_S} s\n{self.output()}") from None
        finally:
            _alive.discard(self)
            self._disconnect()
        return code

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "never started"
        return self._process

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def rss(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    # --- what it says --------------------------------------------------------------------------
    def output(self) -> str:
        return (self._ready_file.read_text() + self.logs.read_text(errors="replace"))[-6000:]

    def _log_files(self) -> Sequence[Path]:
        return [self.logs]


@atexit.register
def _end_all() -> None:
    for server in list(_alive):
        server.close()
