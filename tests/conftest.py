"""For all tests: a failing property prints how to replay it, and no property has a time limit per example."""

from hypothesis import HealthCheck, settings

# Fixtures and a hook: pytest finds them by being names of this file.
from tests.real_servers import (  # noqa: F401 -- found by name
    endpoints,
    etcd_server,
    installed_servers,
    kafka_server,
    minio_server,
    new_endpoints,
    pytest_collection_finish,
    toxiproxy_server,
)

settings.register_profile(
    "sheafdb", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("sheafdb")
