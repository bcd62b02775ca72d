"""A proxy that alone is cut off from etcd serves until something is defined elsewhere, and loses nothing then."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from pymilvus import MilvusClient, MilvusException

from core.errors import Unavailable
from sheafdb.cluster import Cluster, Endpoints, Size
from sheafdb.servers import Detour, Etcd, Toxiproxy
from tests.waiting import wait_until

SIZE = Size(proxy=2, querynode=1, datanode=1, indexnode=0, coordinator=1)
FAULTS: dict[str, Callable[[Detour], Awaitable[None]]] = {
    "closed": lambda way: way.cut(),
    "silent": lambda way: way.toxic("timeout", timeout=0),
}


@pytest.fixture
async def way(toxiproxy_server: Toxiproxy, etcd_server: Etcd) -> Detour:
    """The second proxy's to etcd."""
    return await toxiproxy_server.detour(f"etcd-{uuid.uuid4()}", etcd_server.address)


@pytest.fixture
async def cluster(tmp_path: Path, endpoints: Endpoints, way: Detour) -> AsyncIterator[Cluster]:
    of_process = {"proxy-2": {"etcd.endpoints": way.address}}
    cluster = await Cluster.start(tmp_path, size=SIZE, endpoints=endpoints, of_process=of_process)
    yield cluster
    cluster.kill()


def insert(client: MilvusClient, id: int) -> bool:
    """False if it is refused, as the proxy is cut off."""
    try:
        return client.insert("c", [{"id": id, "vector": [1.0, 2.0]}])["insert_count"] == 1
    except MilvusException as e:
        if e.code != Unavailable.code:
            raise
        return False


def ids(client: MilvusClient) -> list[int]:
    return sorted(r["id"] for r in client.query("c", "id >= 0", consistency_level="Strong"))


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_it_acknowledges_is_there(cluster: Cluster, way: Detour, fault: str) -> None:
    with contextlib.ExitStack() as stack:
        near, far = (
            stack.enter_context(contextlib.closing(MilvusClient(f"http://{address}", dedicated=True)))
            for address in cluster.proxies
        )
        near.create_collection("c", dimension=2)
        assert insert(far, 1)
        await FAULTS[fault](way)
        assert insert(far, 2), "nothing was defined since"
        assert ids(far) == [1, 2]
        near.drop_collection("c")
        near.create_collection("c", dimension=2)
        assert not insert(far, 3)
        assert ids(near) == []
        await way.mend()
        wait_until(lambda: insert(far, 4), "the proxy reaches etcd again")
        assert ids(near) == [4]
