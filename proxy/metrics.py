"""The proxy's Prometheus series. Children are looked up once, not per request."""

from prometheus_client import Counter, Histogram

REQUESTS = Counter("sheafdb_requests", "Requests answered, by RPC and Milvus code (0 = success)", ["rpc", "code"])
SECONDS = Histogram(
    "sheafdb_request_seconds",
    "Time from a request's arrival to its answer",
    ["rpc"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
)


class RpcMetrics:
    """The series of one RPC."""

    def __init__(self, rpc: str) -> None:
        self._rpc = rpc
        self._seconds = SECONDS.labels(rpc)
        self._by_code = {0: REQUESTS.labels(rpc, 0)}

    def answered(self, code: int, seconds: float) -> None:
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = REQUESTS.labels(self._rpc, code)
        counter.inc()
        self._seconds.observe(seconds)
