"""docker-compose.yml: checked by the Compose specification's own loader, and against the settings there are."""

import json
import subprocess
from pathlib import Path

import pytest

from sheafdb.cluster.cluster import ROLES
from sheafdb.config import declared
from sheafdb.servers import tools

ROOT = Path(__file__).parents[2]
CHECKER = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
"""Schema, references between services, volumes and networks, interpolation."""


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> dict:
    tools.require(["go"], print)
    checked = subprocess.run(
        ["go", "run", CHECKER, "-format", "json", str(ROOT / "docker-compose.yml")],
        cwd=tmp_path_factory.mktemp("compose"),
        env=tools.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    return json.loads(checked.stdout)


def test_every_role_has_a_service_that_can_be_scaled(compose: dict) -> None:
    for role in ROLES:
        service = compose["services"][role]
        assert service["command"] == [role]
        assert service["healthcheck"]["test"][0] == "CMD"
        assert "container_name" not in service
    published = [p["published"] for p in compose["services"]["proxy"]["ports"]]
    assert published == ["19530-19539"]


def test_every_variable_of_a_role_is_a_setting(compose: dict) -> None:
    for role in ROLES:
        for variable in compose["services"][role]["environment"]:
            section, _, name = variable.removeprefix("SHEAFDB_").lower().partition("__")
            assert f"{section}.{name}" in declared()


def test_what_has_data_has_a_volume(compose: dict) -> None:
    for name in ("kafka", "etcd", "minio", "standalone", "querynode"):
        mounts = compose["services"][name]["volumes"]
        assert [m["source"] for m in mounts if m["source"] in compose["volumes"]]


def test_standalone_stays_out_of_the_cluster(compose: dict) -> None:
    assert compose["services"]["standalone"]["profiles"] == ["standalone"]
