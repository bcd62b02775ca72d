"""A child process with a log file: started, signalled, paused, ended. Bound to no event loop."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import Timeout

STOP_DEADLINE_S = 20.0
POLL_S = 0.01
TAIL_BYTES = 3000
TETHER = Path(__file__).with_name("tether.py")


class Child:
    """A running process. It dies with its parent. stdout and stderr go to ``log``, stdout to ``out`` if given."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        out: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        assert threading.current_thread() is threading.main_thread(), "see tether.py"
        self.log = log
        with log.open("ab") as errors, (out or log).open("wb" if out else "ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  # the caller's own command
                [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                # Ctrl-C on a terminal reaches the parent only, which ends its children in order.
                start_new_session=True,
            )
        self._paused = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """A paused process is alive."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative: the signal that ended it."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL; gone when this returns."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: alive, silent, and it does not know. Stands still when this returns: one of its threads may
        answer a last call otherwise."""
        self._signal(signal.SIGSTOP)
        if self.alive:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self._paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self._paused = False

    async def stop(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """SIGTERM; the exit code. Kills it and raises ``Timeout`` when it ignores that."""
        if self._paused:
            self.resume()
        self._signal(signal.SIGTERM)
        return await self.ended(deadline_s)

    async def ended(self, deadline_s: float) -> int:
        """The exit code, once it ended. Kills it and raises ``Timeout`` after the deadline."""
        end = time.monotonic() + deadline_s
        while self.alive:
            if time.monotonic() > end:
                self.kill()
                raise Timeout(f"waited {deadline_s:g} s for process {self.pid} to end: {self.last_words()}")
            await asyncio.sleep(POLL_S)
        return self._process.wait()

    def last_words(self) -> str:
        """The end of its log in one line, for messages."""
        return last_words(self.log)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            self._process.send_signal(number)


def last_words(log: Path) -> str:
    """The end of a log file in one line; "" when there is none."""
    try:
        with log.open("rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - TAIL_BYTES))
            return " ".join(f.read().decode(errors="replace").split())
    except OSError:
        return ""
