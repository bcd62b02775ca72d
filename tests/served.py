"""Whatever serves the protocol to an end-to-end test: its connections, and the ERROR lines of its logs."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import grpc
from pymilvus import MilvusClient
from pymilvus.grpc_gen import milvus_pb2_grpc


class Served(ABC):
    """One process, or a cluster of them.

    expected_errors: patterns of ERROR lines that the test provokes on purpose.
    """

    def __init__(self) -> None:
        self.expected_errors: list[str] = []
        self._clients: list[MilvusClient] = []
        self._channels: list[grpc.Channel] = []
        self._errors_seen: dict[Path, int] = {}

    # --- the processes -------------------------------------------------------------------------
    @property
    @abstractmethod
    def address(self) -> str:
        """host:port of the protocol."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether every process runs."""

    @property
    @abstractmethod
    def rss(self) -> int:
        """Resident memory in bytes, of all processes."""

    @abstractmethod
    def restart_one(self, nth: int, *, kill: bool) -> None:
        """Restarts the nth process (modulo their number), by SIGKILL or SIGTERM."""

    @abstractmethod
    def close(self) -> None:
        """Leaves no process and no connection behind."""

    @abstractmethod
    def output(self) -> str:
        """The end of what the processes wrote, for messages."""

    @abstractmethod
    def _log_files(self) -> Sequence[Path]: ...

    # --- connections ---------------------------------------------------------------------------
    @property
    def uri(self) -> str:
        return f"http://{self.address}"

    def client(self, *, patient: bool = True) -> MilvusClient:
        """A client of its own connection; closed when the process ends.

        patient: wait for a lost server to come back, as the client does by itself. For an
        impatient one pass ``retry_times=0`` to its calls as well.
        """
        client = MilvusClient(self.uri, dedicated=True)
        if not patient:
            client._get_connection()._on_rpc_error = lambda _: False
        self._clients.append(client)
        return client

    def any_client(self) -> MilvusClient:
        """The same client until the process it is connected to ends; a new one then."""
        return self._clients[0] if self._clients else self.client()

    def channel(self) -> grpc.Channel:
        """A bare gRPC channel; closed when the process ends."""
        channel = grpc.insecure_channel(
            self.address, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )
        self._channels.append(channel)
        return channel

    def stub(self) -> milvus_pb2_grpc.MilvusServiceStub:
        """The protocol without the client's own checks."""
        return milvus_pb2_grpc.MilvusServiceStub(self.channel())

    def _disconnect(self) -> None:
        for connection in [*self._clients, *self._channels]:
            connection.close()
        self._clients.clear()
        self._channels.clear()

    # --- what it says --------------------------------------------------------------------------
    def new_errors(self) -> list[str]:
        """Unexpected ERROR lines since the last call."""
        lines = [line for file in self._log_files() if file.exists() for line in self._new_lines(file)]
        return [line for line in lines if _is_error(line) and not any(re.search(p, line) for p in self.expected_errors)]

    def _new_lines(self, file: Path) -> list[str]:
        with file.open(errors="replace") as f:
            f.seek(self._errors_seen.get(file, 0))
            lines = f.readlines()
            self._errors_seen[file] = f.tell()
        return lines


def _is_error(line: str) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return line.startswith(("Traceback", "Exception ignored", "Task exception", "Fatal"))
    return isinstance(entry, dict) and str(entry.get("level", "")).lower() in ("error", "critical")
