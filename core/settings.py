"""Every setting, with its default and what it does. Parsed once by ``sheafdb.config``.

One frozen dataclass per concern; an object gets the one it needs through its constructor.
``docs/settings.md`` is generated from this file.
"""

from dataclasses import dataclass, field
from typing import Any


def setting(
    default: Any, doc: str, *, least: float | None = None, most: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """A dataclass field with its line of documentation and what it may be (bounds are included)."""
    return field(default=default, metadata={"doc": doc, "least": least, "most": most, "choices": choices})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    host: str = setting("127.0.0.1", "address the proxy listens on")
    port: int = setting(19530, "port of the Milvus protocol; 0 = any free one", least=0, most=65_535)
    metrics_port: int = setting(
        9091, "port of /metrics and /healthz on the same host; 0 = any free one, -1 = off", least=-1, most=65_535
    )
    listener: str = setting(
        "auto",
        "auto, native (pygrpc-native) or grpc (grpc.aio); auto = native unless TLS is on",
        choices=("auto", "native", "grpc"),
    )
    tls_cert: str = setting("", "PEM file with the certificate chain; set with tls_key to serve TLS")
    tls_key: str = setting("", "PEM file with the private key")
    drain_s: float = setting(10.0, "longest wait for running requests at SIGTERM", least=0)


@dataclass(frozen=True, slots=True)
class LogSettings:
    channels: int = setting(4, "channels of the log; fixed when the store is created", least=1, most=1024)
    record_bytes_max: int = setting(
        8 * 1024 * 1024, "largest record; larger inserts are split", least=64 * 1024, most=64 * 1024 * 1024
    )


@dataclass(frozen=True, slots=True)
class ProxySettings:
    id_lease: int = setting(100_000, "auto ids leased from the coordinator at a time", least=1)
    request_timeout_s: float = setting(60.0, "deadline of a request that names none", least=0.001)
    slow_request_s: float = setting(2.0, "requests that take longer are logged at warning", least=0)


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    garbage_grace_s: float = setting(60.0, "age at which an object no manifest names is deleted", least=0)
    garbage_interval_s: float = setting(10.0, "pause between rounds of garbage collection", least=0.01)
    orphan_grace_s: float = setting(3600.0, "age at which the audit deletes objects nothing ever named", least=0)
    audit_interval_s: float = setting(6 * 3600.0, "pause between audits of the object store", least=0.01)
    index_retry_s: float = setting(5.0, "pause before a failed index build is tried again", least=0.01)
    lease_ttl_s: float = setting(5.0, "life of a node's registration after its last heartbeat", least=0.5)


@dataclass(frozen=True, slots=True)
class DataNodeSettings:
    segment_bytes: int = setting(128 * 1024 * 1024, "buffered bytes of a shard that seal it", least=1024)
    seal_age_s: float = setting(600.0, "age of the oldest buffered row that seals a shard", least=0.01)
    buffer_bytes: int = setting(
        512 * 1024 * 1024, "buffered bytes of all shards above which the largest is sealed", least=1024
    )
    compact_bytes: int = setting(512 * 1024 * 1024, "size that compaction merges small segments up to", least=1024)
    compact_segments: int = setting(4, "small segments of a partition that start a merge", least=2)
    compact_dead_ratio: float = setting(0.2, "share of dead rows that rewrites a segment", least=0.01, most=1)
    compact_interval_s: float = setting(10.0, "pause between looks for something to compact", least=0.01)
    trim_interval_s: float = setting(5.0, "pause between checkpoints and trims of a channel", least=0.01)


@dataclass(frozen=True, slots=True)
class IndexNodeSettings:
    threads: int = setting(0, "threads of one build; 0 = all cores", least=0, most=1024)
    rows_min: int = setting(2048, "segments with fewer rows get no index and are searched exactly", least=1)


@dataclass(frozen=True, slots=True)
class QueryNodeSettings:
    bounded_staleness_s: float = setting(5.0, "how far behind a Bounded read may be", least=0)
    interim_rows: int = setting(
        50_000, "growing rows of a shard and partition above which an interim index is kept", least=1
    )
    search_threads: int = setting(
        0, "threads for searches too long for the event loop; 0 = all cores", least=0, most=1024
    )
    inline_cost: int = setting(
        2_000_000, "estimated multiply-adds up to which a search runs on the event loop", least=0
    )
    session_ttl_s: float = setting(600.0, "how long an iterator's view is held after its last page", least=1)


@dataclass(frozen=True, slots=True)
class LogOutputSettings:
    level: str = setting("info", "debug, info, warning or error", choices=("debug", "info", "warning", "error"))
    format: str = setting("auto", "json, text, or auto = text on a terminal", choices=("auto", "json", "text"))


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them; the names of the sections are those of the configuration file."""

    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    proxy: ProxySettings = ProxySettings()
    coordinator: CoordinatorSettings = CoordinatorSettings()
    data_node: DataNodeSettings = DataNodeSettings()
    index_node: IndexNodeSettings = IndexNodeSettings()
    query_node: QueryNodeSettings = QueryNodeSettings()
    logging: LogOutputSettings = LogOutputSettings()
