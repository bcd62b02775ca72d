"""The server under measurement: a process of its own on a folder of its own."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pymilvus import MilvusClient

START_DEADLINE_S = 60.0
ADDRESS = re.compile(r"(\d+\.\d+\.\d+\.\d+:\d+)")


class Server:
    """``with Server() as server``: default settings, removed with its data at the end.

    launcher: what runs the command line, for profiles.
    """

    def __init__(self, launcher: Sequence[str] = ("-m", "sheafdb.cli"), settings: Sequence[str] = ()) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="sheafdb-bench-")
        self.folder = Path(self._temporary.name) / "data"
        self._command = [sys.executable, *launcher, "standalone", "--data", str(self.folder), "--port", "0"]
        for setting in ("server.metrics_port=-1", "logging.level=warning", *settings):
            self._command += ["--set", setting]
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end(signal.SIGTERM)
        self._temporary.cleanup()

    def start(self) -> None:
        """Returns at the ready line."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout
        line = self._process.stdout.readline()
        found = ADDRESS.search(line)
        if not found:
            raise SystemExit(f"the server did not start: {line!r}")
        self.address = found[1]

    def end(self, sig: signal.Signals) -> None:
        process, self._process = self._process, None
        if process and process.poll() is None:
            os.killpg(process.pid, sig)
            process.wait(30)
            assert process.stdout
            process.stdout.close()

    def client(self) -> MilvusClient:
        return MilvusClient(f"http://{self.address}", dedicated=True)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def pss(self) -> int:
        """Memory in bytes, shared pages counted in proportion."""
        assert self._process
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return 1024 * int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.M)[0])

    @property
    def disk(self) -> int:
        """Bytes of the data folder."""
        return sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())


def settle(server: Server, name: str, quiet_s: float = 12.0, deadline_s: float = 600.0) -> None:
    """Returns once every row is indexed and compaction and collection change nothing any more.

    quiet_s: longer than the pauses between looks for something to compact or collect.
    """
    client = server.client()
    client.flush(name)
    end, since, last = time.monotonic() + deadline_s, time.monotonic(), -1
    while time.monotonic() < end:
        index = client.describe_index(name, "vector")
        state = hash((server.disk, index["indexed_rows"], index["total_rows"]))
        if state != last or index["indexed_rows"] < index["total_rows"]:
            since, last = time.monotonic(), state
        if time.monotonic() - since > quiet_s:
            client.close()
            return
        time.sleep(0.5)
    raise SystemExit(f"{name} did not settle in {deadline_s} s")
