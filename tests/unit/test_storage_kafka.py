"""The log on Kafka without a Kafka: settings, what a topic has to be, asking the end."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NoError, for_code
from aiokafka.protocol.offset import OffsetRequest

from core.errors import Unavailable
from core.ids import Channel
from core.settings import KafkaSettings, LogSettings
from storage.log import kafka_append
from storage.log.kafka import batch_bytes, topics
from storage.log.kafka_access import Again, client_options
from storage.log.kafka_append import Appender
from storage.log.kafka_end import Offsets
from storage.log.kafka_lane import Entry, Lane
from storage.log.kafka_topic import objections

TLS = Path(__file__).parents[1] / "tls"
LOG, SMALL = topics(KafkaSettings(), LogSettings())


# --- settings ----------------------------------------------------------------------------------
def test_options_without_tls_and_login():
    options = client_options(KafkaSettings(request_timeout_s=2.5))
    assert options == {"client_id": "sheafdb", "request_timeout_ms": 2500, "security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("tls", ["yes", "no"])
def test_options_of_a_login(mechanism: str, tls: str):
    options = client_options(KafkaSettings(tls=tls, sasl=mechanism, user="alice", password="secret"))
    assert options["security_protocol"] == {"yes": "SASL_SSL", "no": "SASL_PLAINTEXT"}[tls]
    assert options["sasl_mechanism"] == mechanism
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("alice", "secret")
    assert ("ssl_context" in options) == (tls == "yes")


def test_options_of_tls():
    pem, key = str(TLS / "localhost.pem"), str(TLS / "localhost.key")
    options = client_options(KafkaSettings(tls="yes", tls_ca=pem, tls_cert=pem, tls_key=key))
    assert options["security_protocol"] == "SSL"
    context = options["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert [dict(entry[0] for entry in ca["subject"]) for ca in context.get_ca_certs()] == [{"commonName": "localhost"}]


def test_a_password_is_never_shown():
    assert "secret" not in repr(KafkaSettings(password="secret"))


# --- topics ------------------------------------------------------------------------------------
def test_the_topics_of_a_store():
    assert (LOG.name, LOG.partitions) == ("sheafdb", LogSettings().channels)
    assert (SMALL.name, SMALL.partitions) == ("sheafdb-properties", 1)
    assert LOG.replication_factor == SMALL.replication_factor == 3
    assert LOG.configuration["min.insync.replicas"] == "2"
    assert int(LOG.configuration["max.message.bytes"]) == batch_bytes(LogSettings()) > LogSettings().record_bytes_max


def test_a_topic_as_wanted_or_safer_is_taken():
    more = {"max.message.bytes": "99999999", "min.insync.replicas": "3", "message.timestamp.type": "CreateTime"}
    assert objections(LOG, 4, 3, LOG.configuration) == []
    assert objections(LOG, 4, 5, {**LOG.configuration, **more, "segment.bytes": "1"}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1073741824"),
        ("max.message.bytes", "1048588"),
        ("min.insync.replicas", "1"),
        ("unclean.leader.election.enable", "true"),
    ],
)
def test_a_topic_that_may_lose_or_refuse_records_is_named_with_the_cure(name: str, value: str):
    [line] = objections(LOG, 4, 3, {**LOG.configuration, name: value})
    assert f"{name} is {value}: change it with kafka-configs.sh" in line
    assert line.endswith(f"--entity-name sheafdb --add-config {name}={LOG.configuration[name]}")


def test_partitions_and_copies_are_named():
    lines = objections(LOG, 8, 1, LOG.configuration)
    assert ["set log.channels = 8" in lines[0], "keeps 1 copies" in lines[1], len(lines)] == [True, True, 2]


# --- requests ----------------------------------------------------------------------------------
class FakeBrokers:
    """Two brokers, leading the even and the odd channels. ``held``: an answer waits until it is set.
    ``answer``: what to a request."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.topic = "t"
        self.access = SimpleNamespace(request_timeout_s=0.5, servers="fake")
        self.asked: list[tuple[int, Any]] = []
        self.held = asyncio.Event()
        self.held.set()
        self._answer = answer

    async def leader(self, channel: Channel) -> int:
        return channel % 2

    async def ask(self, channel: Channel, request: Any) -> Any:
        return await self.ask_broker(channel % 2, request)

    async def ask_broker(self, node: int, request: Any, channel: Channel | None = None) -> Any:
        self.asked.append((node, request))
        answer = self._answer(request)
        await self.held.wait()
        return answer

    def verify(self, channel: Channel, code: int) -> None:
        error = for_code(code)
        if error is not NoError:
            raise Again(f"code {code}") if error.retriable else error()


class FakeEnds:
    """Answers that every channel ends at ``end``."""

    def __init__(self) -> None:
        self.end = 0
        self.brokers = FakeBrokers(self.answer)

    def answer(self, request: OffsetRequest) -> Any:
        [(topic, partitions)] = request._topics
        return SimpleNamespace(topics=[(topic, [(number, 0, -1, self.end) for number, _ in partitions])])

    @property
    def calls(self) -> list[tuple[int, list[int]]]:
        return [(node, [number for number, _ in request._topics[0][1]]) for node, request in self.brokers.asked]


async def test_ends_asked_at_once_share_a_call_to_each_broker():
    fake = FakeEnds()
    offsets = Offsets(fake.brokers)  # type: ignore[arg-type]  # the part it uses
    fake.end = 7
    channels = [Channel(c) for c in (3, 0, 2)]
    assert await asyncio.gather(*(offsets.ends(channels) for _ in range(50))) == [[7, 7, 7]] * 50
    assert sorted(fake.calls) == [(0, [0, 2]), (1, [3])]


