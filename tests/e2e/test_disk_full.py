"""A full disk: writes are refused clearly, reads go on, and space back is service back, without a restart."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pymilvus import MilvusException

from tests.e2e.ledger import ONCE, Ledger, Writer, check, create_table
from tests.server import TINY, Server
from tests.waiting import wait_until

DISK_MB = 24


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "sheafdb-test", str(path)]
    umount = ["umount", str(path)]
    if os.geteuid() != 0:
        mount, umount = ["sudo", "-n", *mount], ["sudo", "-n", *umount]
    subprocess.run(mount, check=True)
    if os.geteuid() != 0:
        subprocess.run(["sudo", "-n", "chmod", "777", str(path)], check=True)
    yield path
    subprocess.run(umount, check=True)


def fill(path: Path, leave: int) -> None:
    """Takes all room but ``leave`` bytes."""
    room = os.statvfs(path)
    with (path / "ballast").open("ab") as f, suppress(OSError):
        f.write(bytes(max(0, room.f_bavail * room.f_frsize - leave)))


@pytest.mark.parametrize("leave", [0, 200_000], ids=["no room", "little room"])
def test_full_disk(small_disk: Path, launch: Callable[..., Server], leave: int) -> None:
    server = launch(TINY, folder=small_disk / "data")
    server.expected_errors.append("(?i)no room|full|space")
    server.logs = small_disk.parent / "log"
    server.start()
    client, ledger = server.client(), Ledger()
    create_table(client, "t")
    writer = Writer(server, "t", ledger, seed=4)
    for _ in range(5):
        writer.put(writer.some_keys(200))
    client.flush("t")

    fill(small_disk, leave)
    refused = None
    for _ in range(400):
        try:
            writer.put(list(range(1000)))
        except MilvusException as e:
            refused = e
            break
    assert refused is not None, "the disk never got full"
    assert refused.code == 9, refused
    assert "no room" in refused.message or "full" in refused.message
    # Refused means not written, also when asked again.
    assert ledger.doubtful
    ledger.doubtful.clear()
    for _ in range(3):
        check(client, "t", ledger)
        with pytest.raises(MilvusException) as e:
            client.upsert("t", [{"id": k, "n": 0, "vector": [0.0] * 8} for k in range(20_000)], **ONCE)
        assert e.value.code == 9

    (small_disk / "ballast").unlink()

    def served_again() -> bool:
        with suppress(MilvusException):
            writer.put(list(range(500)))
            return True
        ledger.doubtful.clear()
        return False

    wait_until(served_again, "writes to be taken again", 15)
    client.flush("t", timeout=20)
    for _ in range(5):
        writer.step()
    check(client, "t", ledger)
    server.restart(kill=True)
    check(server.client(), "t", ledger)
