"""A whole cluster on this machine: real Kafka, etcd and MinIO, and the five roles as processes.

``make cluster`` for people, ``Cluster`` for tests.
"""

from sheafdb.cluster.cluster import Cluster, Size
from sheafdb.cluster.endpoints import Endpoints
from sheafdb.cluster.role_process import RoleProcess

__all__ = ["Cluster", "Endpoints", "RoleProcess", "Size"]
