"""Starting a log on a real Kafka: its topics, what is refused and how that is said, TLS and logins."""

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka.admin import NewTopic

from core.errors import StartRefused, Unavailable
from core.settings import KafkaSettings
from sheafdb.servers import Kafka, free_port
from storage.log.kafka import KafkaLog
from tests.on_kafka import LOG, A, B, administrator, collect, kafka_settings, opened

TLS = Path(__file__).parents[1] / "tls"


@pytest.fixture
def settings(kafka_server: Kafka) -> KafkaSettings:
    return kafka_settings(kafka_server)


async def test_logs_opened_at_once_make_one_topic_and_share_it(settings: KafkaSettings):
    logs = await asyncio.gather(*(KafkaLog.open(settings, LOG) for _ in range(3)))
    await logs[0].set_property("cluster", b"one")
    await logs[1].set_property("other", b"x")
    await logs[1].set_property("cluster", b"two")
    assert [await log.property("cluster") for log in logs] == [b"two"] * 3
    assert await logs[2].property("missing") is None
    assert await logs[0].end([A, B]) == [0, 0], "properties are not in the log"
    await logs[0].append([(A, b"x")])
    assert await logs[1].end([A]) == [1]
    await asyncio.gather(*(log.close() for log in logs))


async def test_a_topic_that_would_lose_records_is_refused_with_what_to_do(settings: KafkaSettings, kafka_server: Kafka):
    async with administrator(kafka_server) as admin:
        configuration = {"retention.ms": "86400000", "cleanup.policy": "compact", "max.message.bytes": "1000"}
        await admin.create_topics([NewTopic(settings.topic, 5, 1, topic_configs=configuration)])
    with pytest.raises(StartRefused) as refused:
        await KafkaLog.open(settings, LOG)
    message = str(refused.value)
    assert settings.topic in message
    assert "\n" not in message
    for part in (
        "it has 5 partitions, fixed when it was made: set log.channels = 5",
        "retention.ms is 86400000",
        "cleanup.policy is compact",
        "--add-config cleanup.policy=delete,retention.ms=-1,max.message.bytes=",
    ):
        assert part in message
    with pytest.raises(StartRefused, match=r"keeps 1 copies of a record, kafka\.replication_factor asks for 3"):
        await KafkaLog.open(replace(settings, replication_factor=3), LOG)


async def test_what_cannot_start_says_why_in_one_line(settings: KafkaSettings, kafka_server: Kafka):
    nobody = f"127.0.0.1:{free_port()}"
    refusals = {
        r"kafka\.replication_factor = 3: .*broker": replace(settings, replication_factor=3, min_insync_replicas=2),
        r"kafka\.min_insync_replicas = 2 can't be reached": replace(settings, min_insync_replicas=2),
        r"kafka\.servers = 'a:b': expected host:port": replace(settings, servers="a:b"),
        r"kafka\.sasl = PLAIN needs": replace(settings, sasl="PLAIN", user="u"),
        r"kafka\.tls_cert and kafka\.tls_key": replace(settings, tls="yes", tls_cert="x"),
        r"TLS files of kafka cannot be used \(/nowhere\)": replace(settings, tls="yes", tls_ca="/nowhere"),
    }
    for message, wrong in refusals.items():
        with pytest.raises(StartRefused, match=message):
            await KafkaLog.open(wrong, LOG)
    with pytest.raises(Unavailable, match=nobody):
        await KafkaLog.open(replace(settings, servers=nobody), LOG)
    # One of several is enough.
    async with opened(replace(settings, servers=f"{nobody},{kafka_server.address}")):
        pass


# --- TLS and login -----------------------------------------------------------------------------
class SecureKafka(Kafka):
    """Another listener: TLS with client certificates, login by PLAIN or SCRAM."""

    def __init__(self, folder: Path, port: int, detours: Mapping[int, str] | None = None) -> None:
        super().__init__(folder, port, detours)
        self.secure_port = free_port()

    @property
    def secure_address(self) -> str:
        return f"localhost:{self.secure_port}"

    def _ports(self) -> Sequence[int]:
        return *super()._ports(), self.secure_port

    async def _prepare(self) -> None:
        await super()._prepare()
        text = self._settings.read_text()
        text = text.replace("\nlisteners=", f"\nlisteners=SECURE://127.0.0.1:{self.secure_port},")
        text = text.replace("\nadvertised.listeners=", f"\nadvertised.listeners=SECURE://{self.secure_address},")
        text = text.replace("\nlistener.security.protocol.map=", "\nlistener.security.protocol.map=SECURE:SASL_SSL,")
        store = self.folder / "store.pem"
        store.write_text((TLS / "localhost.key").read_text() + (TLS / "localhost.pem").read_text())
        listener, security = "listener.name.secure", "org.apache.kafka.common.security"
        login = f'{security}.plain.PlainLoginModule required user_alice="secret";'
        scram = f"{security}.scram.ScramLoginModule required;"
        lines = [
            f"{listener}.ssl.keystore.type=PEM",
            f"{listener}.ssl.keystore.location={store}",
            f"{listener}.ssl.truststore.type=PEM",
            f"{listener}.ssl.truststore.location={TLS / 'localhost.pem'}",
            f"{listener}.ssl.client.auth=required",
            f"{listener}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256",
            f"{listener}.plain.sasl.jaas.config={login}",
            f"{listener}.scram-sha-256.sasl.jaas.config={scram}",
        ]
        self._settings.write_text("\n".join([text, *lines, ""]))

    async def add_user(self, name: str, password: str) -> None:
        arguments = ("--bootstrap-server", self.address, "--alter", "--entity-type", "users", "--entity-name", name)
        config = f"SCRAM-SHA-256=[password={password}]"
        command = [*self._java("kafka.admin.ConfigCommand", *arguments), "--add-config", config]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)


async def test_tls_and_logins(tmp_path: Path):
    server = await SecureKafka.start(tmp_path / "kafka")
    try:
        await server.add_user("bob", "hidden")
        pem = str(TLS / "localhost.pem")
        files = {"tls_ca": pem, "tls_cert": pem, "tls_key": str(TLS / "localhost.key")}
        settings = kafka_settings(server, servers=server.secure_address, tls="yes", **files)
        plain = replace(settings, sasl="PLAIN", user="alice", password="secret")
        scram = replace(settings, sasl="SCRAM-SHA-256", user="bob", password="hidden")
        async with opened(plain) as one, opened(scram) as two:
            await one.append([(A, b"encrypted")])
            assert [r.payload for r in await collect(two, A, 1)] == [b"encrypted"]
        for wrong in (replace(plain, password="guess"), replace(scram, password="guess")):
            with pytest.raises(StartRefused, match=rf"localhost:{server.secure_port} refuses the login"):
                await KafkaLog.open(wrong, LOG)
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await KafkaLog.open(replace(plain, tls_ca=""), LOG)
    finally:
        server.kill()
