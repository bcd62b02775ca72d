"""Where the servers of a cluster are, and the configuration file that all its processes share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sheafdb.servers.minio import ACCESS_KEY, SECRET_KEY


@dataclass(frozen=True, slots=True)
class Endpoints:
    """kafka, etcd: host:port. s3: URL. Several clusters may share them, each with its own ``name``."""

    kafka: str
    etcd: str
    s3: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    name: str = "sheafdb"
    """Topic, key prefix and bucket."""

    def settings(self) -> dict[str, Any]:
        """Dotted names of ``core.settings`` to values; one copy of everything, as there is one machine."""
        return {
            "kafka.servers": self.kafka,
            "kafka.topic": self.name,
            "kafka.replication_factor": 1,
            "kafka.min_insync_replicas": 1,
            "etcd.endpoints": self.etcd,
            "etcd.prefix": self.name,
            "s3.endpoint": self.s3,
            "s3.bucket": self.name,
            "s3.access_key": self.access_key,
            "s3.secret_key": self.secret_key,
        }


def write_config(file: Path, settings: Mapping[str, Any]) -> None:
    """Writes dotted names to values as a configuration file; readable by its owner only, for the keys in it."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(sections, sort_keys=False), encoding="utf-8")
