"""The metadata store on etcd: members that fail, credentials, processes that compete and die, limits."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from coordinator.leadership import Leadership
from core.errors import DiskFull, Fenced, SheafError, StartRefused, Unavailable
from core.ids import NodeId, Revision
from core.settings import EtcdSettings
from sheafdb.servers import Etcd, Toxiproxy, free_port
from storage import keys
from storage.membership import Membership
from storage.meta.etcd import EtcdMeta
from storage.meta.etcd_errors import LinkLost
from storage.meta.port import Condition, Delete, Put
from tests.integration.etcd_rig import (
    TLS,
    Actor,
    Diary,
    EtcdMember,
    EtcdWithOptions,
    EtcdWithTls,
    FastTokens,
    Writer,
    settings_of,
    with_password,
)
from tests.waiting import until

PEM, KEY = str(TLS / "localhost.pem"), str(TLS / "localhost.key")


@pytest.fixture
async def meta(etcd_server: Etcd) -> AsyncIterator[EtcdMeta]:
    meta = await EtcdMeta.open(settings_of(etcd_server))
    yield meta
    await meta.close()


@pytest.fixture
def act(meta: EtcdMeta, etcd_server: Etcd, tmp_path: Path) -> Iterator[Callable[..., Actor]]:
    """Starts processes on the store of ``meta``; ends them after the test."""
    actors: list[Actor] = []

    def start(*work: str, endpoint: str = etcd_server.address) -> Actor:
        settings = settings_of(endpoint, prefix=meta._connection.prefix.decode())
        actors.append(Actor(tmp_path, settings, *work))
        return actors[-1]

    yield start
    for actor in actors:
        actor.child.kill()


# --- members that fail -----------------------------------------------------------------------
@pytest.mark.parametrize("dead_first", [True, False])
async def test_one_of_two_addresses_is_dead(etcd_server: Etcd, dead_first: bool):
    dead = f"127.0.0.1:{free_port()}"
    meta = await EtcdMeta.open(settings_of(*((dead, etcd_server) if dead_first else (etcd_server, dead))))
    assert await meta.commit([], [Put("a", b"1")])
    await meta.close()


async def test_a_silent_member_is_left_for_another(etcd_server: Etcd, toxiproxy_server: Toxiproxy):
    detour = await toxiproxy_server.detour("member", etcd_server.address)
    meta = await EtcdMeta.open(settings_of(detour.address))
    # Known from now on, so that the first connection surely was the detour's.
    meta._connection._endpoints.insert(0, etcd_server.address)
    _, revision = await meta.list("")
    diary = Diary(meta, "", revision)
    await diary.until(await meta.commit([], [Put("a", b"1")]))
    for stream in ("downstream", "upstream"):
        await detour.toxic("timeout", stream=stream, timeout=0)
    began = time.monotonic()
    item = await meta.get("a")
    assert item, "a read looks for another member within its time"
    assert time.monotonic() - began < 4.5
    await diary.until(await meta.commit([], [Put("a", b"2")]), 3)
    await diary.close()
    await meta.close()


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_a_cluster_loses_its_leader(tmp_path: Path, how: str):
    members = await EtcdMember.start_three(tmp_path)
    meta = await EtcdMeta.open(settings_of(*members))
    _, revision = await meta.list("w/")
    diary, writer = Diary(meta, "w/", revision), Writer(meta, "w/")
    await writer.more()
    (leader,) = [m for m in members if await m.leads()]
    getattr(leader, how)()
    await writer.more(50)
    last = await writer.close()
    await diary.until(last)
    assert set(writer.done) <= set(diary.revisions)
    await diary.close()
    await meta.close()
    for member in members:
        member.kill()


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_a_connection_that_can_not_be_closed_is_left_for_a_new_one(
    meta: EtcdMeta, monkeypatch: pytest.MonkeyPatch, how: str
):
    connection = meta._connection
    link = await connection.link(1.0)

    async def close() -> None:
        if how == "fails":
            raise RuntimeError("this channel does not close")
        await asyncio.Event().wait()

    with monkeypatch.context() as broken:
        broken.setattr(link._channel, "close", close)
        connection.lose(link, LinkLost("given up by a test"))
        await meta.commit([], [Put("a", b"1")])
        assert await connection.link(1.0) is not link
    await link._channel.close()


async def test_calls_on_a_stopped_etcd_end_in_time(tmp_path: Path):
    server = await Etcd.start(tmp_path)
    meta = await EtcdMeta.open(settings_of(server, request_timeout_s=1.0))
    lease = await meta.grant(60)
    server.pause()
    for call in (meta.get("a"), meta.list(""), meta.commit([], [Put("a", b"")]), meta.grant(1), meta.keep_alive(lease)):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await call
        assert time.monotonic() - began < 1.5
    server.resume()
    await until(lambda: meta.list(""), "etcd to answer again")
    await meta.keep_alive(lease)
    await meta.close()
    server.kill()


# --- who we are ------------------------------------------------------------------------------
async def test_user_and_password(tmp_path: Path):
    server = await FastTokens.start(tmp_path)
    settings = settings_of(server, user="sheaf", password="right")
    await with_password(server, "sheaf", "right", settings.prefix)
    meta = await EtcdMeta.open(settings)
    revision = await meta.commit([], [Put("w/a", b"1")])
    lease = await meta.grant(60)
    diary = Diary(meta, "w/", revision)
    # Tokens live for a second here, and none outlives the server.
    await asyncio.sleep(2.5)
    await diary.until(await meta.commit([], [Put("w/a", b"2", lease)]))
    server.kill()
    await server.start_again()
    await until(lambda: meta.get("w/a"), "a new token")
    await diary.until(await meta.commit([], [Put("w/a", b"3")]))
    assert [b[0].value for b in diary.batches] == [b"2", b"3"]
    await meta.keep_alive(lease)
    await diary.close()
    await meta.close()
    wrong: list[tuple[dict[str, str], str]] = [
        ({"password": "wrong"}, "authentication failed, invalid user ID or password"),
        ({"user": "", "password": ""}, "user name is empty"),
        ({"prefix": "others"}, "permission denied"),
    ]
    for changes, message in wrong:
        given = {"prefix": settings.prefix, "user": "sheaf", "password": "right"} | changes
        with pytest.raises(StartRefused, match=f"etcd {server.address}.*{message}"):
            await EtcdMeta.open(settings_of(server, **given))
    server.kill()


async def test_a_user_where_nobody_is_asked(etcd_server: Etcd):
    meta = await EtcdMeta.open(settings_of(etcd_server, user="sheaf", password="any"))
    assert await meta.get("a") is None
    await meta.close()


async def test_tls(tmp_path: Path):
    server = await EtcdWithTls.start(tmp_path / "etcd")
    meta = await EtcdMeta.open(settings_of(server, tls_ca=PEM, tls_cert=PEM, tls_key=KEY))
    assert await meta.commit([], [Put("a", b"1")])
    await meta.close()
    with pytest.raises(StartRefused, match=f"etcd {server.address}.*CERTIFICATE_VERIFY_FAILED"):
        await EtcdMeta.open(settings_of(server, tls_ca=str(TLS / "other.pem")))
    with pytest.raises(Unavailable, match=f"etcd {server.address}"):
        await EtcdMeta.open(settings_of(server, tls_ca=PEM))
    with pytest.raises(Unavailable, match=f"etcd {server.address}.*without TLS"):
        await EtcdMeta.open(settings_of(server))
    server.kill()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoints": ""}, "etcd.endpoints is empty"),
        ({"endpoints": "http://127.0.0.1:2379"}, "expected host:port"),
        ({"endpoints": "127.0.0.1"}, "expected host:port"),
        ({"prefix": "a b"}, "etcd.prefix"),
        ({"tls_ca": "/nowhere.pem"}, "/nowhere.pem: No such file"),
        ({"tls_cert": "a.pem"}, "set together"),
    ],
)
async def test_settings_that_can_not_work(changes: dict[str, str], message: str):
    with pytest.raises(StartRefused, match=message):
        await EtcdMeta.open(EtcdSettings(**changes))


async def test_nobody_listens():
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(Unavailable) as caught:
        await EtcdMeta.open(settings_of(*addresses))
    assert all(a in str(caught.value) for a in addresses), "says what was tried"


# --- many at once ----------------------------------------------------------------------------
async def test_processes_that_count_together_lose_nothing(meta: EtcdMeta, act: Callable[..., Actor]):
    actors = [act("count", "50") for _ in range(4)]
    for actor in actors:
        await actor.says("counted")
    item = await meta.get("counter")
    assert item
    assert item.value == b"200"


async def test_ten_thousand_keys_are_listed_at_one_revision(meta: EtcdMeta):
    for first in range(0, 10_000, 100):
        await meta.commit([], [Put(f"many/{first + n:05}", b"v" * 300) for n in range(100)])
    _, revision = await meta.list("many/")

    async def disturb() -> None:
        while True:
            await meta.commit([], [Put("many/00000", b"new"), Put("many/09999", b"new"), Put("many/99999", b"new")])

    disturbing = asyncio.create_task(disturb())
    for _ in range(5):
        items, at = await meta.list("many/")
        assert at >= revision
        assert len(items) == 10_000 + (items[-1].key == "many/99999")
        assert items[0].value == items[9_999].value, "first and last page are of one revision"
        assert max(i.revision for i in items) <= at
    disturbing.cancel()
    await asyncio.gather(disturbing, return_exceptions=True)


# --- dying and sleeping ----------------------------------------------------------------------
async def test_the_registration_of_a_killed_process_goes(meta: EtcdMeta, act: Callable[..., Actor]):
    actor = act("member", "2")
    await actor.says("registered")
    key = keys.node("querynode", NodeId("q"))
    item = await meta.get(key)
    assert item
    diary = Diary(meta, key, item.revision)
    await asyncio.sleep(3)
    assert await meta.get(key) == item, "kept alive past its time to live"
    actor.child.kill()
    await diary.until(item.revision + 1, 3.5)
    assert [e.value for e in diary.batches[0]] == [None]
    await diary.close()


async def test_a_registration_comes_back_after_sleep_unless_it_was_taken(meta: EtcdMeta, act: Callable[..., Actor]):
    key = keys.node("querynode", NodeId("q"))
    actor = act("member", "2")
    await actor.says("registered")

    async def there() -> bool:
        return await meta.get(key) is not None

    async def gone() -> bool:
        return not await there()

    actor.child.pause()
    await until(gone, "the lease to end")
    actor.child.resume()
    await until(there, "it to register again")
    actor.child.pause()
    await until(gone, "the lease to end again")
    successor = Membership(meta, "querynode", NodeId("q"), "elsewhere", 2)
    await successor.start()
    actor.child.resume()
    await until(lambda: "belongs to another process at elsewhere" in actor.child.last_words(), "it to notice")
    item = await meta.get(key)
    assert item
    assert item.value == b"elsewhere"
    await successor.close()


@pytest.mark.parametrize("fault", ["kill", "pause", "cut off"])
async def test_a_standby_takes_over_and_the_old_leader_commits_nothing(
    meta: EtcdMeta, etcd_server: Etcd, toxiproxy_server: Toxiproxy, act: Callable[..., Actor], fault: str
):
    detour = await toxiproxy_server.detour(f"leader-{uuid.uuid4()}", etcd_server.address)
    first = act("lead", "first", "2", endpoint=detour.address)
    await first.says("leads")
    second = act("lead", "second", "2")
    await asyncio.sleep(1.5)
    assert second.said == []
    match fault:
        case "kill":
            first.child.kill()
        case "pause":
            first.child.pause()
        case _:
            for stream in ("downstream", "upstream"):
                await detour.toxic("timeout", stream=stream, timeout=0)
    began = time.monotonic()
    await second.says("leads")
    assert time.monotonic() - began < 3.0

    async def author() -> str:
        item = await meta.get("work")
        return item.value.decode() if item else ""

    async def second_writes() -> bool:
        return (await author()).startswith("second")

    await until(second_writes, "the new leader to commit")
    _, revision = await meta.list("work")
    diary = Diary(meta, "work", revision)
    if fault == "pause":
        first.child.resume()
        await first.says("Fenced")
    elif fault == "cut off":
        await first.says("lost")
        await detour.mend()
        await first.says("Fenced")
    await asyncio.sleep(0.5)
    assert diary.batches
    assert all(b[0].value and b[0].value.startswith(b"second") for b in diary.batches), "the old leader wrote"
    leader = await meta.get(keys.LEADER)
    assert leader
    assert leader.value == b"second"
    await diary.close()


async def test_a_leader_that_leaves_is_followed_at_once(meta: EtcdMeta):
    took: list[str] = []

    def campaigner(name: str) -> Leadership:
        async def gained() -> None:
            took.append(name)

        async def lost() -> None:
            took.append(f"not {name}")

        return Leadership(meta, NodeId(name), 2, gained, lost)

    one, two, three = campaigner("one"), campaigner("two"), campaigner("three")
    for each in (one, two, three):
        await each.start()
    began = time.monotonic()
    await one.close()
    await until(lambda: len(took) == 3, "a successor")
    assert time.monotonic() - began < 0.5
    assert took[:2] == ["one", "not one"]
    await asyncio.gather(two.close(), three.close())


async def test_a_commit_under_an_old_epoch_is_refused(meta: EtcdMeta):
    lease = await meta.grant(2)
    epoch = await meta.commit([Condition(keys.LEADER, Revision(0))], [Put(keys.LEADER, b"me", lease)])
    await meta.revoke(lease)
    with pytest.raises(SheafError, match=f"{keys.LEADER} is at revision 0, not {epoch}"):
        await meta.commit([Condition(keys.LEADER, epoch)], [Put("x", b"")])
    with pytest.raises(Fenced):
        await meta.commit([], [Put("x", b"", lease)])
    assert await meta.get("x") is None


async def test_an_etcd_without_room_refuses_writes_and_reads_on(tmp_path: Path):
    class Small(EtcdWithOptions):
        more = ("--quota-backend-bytes", "4000000")

    server = await Small.start(tmp_path)
    meta = await EtcdMeta.open(settings_of(server))

    async def fill() -> None:
        # etcd looks at the size of its file, which grows only when it commits, ten times a second.
        for n in range(1000):
            await meta.commit([], [Put(f"k/{n % 10}", bytes(1024 * 1024))])

    with pytest.raises(DiskFull):
        await fill()
    assert await meta.get("k/0")
    await meta.commit([], [Delete(f"k/{n}") for n in range(10)])
    await meta.close()
    server.kill()
