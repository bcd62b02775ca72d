"""Kafka: a process is broker and controller in one (KRaft), alone or with others."""

import asyncio
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from core.errors import StartRefused
from sheafdb.servers.child import Child
from sheafdb.servers.install import folder_of
from sheafdb.servers.process import HOST, LocalServer, free_port

CLUSTER_ID = "c2hlYWZkYi1vbi1sb29wYg"
"""22 characters of base64, as Kafka wants it."""
FORMAT_DEADLINE_S = 60.0
JAVA = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners={listeners},CONTROLLER://{host}:{controller}
advertised.listeners={advertised}
controller.listener.names=CONTROLLER
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
inter.broker.listener.name=MAIN
log.dirs={data}
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
log.segment.delete.delay.ms=1000
# A killed broker may come back only once its old registration has run out: 9 s by default.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
# How long a follower waits for a leader that hangs before it follows another one, 30 s by default: until then
# nothing is acknowledged by all in sync.
replica.socket.timeout.ms=2000
"""


class Kafka(LocalServer):
    """detours: further ports, each with the address its clients are told to use (that of a ``Detour`` in
    front of it): Kafka's clients connect to what the broker names, not to what they were given.
    voters: the ports of the controllers of a cluster of several, by node; ``node`` is this one's. They answer
    only once most of them run."""

    name = "kafka"

    def __init__(
        self,
        folder: Path,
        port: int,
        detours: Mapping[int, str] | None = None,
        node: int = 1,
        voters: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(folder, port)
        self._detours = dict(detours or {})
        self._node, self._voters = node, voters or {node: free_port()}

    @classmethod
    async def start(cls, folder: Path, port: int = 0, detours: Mapping[int, str] | None = None) -> Self:
        return await cls(folder, port, detours)._up()

    def _ports(self) -> Sequence[int]:
        return self.port, self._voters[self._node], *self._detours

    async def _prepare(self) -> None:
        data = self.folder / "data"
        names = {port: f"DETOUR{i}" for i, port in enumerate(self._detours)}
        self._settings.write_text(
            PROPERTIES.format(
                host=HOST,
                controller=self._voters[self._node],
                node=self._node,
                voters=",".join(f"{node}@{HOST}:{port}" for node, port in self._voters.items()),
                listeners=",".join(f"{n}://{HOST}:{p}" for p, n in {self.port: "MAIN", **names}.items()),
                advertised=",".join(
                    [f"MAIN://{self.address}", *(f"{names[p]}://{address}" for p, address in self._detours.items())]
                ),
                protocols=",".join(f"{n}:PLAINTEXT" for n in ("MAIN", *names.values())),
                data=data,
            )
        )
        if (data / "meta.properties").exists():
            return
        # One that was killed while it formatted leaves half of it; it has never served.
        shutil.rmtree(data, ignore_errors=True)
        arguments = ("format", "-t", CLUSTER_ID, "-c", str(self._settings))
        format_log = self.folder / "format.log"
        formatting = Child(self._java("kafka.tools.StorageTool", *arguments), format_log, cwd=self.folder)
        try:
            code = await formatting.ended(FORMAT_DEADLINE_S)
        finally:
            formatting.kill()
        if code:
            raise StartRefused(f"kafka could not format {data}: {formatting.last_words()}")

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    def _command(self) -> Sequence[str]:
        return self._java("kafka.Kafka", str(self._settings))

    def _java(self, main: str, *arguments: str) -> Sequence[str]:
        return "java", *JAVA, "-cp", str(folder_of(self.name) / "libs" / "*"), main, *arguments

    async def _answers(self) -> bool:
        """Whether the broker is in its own metadata and every partition has a leader: the port is open
        long before, and a partition without a leader takes no writes."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(_frame(METADATA_REQUEST))
            size = struct.unpack(">i", await reader.readexactly(4))[0]
            return _all_led(await reader.readexactly(size))
        finally:
            writer.close()


# Metadata request, version 1: header (API 3, version, correlation, client id), all topics.
METADATA_REQUEST = struct.pack(">hhih5si", 3, 1, 1, 5, b"sheaf", -1)


def _frame(request: bytes) -> bytes:
    return struct.pack(">i", len(request)) + request


def _all_led(reply: bytes) -> bool:
    """Reads a Metadata response, version 1: https://kafka.apache.org/protocol#The_Messages_Metadata"""
    body = _Reader(reply)
    body.number("i")  # correlation
    brokers = body.number("i")
    for _ in range(brokers):
        body.number("i")  # id
        body.text()  # host
        body.number("i")  # port
        body.text()  # rack
    body.number("i")  # controller
    led = brokers > 0
    for _ in range(body.number("i")):
        led &= body.number("h") == 0  # error of the topic
        body.text()
        body.number("b")  # internal
        for _ in range(body.number("i")):
            led &= body.number("h") == 0  # error of the partition
            body.number("i")
            led &= body.number("i") >= 0  # leader
            body.ids()  # replicas
            body.ids()  # in sync
    return led


class _Reader:
    """Takes one value after the other from a reply in Kafka's protocol."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, form: str) -> int:
        value = struct.unpack_from(">" + form, self._data, self._at)[0]
        self._at += struct.calcsize(">" + form)
        return value

    def text(self) -> None:
        length = self.number("h")
        self._at += max(length, 0)

    def ids(self) -> None:
        count = self.number("i")
        self._at += 4 * count
