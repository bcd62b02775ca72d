"""What the tests of a role over real neighbours share: a proxy over fakes, a query node over a store."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from tests.integration.proxy_house import House, open_house
from tests.integration.querynode_rig import Rig
from tests.integration.querynode_steps import opened


@pytest.fixture(scope="module", params=["native", "grpc"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with open_house(request.param) as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[MilvusClient]:
    client = house.client()
    yield client
    for name in client.list_collections():
        client.drop_collection(name)
    client.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = await opened(tmp_path)
    yield rig
    await rig.close()