async def test_who_comes_while_a_call_is_under_way_shares_the_next_one():
    fake = FakeEnds()
    offsets = Offsets(fake.brokers)  # type: ignore[arg-type]  # the part it uses
    fake.brokers.held.clear()
    early = asyncio.create_task(offsets.ends([Channel(0)]))
    while not fake.calls:  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(0)
    fake.end = 1  # acknowledged after the broker has looked
    late = [asyncio.create_task(offsets.ends([Channel(c)])) for c in (0, 2, 0)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(fake.calls) == 1
    fake.brokers.held.set()
    assert await early == [0]
    assert await asyncio.gather(*late) == [[1], [1], [1]]
    assert fake.calls == [(0, [0]), (0, [0, 2])]


async def test_an_end_that_cannot_be_told_costs_a_bounded_time():
    brokers = FakeBrokers(lambda request: SimpleNamespace(topics=[("t", [(0, 6, -1, -1)])]))
    with pytest.raises(Unavailable, match=r"waited 0\.5 s for the ends of log channel 0: code 6"):
        await Offsets(brokers).ends([Channel(0)])  # type: ignore[arg-type]  # the part it uses


class FakeProducing:
    """Hands out producer ids; keeps what is produced. ``refusals``: codes of the next answers."""

    def __init__(self) -> None:
        self.ids = 0
        self.sent: list[bytes] = []
        self.refusals: list[int] = []
        self.brokers = FakeBrokers(self.answer)

    def answer(self, request: Any) -> Any:
        if not hasattr(request, "required_acks"):
            self.ids += 1
            return SimpleNamespace(error_code=0, producer_id=self.ids, producer_epoch=0)
        assert request.required_acks == -1
        self.sent.append(request._topics[0][1][0][1])
        code = self.refusals.pop(0) if self.refusals else 0
        return SimpleNamespace(topics=[("t", [(0, code, 100 * len(self.sent), -1, 0)])])


def numbers(batch: bytes) -> tuple[int, int, int]:
    """(producer id, sequence number, count of records): https://kafka.apache.org/documentation/#recordbatch"""
    return int.from_bytes(batch[43:51]), int.from_bytes(batch[53:57]), int.from_bytes(batch[57:61])


async def test_a_batch_is_sent_again_as_it_was_and_the_next_one_follows_on():
    fake = FakeProducing()
    lane = Lane(fake.brokers, Channel(0), 10_000)  # type: ignore[arg-type]  # the part it uses
    fake.refusals = [6, 6]
    assert await lane.put([Entry(b"a"), Entry(b"b")]) == 300
    assert await lane.put([Entry(b"c")]) == 400
    assert fake.sent[0] == fake.sent[1] == fake.sent[2], "or Kafka would not know it"
    assert [numbers(b) for b in fake.sent[2:]] == [(1, 0, 2), (1, 2, 1)]


async def test_a_batch_nobody_waits_for_is_not_sent_again_and_another_producer_begins():
    fake = FakeProducing()
    lane = Lane(fake.brokers, Channel(0), 10_000)  # type: ignore[arg-type]  # the part it uses
    fake.refusals = [6]
    given_up = lane.put([Entry(b"a")])
    while not fake.sent:  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(0)
    queued = lane.put([Entry(b"never sent")])
    for waiting in (given_up, queued):
        waiting.cancel()
    await lane.put([Entry(b"b")])
    assert [numbers(b) for b in fake.sent] == [(1, 0, 1), (2, 0, 1)]


async def test_a_refusal_fails_its_callers_and_no_others():
    fake = FakeProducing()
    lane = Lane(fake.brokers, Channel(0), 10_000)  # type: ignore[arg-type]  # the part it uses
    fake.refusals = [0, 10]  # MESSAGE_TOO_LARGE
    await lane.put([Entry(b"a")])
    with pytest.raises(Unavailable, match=r"kafka refuses records of log channel 0: .*MessageSizeTooLarge"):
        await lane.put([Entry(b"b")])
    await lane.put([Entry(b"c")])
    assert [numbers(b) for b in fake.sent] == [(1, 0, 1), (1, 1, 1), (2, 0, 1)]


async def test_calls_at_once_share_a_batch_and_a_large_call_is_cut():
    fake = FakeProducing()
    appender = Appender(fake.brokers, 1_000, 5)  # type: ignore[arg-type]  # the part it uses
    calls = [appender.append([(Channel(0), Entry(b"%d" % n))]) for n in range(4)]
    assert await asyncio.gather(*calls) == [[100], [101], [102], [103]]
    assert await appender.append([(Channel(0), Entry(b"x" * 300)) for _ in range(5)]) == [200, 201, 300, 301, 400]
    assert [numbers(b)[2] for b in fake.sent] == [4, 2, 2, 1]


async def test_nothing_more_is_taken_in_while_much_is_on_its_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kafka_append, "QUEUE_BYTES_MAX", 1_000)
    fake = FakeProducing()
    appender = Appender(fake.brokers, 1_000, 0.2)  # type: ignore[arg-type]  # the part it uses
    fake.brokers.held.clear()
    results = await asyncio.gather(
        *(appender.append([(Channel(0), Entry(b"x" * 500))]) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(r, Unavailable) and "did not acknowledge within 0.2 s" in str(r) for r in results)
    fake.brokers.held.set()
    assert await appender.append([(Channel(0), Entry(b"y"))])
    await appender.close()
    with pytest.raises(Unavailable, match="closed"):
        await appender.append([(Channel(0), Entry(b"z"))])
