"""Installs the servers into a cache folder that all checkouts of a user share.

``$SHEAFDB_CACHE``, else ``~/.cache/sheafdb``, with ``servers/<name>-<version>/`` in it. A folder of that
name is complete: it is built under another name and renamed. Two installs at once wait for each other.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.errors import StartRefused, Timeout
from sheafdb.servers import tools
from sheafdb.servers.recipes import RECIPES

Say = Callable[[str], None]
"""Takes one line of progress."""

STEP_DEADLINE_S = 1200.0
LOCK_DEADLINE_S = 1800.0
POLL_S = 0.2
STILL_S = 30.0
"""How often a long build says that it is alive."""
TAIL_BYTES = 600


def cache_folder() -> Path:
    """Where servers are kept; may not exist yet."""
    root = os.environ.get("SHEAFDB_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "sheafdb").absolute() / "servers"


def folder_of(name: str) -> Path:
    """Where this version of a server is. Raises ``StartRefused`` when it is not installed."""
    folder = _target(name)
    if not folder.is_dir():
        raise StartRefused(f"{name} is not installed: run python -m sheafdb.servers {name}")
    return folder


def install(names: Iterable[str], say: Say) -> None:
    """Makes sure that these servers (``RECIPES``) are there; instant when they are.

    Raises ``StartRefused`` with one line when one can't be had, ``Timeout`` when another install of the
    same server does not end."""
    wanted = set(names)
    if unknown := wanted - set(RECIPES):
        raise StartRefused(f"no such server: {', '.join(sorted(unknown))} (there are {', '.join(RECIPES)})")
    for name in RECIPES:
        if name in wanted:
            _install(name, say)


def _install(name: str, say: Say) -> None:
    recipe, target = RECIPES[name], _target(name)
    if target.is_dir():
        # Java is needed to run Kafka too.
        tools.require((t for t in recipe.tools if t == "java"), say)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f".{name}.lock", name, say):
        if target.is_dir():
            return
        try:
            tools.require(recipe.tools, say)
        except StartRefused as e:
            raise StartRefused(f"{name} {e}") from None
        for stale in target.parent.glob(f".{name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        say(f"{name} {recipe.version}: installing, about {recipe.takes}")
        began = time.monotonic()
        try:
            recipe.build(recipe, building, _Steps(name, say))
            building.chmod(0o755)
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        say(f"{name} {recipe.version}: installed in {time.monotonic() - began:.0f} s")


def _target(name: str) -> Path:
    return cache_folder() / f"{name}-{RECIPES[name].version.removeprefix('v')}"


class _Steps:
    """Runs the steps of one build, saying now and then that they still run."""

    def __init__(self, name: str, say: Say) -> None:
        self._name, self._say = name, say

    def __call__(self, *command: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        began, said = time.monotonic(), time.monotonic()
        with tempfile.TemporaryFile() as output:
            step = subprocess.Popen(  # noqa: S603  # commands of the recipes
                command,
                cwd=cwd,
                env={**tools.environment(), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                while step.poll() is None:
                    now = time.monotonic()
                    if now - began > STEP_DEADLINE_S:
                        raise StartRefused(
                            f"{self._name}: `{command[0]} {command[1]}` took longer than {STEP_DEADLINE_S:.0f} s"
                        )
                    if now - said > STILL_S:
                        said = now
                        self._say(f"{self._name}: still building, {now - began:.0f} s")
                    time.sleep(POLL_S)
            finally:
                if step.poll() is None:
                    os.killpg(step.pid, 9)
                    step.wait()
            if step.returncode:
                raise StartRefused(f"{self._name}: `{' '.join(command)}` failed: {_end_of(output)}")


def _end_of(output) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - TAIL_BYTES))
    return " ".join(output.read().decode(errors="replace").split())


@contextmanager
def _locked(file: Path, name: str, say: Say) -> Iterator[None]:
    with file.open("w") as lock:
        deadline, told = time.monotonic() + LOCK_DEADLINE_S, False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Timeout(f"waited {LOCK_DEADLINE_S:.0f} s for another install of {name}") from None
                if not told:
                    told = True
                    say(f"{name}: waiting for another install of it")
                time.sleep(POLL_S)
        yield
