"""Flipped and missing bytes in any file: an error that names the file, or an index rebuilt; never a wrong answer.

``SHEAFDB_DAMAGES`` sets the damages tried per kind of file, ``SHEAFDB_DAMAGES_SEED`` replays them.
"""

import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusException

from tests.e2e.ledger import ONCE, Ledger, Writer, check, check_search, create_table
from tests.e2e.tables import count
from tests.server import TINY, Server, StartFailed
from tests.waiting import wait_until

Launch = Callable[..., Server]
DAMAGES = int(os.environ.get("SHEAFDB_DAMAGES", "4"))
SEED = int(os.environ.get("SHEAFDB_DAMAGES_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
ANSWER_S = 10.0
"""Longest wait for an answer or an error; milliseconds on an idle machine."""

KINDS = {
    "metadata": "meta.db",
    "log": "log.db",
    "segment": "objects/**/segment-*.parquet",
    "tombstones": "objects/**/tombstones-*.parquet",
    "index": "objects/**/*.index-*",
}
QUIET = TINY | {"data_node.compact_interval_s": 3600, "data_node.trim_interval_s": 3600}
"""Seals and indexes, but leaves the files as they are."""


def prepare(folder: Path, *, kill: bool) -> Ledger:
    """A folder with rows in the log, in segments, dead by tombstones, and indexed; no process on it."""
    server, ledger = Server(folder, QUIET).start(), Ledger()
    try:
        client = server.client()
        create_table(client, "t")
        writer = Writer(server, "t", ledger, seed=3)
        writer.put(list(range(400)))
        client.flush("t")
        writer.delete(list(range(0, 400, 7)))
        writer.put(list(range(300, 600)))
        client.flush("t")
        wait_until(lambda: not client.describe_index("t", "vector")["pending_index_rows"], "the indexes")
        writer.put(list(range(550, 700)))
        writer.delete(list(range(1, 400, 7)))
        check(client, "t", ledger)
        server.kill() if kill else server.stop()
    finally:
        server.close()
    return ledger


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger]:
    folder = tmp_path_factory.mktemp("stopped") / "data"
    return folder, prepare(folder, kill=False)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger]:
    folder = tmp_path_factory.mktemp("killed") / "data"
    return folder, prepare(folder, kill=True)


def flip(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    # Where nothing was written a flip is harmless; it is what is in use that must be told.
    at = chance.choice([i for i, byte in enumerate(data) if byte])
    data[at] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"bit flipped at {at} of {len(data)}"


def cut(path: Path, chance: random.Random) -> str:
    size = path.stat().st_size
    keep = chance.choice([0, size // 2, size - 1])
    os.truncate(path, keep)
    return f"cut from {size} to {keep}"


def vanish(path: Path, _: random.Random) -> str:
    path.unlink()
    return "removed"


def torn(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data)) // 512 * 512
    data[at : at + 512] = bytes(len(data[at : at + 512]))
    path.write_bytes(data)
    return f"sector zeroed at {at} of {len(data)}"


@pytest.mark.parametrize("damage", [flip, cut, torn, vanish], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_or_harmless(
    launch: Launch,
    tmp_path: Path,
    stopped: tuple[Path, Ledger],
    kind: str,
    damage: Callable[[Path, random.Random], str],
) -> None:
    source, ledger = stopped
    chance = random.Random(f"{SEED} {kind} {damage.__name__}")
    for n in range(DAMAGES if damage in (flip, torn) else 2):
        folder = tmp_path / f"data{n}"
        shutil.copytree(source, folder)
        path = chance.choice(sorted(folder.glob(KINDS[kind])))
        what = f"SHEAFDB_DAMAGES_SEED={SEED}: {path.relative_to(folder)} {damage(path, chance)}"
        outcome = examine(launch, folder, path, ledger, what)
        if kind == "index":
            assert outcome == "right", f"{what}: an index is only a cache, but {outcome}"
        elif damage in (cut, vanish) and kind in ("segment", "tombstones"):
            assert outcome != "right", f"{what}: answered without its rows?"


@pytest.mark.parametrize("damage", [flip, torn], ids=lambda f: f.__name__)
@pytest.mark.parametrize("file", ["meta.db-wal", "log.db-wal"])
def test_damage_of_a_killed_servers_write_ahead_log(
    launch: Launch,
    tmp_path: Path,
    killed: tuple[Path, Ledger],
    file: str,
    damage: Callable[[Path, random.Random], str],
) -> None:
    source, ledger = killed
    chance = random.Random(f"{SEED} {file} {damage.__name__}")
    for n in range(DAMAGES):
        folder = tmp_path / f"data{n}"
        shutil.copytree(source, folder)
        what = f"SHEAFDB_DAMAGES_SEED={SEED}: {file} {damage(folder / file, chance)}"
        examine(launch, folder, folder / file, ledger, what)


def examine(launch: Launch, folder: Path, path: Path, ledger: Ledger, what: str) -> str:
    """Starts a server on a damaged folder: it must be right, or say which file is damaged."""
    server = launch(QUIET, folder=folder)
    server.expected_errors.append(re.escape(path.name.removesuffix("-wal")))
    try:
        outcome, said = ask(server, ledger)
    except StartFailed as e:
        outcome, said = "refused", e.output
    except AssertionError as e:
        raise AssertionError(f"{what}: {e}") from e
    finally:
        server.kill()
    assert outcome == "right" or path.name.removesuffix("-wal") in said, f"{what}: {outcome} without naming it:\n{said}"
    assert "Traceback" not in said, f"{what}:\n{said}"
    assert not server.new_errors(), what
    return outcome


def ask(server: Server, ledger: Ledger) -> tuple[str, str]:
    """Whether a server answers rightly or not at all, and what it says instead."""
    server.start()
    client = server.client()
    try:
        at_once(lambda: check(client, "t", ledger))
    except MilvusException as e:
        assert answer(lambda: count(client, "t")) in (None, len(ledger.rows))
        answer(lambda: check_search(client, "t", ledger))
        for call in (client.flush, client.compact, client.load_collection, client.release_collection):
            answer(lambda call=call: call("t", **ONCE))
        return "error", e.message
    return "right", ""


def answer(call: Callable[[], Any]) -> Any:
    """What a call answers; None for an error, which is no answer."""
    try:
        return at_once(call)
    except MilvusException:
        return None


def at_once(call: Callable[[], Any]) -> Any:
    """What a call answers or raises, which must not take long: what is damaged won't heal by waiting."""
    began = time.monotonic()
    try:
        return call()
    finally:
        took = time.monotonic() - began
        assert took < ANSWER_S, f"answered after {took:.1f} s"
