"""``grpc.health.v1``: a listener that answers serves."""

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from proxy.wire import SERVICE

HEALTH = "grpc.health.v1.Health"
SERVING: bytes = health_pb2.HealthCheckResponse(
    status=health_pb2.HealthCheckResponse.ServingStatus.SERVING
).SerializeToString()


class UnknownService(Exception):
    """Not a service of this port: gRPC's NOT_FOUND."""


def check(data: bytes) -> bytes:
    """The reply to a ``Check``. Raises ``UnknownService``."""
    try:
        service = health_pb2.HealthCheckRequest.FromString(data).service
    except DecodeError as e:
        raise UnknownService("the request is not a valid message") from e
    if service not in ("", SERVICE):
        raise UnknownService(f"unknown service {service}")
    return SERVING
