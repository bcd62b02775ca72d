"""The tools that installing and running the servers takes: found, else installed by apt, else named."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.errors import StartRefused

APT_DEADLINE_S = 600
ASK_DEADLINE_S = 60
GO_FOLDER = "/usr/local/go/bin"
"""Where Go's own archive puts it, often without being on the PATH."""


@dataclass(frozen=True, slots=True)
class Tool:
    """package: Debian's name for it. least: the smallest major version that works (Go: its minor one)."""

    package: str
    ask: tuple[str, ...]
    version: str
    least: int
    title: str


TOOLS = {
    "java": Tool("default-jre-headless", ("java", "-version"), r'version "(\d+)', 17, "Java 17"),
    "mvn": Tool("maven", ("mvn", "-v"), r"Apache Maven (\d+)", 3, "Maven 3"),
    # From 1.21 on, Go fetches the newer toolchain that a module asks for.
    "go": Tool("golang-go", ("go", "version"), r"go1\.(\d+)", 21, "Go 1.21"),
}


def require(names: Iterable[str], say: Callable[[str], None]) -> None:
    """Returns once all of ``names`` are there. Raises ``StartRefused`` naming what is missing."""
    missing = [name for name in dict.fromkeys(names) if not _works(name)]
    if missing and (apt := _apt()):
        packages = [TOOLS[name].package for name in missing]
        say(f"installing {', '.join(packages)} by apt")
        for step in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            subprocess.run(  # noqa: S603  # a fixed command
                [*apt, *step], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=APT_DEADLINE_S, check=False
            )
        missing = [name for name in missing if not _works(name)]
    if missing:
        wanted = ", ".join(f"{TOOLS[name].title} or newer" for name in missing)
        packages = " ".join(TOOLS[name].package for name in missing)
        raise StartRefused(f"needs {wanted}, and cannot install it here (Debian: apt install {packages})")


def environment() -> dict[str, str]:
    """What build steps run with: Go is found in its usual folder too, may fetch a newer toolchain, and its
    compiler, which lives for seconds, collects less garbage."""
    return {"GOTOOLCHAIN": "auto", "GOGC": "400", **os.environ, "PATH": _path()}


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{GO_FOLDER}"


def _works(name: str) -> bool:
    tool = TOOLS[name]
    if not shutil.which(name, path=_path()):
        return False
    try:
        asked = subprocess.run(  # noqa: S603  # a fixed command
            tool.ask, env=environment(), capture_output=True, text=True, timeout=ASK_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.search(tool.version, asked.stdout + asked.stderr)
    return bool(found) and int(found[1]) >= tool.least


def _apt() -> list[str] | None:
    """How apt is called with the rights to install; None when there is no way."""
    if not shutil.which("apt-get"):
        return None
    # Asked without a terminal's questions: whoever must type a password sees the packages named instead.
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    if os.geteuid() == 0:
        return quiet
    if not shutil.which("sudo"):
        return None
    allowed = subprocess.run(
        ["sudo", "-n", "true"],  # noqa: S607 -- whichever sudo the user has
        capture_output=True,
        timeout=ASK_DEADLINE_S,
        check=False,
    )
    return ["sudo", "-n", *quiet] if allowed.returncode == 0 else None
