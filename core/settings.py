"""Every setting, with its default and what it does. Parsed once by ``sheafdb.config``.

One frozen dataclass per concern; an object gets the one it needs through its constructor.
``docs/settings.md`` is generated from this file.
"""

from dataclasses import dataclass, field
from typing import Any


def setting(
    default: Any,
    doc: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """A dataclass field with its line of documentation and what it may be (bounds are included).

    secret: its value is never shown."""
    metadata = {"doc": doc, "least": least, "most": most, "choices": choices, "secret": secret}
    return field(default=default, metadata=metadata, repr=not secret)


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
    poll_us: int = setting(
        500,
        "how long the native listener looks for the next request without sleeping, while requests follow one"
        " another that closely; 0 = never",
        least=0,
        most=10_000,
    )
    port_use: str = setting(
        "exclusive",
        "shared: several proxies of a machine may listen on the port, so that one starts before another ends",
        choices=("exclusive", "shared"),
    )
    tls_cert: str = setting("", "PEM file with the certificate chain; set with tls_key to serve TLS")
    tls_key: str = setting("", "PEM file with the private key")
    drain_s: float = setting(10.0, "longest wait for running requests at SIGTERM", least=0)

    @property
    def reuse_port(self) -> bool:
        return self.port_use == "shared"


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
    lease_ttl_s: float = setting(
        2.0,
        "life of the leader's lease after its last heartbeat, which standbys wait for; etcd counts seconds, 2 or more",
        least=0.5,
    )


@dataclass(frozen=True, slots=True)
class DataNodeSettings:
    segment_bytes: int = setting(128 * 1024 * 1024, "buffered bytes of a shard that seal it", least=1024)
    seal_age_s: float = setting(600.0, "age of the oldest buffered row that seals a shard", least=0.01)
    buffer_bytes: int = setting(
        512 * 1024 * 1024, "buffered bytes of all shards above which the largest is sealed", least=1024
    )
    backlog_bytes: int = setting(
        0,
        "bytes of the log, read or not, that wait to be sealed and from which writes are refused; from half of it on"
        " they are slowed down; 0 = four times buffer_bytes, 2 GiB at least",
        least=0,
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
        5_000_000, "estimated multiply-adds up to which a search runs on the event loop", least=0
    )
    session_ttl_s: float = setting(600.0, "how long an iterator's view is held after its last page", least=1)
    spread_bytes: int = setting(
        256 * 1024 * 1024, "bytes of a shard's segments from which several query nodes hold them", least=0
    )
    memory_bytes: int = setting(
        0,
        "memory for sealed rows and their indexes, mapped files included; what does not fit is not loaded; 0 = all"
        " that the container or the machine has",
        least=0,
    )
    growing_bytes: int = setting(
        0,
        "memory of growing rows from which writes are refused; from half of it on they are slowed down; 0 = a"
        " quarter of memory_bytes",
        least=0,
    )


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    servers: str = setting("127.0.0.1:9092", "brokers to start from, host:port, separated by commas")
    topic: str = setting("sheafdb", "topic of the log, made when missing; <topic>-properties is made beside it")
    replication_factor: int = setting(
        3, "copies of each record; 1 loses acknowledged writes with the machine", least=1, most=32_767
    )
    min_insync_replicas: int = setting(
        2, "copies that must have a record before it is acknowledged", least=1, most=32_767
    )
    append_timeout_s: float = setting(
        15.0, "how long a write waits to be acknowledged; then it may or may not be in the log", least=0.1
    )
    request_timeout_s: float = setting(10.0, "longest wait for one answer of a broker", least=1)
    tls: str = setting("no", "whether connections are encrypted", choices=("yes", "no"))
    tls_ca: str = setting("", "PEM file with the authorities that sign the brokers' certificates; empty = the usual")
    tls_cert: str = setting("", "PEM file with this client's certificate; set with tls_key")
    tls_key: str = setting("", "PEM file with this client's private key")
    sasl: str = setting("no", "how to log in, if at all", choices=("no", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))
    user: str = setting("", "user to log in as")
    password: str = setting("", "password of the user", secret=True)


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    endpoints: str = setting("127.0.0.1:2379", "members of etcd, host:port,host:port,...; one that answers is used")
    prefix: str = setting("sheafdb", "beginning of all keys: several clusters may share one etcd")
    user: str = setting("", "user name; empty = etcd asks for none")
    password: str = setting("", "password of the user", secret=True)
    tls_ca: str = setting("", "PEM file with the authorities that sign etcd's certificates; turns TLS on")
    tls_cert: str = setting("", "PEM file with the certificate this process shows etcd; set with tls_key")
    tls_key: str = setting("", "PEM file with the key of tls_cert")
    connect_timeout_s: float = setting(2.0, "longest wait for a member to answer before the next is tried", least=0.1)
    request_timeout_s: float = setting(5.0, "longest time of one call, repeats of reads included", least=0.1)


@dataclass(frozen=True, slots=True)
class S3Settings:
    endpoint: str = setting("", "URL of an S3-compatible server, http://127.0.0.1:9000; empty = AWS S3")
    region: str = setting("us-east-1", "region that requests are signed for")
    bucket: str = setting("sheafdb", "bucket of the cluster's objects")
    prefix: str = setting("", "beginning of all names in the bucket: several clusters may share one")
    create_bucket: str = setting("yes", "whether a missing bucket is created at start", choices=("yes", "no"))
    access_key: str = setting("", "access key; empty = the credential chain of AWS (environment, profile, role)")
    secret_key: str = setting("", "secret key; set with access_key", secret=True)
    session_token: str = setting("", "token of temporary credentials", secret=True)
    addressing: str = setting(
        "auto",
        "path (endpoint/bucket), virtual (bucket.endpoint), or auto = path when an endpoint is set",
        choices=("auto", "path", "virtual"),
    )
    tls_ca: str = setting("", "PEM file with the authorities that sign the endpoint's certificate; empty = the usual")
    connections: int = setting(16, "connections, and threads that use them", least=1, most=256)
    connect_timeout_s: float = setting(3.0, "longest wait for a connection", least=0.1)
    read_timeout_s: float = setting(10.0, "longest silence of the server before a request is given up", least=0.1)
    deadline_s: float = setting(
        30.0, "longest time of one request with all retries; a large object takes one request per part", least=0.1
    )
    part_bytes: int = setting(
        8 * 1024 * 1024,
        "objects larger than this are written and read in parts of this size",
        least=5 * 1024 * 1024,
        most=1024 * 1024 * 1024,
    )


@dataclass(frozen=True, slots=True)
class CacheSettings:
    dir: str = setting("sheafdb-cache", "folder of local copies of objects; processes of one machine may share it")
    bytes_max: int = setting(50 * 1024 * 1024 * 1024, "size at which the least recently used copies go", least=1)


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    start_timeout_s: float = setting(
        60.0, "longest wait at start for Kafka, etcd and S3 to answer; then the process ends", least=0.1
    )


@dataclass(frozen=True, slots=True)
class NodeSettings:
    id: str = setting("", "name of this process in its cluster, kept over restarts; empty = host name and process id")
    host: str = setting("127.0.0.1", "address at which a role listens for the other roles")
    port: int = setting(0, "port for the other roles; 0 = any free one", least=0, most=65_535)
    direct_port: int = setting(
        0,
        "port at which a query node answers short searches at once (docs/decisions/0031); 0 = any free one, -1 = none",
        least=-1,
        most=65_535,
    )
    advertise: str = setting(
        "", "host or host:port at which others reach this process; empty = node.host, or the host name for 0.0.0.0"
    )
    lease_ttl_s: float = setting(
        3.0, "life of a node's registration after its last heartbeat; then it counts as dead", least=0.5
    )


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
    kafka: KafkaSettings = KafkaSettings()
    etcd: EtcdSettings = EtcdSettings()
    s3: S3Settings = S3Settings()
    cache: CacheSettings = CacheSettings()
    cluster: ClusterSettings = ClusterSettings()
    node: NodeSettings = NodeSettings()
    logging: LogOutputSettings = LogOutputSettings()
