"""What the README and the other pages say, tried."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server import Server

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


def block(language: str) -> str:
    """The first block of that language in the README."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_program_prints_what_the_readme_says(launch: Callable[..., Server]) -> None:
    server = launch().start()
    program = block("python")
    assert "http://127.0.0.1:19530" in program
    program = program.replace("http://127.0.0.1:19530", server.uri)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    expected = re.search(r"```text\n(\w+ [\d.]+\n\w+ [\d.]+\n)```", (ROOT / "README.md").read_text())
    assert expected
    assert result.stdout == expected[1]


def test_the_program_is_about_ten_lines() -> None:
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 10


def test_the_commands_of_the_readme_exist() -> None:
    install, start = block("sh").strip().splitlines()
    assert "pip install -c constraints.txt ." in install
    assert (ROOT / "constraints.txt").exists()
    command = start.removeprefix(".venv/bin/sheafdb ").split()
    result = subprocess.run(
        [sys.executable, "-m", "sheafdb.cli", *command, "--port", "99999"], capture_output=True, text=True, check=False
    )
    assert "server.port = '99999'" in result.stderr, "every argument but the port is right"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    dead = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not dead


def test_the_architecture_names_files_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = set(re.findall(r"^\| `(\w+/)` \|", text, re.MULTILINE))
    named = {name for name in re.findall(r"`([\w/.]+/[\w.]*)`", text) if name.split("/")[0] + "/" in folders}
    assert len(named) > 40
    assert not [name for name in named if not (ROOT / name).exists()]
