"""The messages of the public protocol: the one place that imports pymilvus.

Importing ``pymilvus.grpc_gen`` the plain way runs all of pymilvus, pandas included: half a second
and 60 MB that a server has no use for. So a bare package stands in for it while the generated
modules load; the real ``import pymilvus`` still works afterwards in the same process.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass


def _stand_in() -> ModuleType | None:
    if "pymilvus" in sys.modules:
        return None
    spec = importlib.util.find_spec("pymilvus")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("pymilvus is not installed: its protocol stubs are needed to serve clients")
    module = ModuleType("pymilvus")
    module.__path__ = list(spec.submodule_search_locations)
    sys.modules["pymilvus"] = module
    return module


_bare = _stand_in()
try:
    from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2
finally:
    if _bare is not None:
        del sys.modules["pymilvus"]

__all__ = ["METHODS", "SERVICE", "common", "input_class", "milvus", "output_class", "schema"]

# The generated type hints know neither enum numbers nor open enums, so they are left out.
common: Any = common_pb2
milvus: Any = milvus_pb2
schema: Any = schema_pb2

_descriptor: Any = milvus.DESCRIPTOR.services_by_name["MilvusService"]

SERVICE: str = _descriptor.full_name
METHODS: dict[str, MethodDescriptor] = {m.name: m for m in _descriptor.methods}
"""Every RPC of MilvusService by name."""


def input_class(rpc: str) -> type[Message]:
    return GetMessageClass(METHODS[rpc].input_type)


def output_class(rpc: str) -> type[Message]:
    return GetMessageClass(METHODS[rpc].output_type)
