"""The topics of a store: made with the settings that keep every record, checked at every start.

A topic that exists is never changed: whoever made it may share it, and a wrong setting may already have
lost records. It is refused with what to do.
"""

import asyncio
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    for_code,
)

from core.errors import StartRefused, Unavailable
from storage.log.kafka_access import Access, Again
from storage.log.kafka_connection import Pauses, retried

UNLIMITED = "-1"


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic has to be."""

    name: str
    partitions: int
    replication_factor: int
    min_insync_replicas: int
    batch_bytes: int

    @property
    def configuration(self) -> dict[str, str]:
        """In Kafka's words: https://kafka.apache.org/documentation/#topicconfigs"""
        return {
            "cleanup.policy": "delete",
            "retention.ms": UNLIMITED,
            "retention.bytes": UNLIMITED,
            "max.message.bytes": str(self.batch_bytes),
            "min.insync.replicas": str(self.min_insync_replicas),
            "unclean.leader.election.enable": "false",
            # Else a broker refuses what comes from a clock that is an hour ahead.
            "message.timestamp.type": "LogAppendTime",
        }


async def ensure(access: Access, topics: list[Topic]) -> None:
    """Makes the topics that are missing and checks those that are there.

    Raises ``StartRefused`` naming what is wrong, ``Unavailable`` when Kafka does not answer in time.
    """
    try:
        async with asyncio.timeout(3 * access.request_timeout_s), _admin(access) as admin:
            for topic in topics:
                what = f"kafka to prepare topic {topic.name}"
                await retried(partial(_prepare, admin, topic, access.servers), 2 * access.request_timeout_s, what)
    except KafkaError as e:
        raise Unavailable(f"kafka at {access.servers} can't prepare its topics: {e}") from e
    except TimeoutError:
        names = ", ".join(t.name for t in topics)
        raise Unavailable(f"waited {3 * access.request_timeout_s:g} s for kafka to prepare topics {names}") from None


@asynccontextmanager
async def _admin(access: Access):
    admin = AIOKafkaAdminClient(bootstrap_servers=access.servers, **access.options)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _prepare(admin: AIOKafkaAdminClient, topic: Topic, servers: str) -> None:
    """Makes or checks it. Raises ``Again`` while a broker that is asked has not heard of it: they learn of a new
    topic one after the other."""
    if await _described(admin, topic.name) is None:
        await _create(admin, topic)
    await _check(admin, topic, servers)


async def _described(admin: AIOKafkaAdminClient, name: str) -> dict[str, Any] | None:
    # All topics: asked for one that is missing, a broker may make it.
    return next((t for t in await admin.describe_topics() if t["topic"] == name), None)


async def _create(admin: AIOKafkaAdminClient, topic: Topic) -> None:
    new = NewTopic(topic.name, topic.partitions, topic.replication_factor, topic_configs=topic.configuration)
    answer: Any = await admin.create_topics([new])
    [(_, code, message, *_)] = answer.topic_errors
    if for_code(code) is not TopicAlreadyExistsError:  # another process may be faster
        _verify(code, message, f"make topic {topic.name} with kafka.replication_factor = {topic.replication_factor}")
    pauses = Pauses()
    while not _led(await _described(admin, topic.name)):
        await pauses.pause()


def _led(found: Mapping[str, Any] | None) -> bool:
    return found is not None and all(p["leader"] != -1 for p in found["partitions"])


async def _check(admin: AIOKafkaAdminClient, topic: Topic, servers: str) -> None:
    found = await _described(admin, topic.name)
    if found is None:
        raise Again(f"a broker does not know kafka topic {topic.name}")
    copies = min(len(p["replicas"]) for p in found["partitions"])
    resource = ConfigResource(ConfigResourceType.TOPIC, topic.name)
    answers: list[Any] = await admin.describe_configs([resource])
    [(code, message, _, _, entries)] = answers[0].resources
    _verify(code, message, f"describe topic {topic.name}")
    configuration = {name: value for name, value, *_ in entries}
    if wrong := objections(topic, len(found["partitions"]), copies, configuration):
        raise StartRefused(f"kafka topic {topic.name} at {servers}: {'; '.join(wrong)}")


def _verify(code: int, message: str | None, what: str) -> None:
    error = for_code(code)
    if error is not NoError:
        raise (Again if error.retriable else StartRefused)(f"kafka can't {what}: {message or error.__name__}")


def objections(topic: Topic, partitions: int, copies: int, configuration: Mapping[str, str]) -> list[str]:
    """Why a topic that is like this can't be the wanted one, each with what to do; empty if it can."""
    wrong: list[str] = []
    if partitions != topic.partitions:
        wrong.append(
            f"it has {partitions} partitions, fixed when it was made: set log.channels = {partitions}"
            f" (now {topic.partitions}), or another kafka.topic"
        )
    if copies < topic.replication_factor:
        wrong.append(
            f"it keeps {copies} copies of a record, kafka.replication_factor asks for {topic.replication_factor}:"
            " reassign its partitions to more brokers, or lower the setting"
        )
    changes = [
        (name, configuration.get(name, "unknown"), value)
        for name, value in topic.configuration.items()
        if not _good(name, configuration.get(name), value)
    ]
    if changes:
        found = ", ".join(f"{name} is {value}" for name, value, _ in changes)
        config = ",".join(f"{name}={value}" for name, _, value in changes)
        wrong.append(
            f"{found}: change it with kafka-configs.sh --alter --entity-type topics --entity-name {topic.name}"
            f" --add-config {config}"
        )
    return wrong


def _good(name: str, found: str | None, wanted: str) -> bool:
    if name == "message.timestamp.type":
        return True  # nothing is lost by the other one
    if found is None:
        return False
    if name in ("max.message.bytes", "min.insync.replicas"):
        return int(found) >= int(wanted)
    return found == wanted
