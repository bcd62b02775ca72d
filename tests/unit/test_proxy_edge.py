"""The edge: errors to Status, deadlines, request ids; consistency; output fields; auto ids."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from core.catalog import Consistency
from core.errors import CollectionNotFound, InvalidArgument, NotYet, RateLimited, SchemaMismatch, TooLarge
from core.ids import FieldId
from core.schema import DYNAMIC, Field, Schema
from core.settings import ProxySettings
from core.types import DataType
from proxy import consistency, output_fields, request_params
from proxy.call import Call, Group
from proxy.edge import methods
from proxy.ids import AutoIds
from proxy.status import failure, status_of
from proxy.wire import METHODS, common, milvus, output_class


class Context:
    def __init__(self, remaining: float | None = None, **metadata: str) -> None:
        self._remaining = remaining
        self._metadata = tuple((k.replace("_", "-"), v) for k, v in metadata.items())

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._remaining


async def answer(handler: Any, context: Context, **settings: Any) -> Any:
    method = methods({"HasCollection": handler}, ProxySettings(**settings))["HasCollection"]
    data = milvus.HasCollectionRequest(collection_name="c", db_name="of_request").SerializeToString()
    return milvus.BoolResponse.FromString(
        await method.answer((data, context.invocation_metadata(), context.time_remaining()))
    )


# --- status ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "code", "legacy", "retriable", "input_error"),
    [
        (CollectionNotFound("c"), 100, "CollectionNotExists", False, True),
        (InvalidArgument("no"), 1100, "IllegalArgument", False, True),
        (SchemaMismatch("old"), 109, "SchemaMismatch", False, False),
        (RateLimited("slow down"), 8, "RateLimit", True, False),
        (NotYet("later"), 10, "UnexpectedError", False, False),
        (KeyError("bug"), 5, "UnexpectedError", False, False),
    ],
)
def test_status_of(error: Exception, code: int, legacy: str, retriable: bool, input_error: bool) -> None:
    status = status_of(error)
    assert (status.code, common.ErrorCode.Name(status.error_code), status.retriable) == (code, legacy, retriable)
    assert (status.extra_info.get("is_input_error") == "true") is input_error
    assert str(error) in status.reason


def test_every_message_can_be_sent() -> None:
    assert status_of(InvalidArgument("\ud800" * 10_000)).SerializeToString()


def test_every_answered_rpc_can_fail() -> None:
    for name in methods({}, ProxySettings()):
        fail = failure(output_class(name))
        assert fail is not None
        assert fail(status_of(NotYet("x"))).SerializeToString()
    unanswered = set(METHODS) - set(methods({}, ProxySettings()))
    assert unanswered == {"CreateReplicateStream", "DumpMessages", "Dummy", "GetReplicateInfo"}


# --- requests -------------------------------------------------------------------------------------
async def test_a_call_carries_database_id_and_deadline() -> None:
    seen: list[tuple[Call, str]] = []

    async def handler(request: Any, call: Call) -> Any:
        seen.append((call, call.database(request)))
        assert structlog.contextvars.get_contextvars()["request_id"] == call.request_id
        return milvus.BoolResponse(value=True)

    for context in (Context(dbname="of_metadata", client_request_id="r1"), Context(dbname=""), Context(5.0)):
        assert (await answer(handler, context, request_timeout_s=60.0)).value
    (first, a), (second, b), (third, c) = seen
    assert (a, b, c) == ("of_metadata", "of_request", "of_request")
    assert first.request_id == "r1"
    assert second.request_id
    assert second.request_id != third.request_id
    assert 50 < second.remaining_s(100) <= 60
    assert third.remaining_s(100) <= 5


async def test_a_request_ends_at_its_deadline() -> None:
    async def handler(_request: Any, _call: Call) -> Any:
        await asyncio.sleep(30)

    for context, settings in ((Context(0.02), {}), (Context(), {"request_timeout_s": 0.02})):
        status = (await answer(handler, context, **settings)).status
        assert status.code == 5
        assert "deadline" in status.reason


async def test_a_cancelled_call_is_cancelled_and_a_cancelled_wait_is_a_status() -> None:
    async def waits(_request: Any, _call: Call) -> Any:
        await asyncio.sleep(30)

    task = asyncio.create_task(answer(waits, Context()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def meets_a_cancelled_future(_request: Any, _call: Call) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    assert (await answer(meets_a_cancelled_future, Context())).status.code == 2


async def test_slow_and_unforeseen_requests_are_logged() -> None:
    async def handler(_request: Any, _call: Call) -> Any:
        raise ZeroDivisionError("bug")

    with structlog.testing.capture_logs() as logs:
        assert "ZeroDivisionError" in (await answer(handler, Context(), slow_request_s=0)).status.reason
    assert [(e["event"], e["log_level"]) for e in logs] == [
        ("request failed unexpectedly", "error"),
        ("slow request", "warning"),
    ]


# --- calls answered together ----------------------------------------------------------------------
class Together:
    """Answers all calls but those for "alone" as one; error: raised instead."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.groups: list[list[str]] = []
        self.alone: list[str] = []

    def find(self, calls: Sequence[Call]) -> Sequence[Group]:
        names = [milvus.HasCollectionRequest.FromString(c.message).collection_name for c in calls]
        numbers = [n for n, name in enumerate(names) if name != "alone"]

        async def answer() -> list[Any]:
            self.groups.append([names[n] for n in numbers])
            if self.error:
                raise self.error
            return [_named(names[n]) for n in numbers]

        return [Group(numbers, answer)]

    async def handle(self, request: Any, _call: Call) -> Any:
        self.alone.append(request.collection_name)
        return _named(request.collection_name)

    async def ask(self, *names: str) -> list[Any]:
        rpc = "HasCollection"
        method = methods({rpc: self.handle}, ProxySettings(), None, {rpc: self.find})[rpc]
        messages = (milvus.HasCollectionRequest(collection_name=name).SerializeToString() for name in names)
        replies: dict[int, bytes] = {}
        for answers in method.answers([(m, (), 10.0) for m in messages]):
            replies.update(zip(answers.numbers, await answers.replies, strict=True))
        return [milvus.BoolResponse.FromString(replies[n]) for n in range(len(names))]


def _named(name: str) -> Any:
    return milvus.BoolResponse(status=common.Status(reason=name), value=True)


async def test_those_that_share_an_answer_get_their_part_and_others_their_own() -> None:
    together = Together()
    names = ["a", "alone", "b", "c"]
    assert [r.status.reason for r in await together.ask(*names)] == names
    assert (together.groups, together.alone) == ([["a", "b", "c"]], ["alone"])


@pytest.mark.parametrize("error", [InvalidArgument("of b"), TooLarge("together")])
async def test_what_may_be_of_one_of_them_is_said_to_it_alone(error: Exception) -> None:
    together = Together(error)
    assert [r.status.reason for r in await together.ask("a", "b")] == ["a", "b"]
    assert sorted(together.alone) == ["a", "b"]


@pytest.mark.parametrize(("error", "code"), [(CollectionNotFound("c"), 100), (ZeroDivisionError("bug"), 5)])
async def test_any_other_error_is_everyones(error: Exception, code: int) -> None:
    together = Together(error)
    assert [r.status.code for r in await together.ask("a", "b", "alone")] == [code, code, 0]
    assert together.alone == ["alone"]


# --- consistency ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("use_default", "level", "guarantee_ts", "default", "expected"),
    [
        (True, 0, 1, Consistency.BOUNDED, Consistency.BOUNDED),
        (True, 0, 1, Consistency.STRONG, Consistency.STRONG),
        (True, 0, 1, Consistency.SESSION, Consistency.EVENTUALLY),
        (True, 0, 2**60, Consistency.SESSION, Consistency.SESSION),
        (True, 0, 2**60, Consistency.EVENTUALLY, Consistency.EVENTUALLY),
        (False, 0, 0, Consistency.BOUNDED, Consistency.STRONG),
        (False, 0, 1, Consistency.BOUNDED, Consistency.EVENTUALLY),
        (False, 0, 2, Consistency.STRONG, Consistency.BOUNDED),
        (False, 0, 2**60, Consistency.BOUNDED, Consistency.SESSION),
        (False, 1, 2**60, Consistency.BOUNDED, Consistency.SESSION),
        (False, 1, 1, Consistency.BOUNDED, Consistency.EVENTUALLY),
        (False, 2, 0, Consistency.STRONG, Consistency.BOUNDED),
        (False, 3, 0, Consistency.STRONG, Consistency.EVENTUALLY),
        (False, 4, 2**60, Consistency.STRONG, Consistency.SESSION),
    ],
)
def test_consistency(
    use_default: bool, level: int, guarantee_ts: int, default: Consistency, expected: Consistency
) -> None:
    assert consistency.of_request(use_default, level, guarantee_ts, default) is expected


def test_unknown_consistency() -> None:
    with pytest.raises(InvalidArgument, match="consistency level 9"):
        consistency.of_request(False, 9, 0, Consistency.STRONG)


# --- output fields --------------------------------------------------------------------------------
def schema(*, dynamic: bool) -> Schema:
    fields = (
        Field(FieldId(1), "id", DataType.INT64, primary=True),
        Field(FieldId(2), "v", DataType.FLOAT_VECTOR, dim=2),
    )
    return Schema((*fields, Field(FieldId(3), DYNAMIC, DataType.JSON, dynamic=True)) if dynamic else fields)


@pytest.mark.parametrize(
    ("asked", "with_primary", "fetch", "fields", "names"),
    [
        ([], True, [], ["id"], ["id"]),
        ([], False, [], [], []),
        (["id"], False, [], ["id"], ["id"]),
        (["v", "v"], True, ["v"], ["id", "v"], ["id", "v"]),
        (["color"], False, [DYNAMIC], [DYNAMIC], ["color"]),
        (["*"], False, ["v", DYNAMIC], ["id", "v", DYNAMIC], ["id", "v", DYNAMIC]),
        (["*", "color"], False, ["v", DYNAMIC], ["id", "v", DYNAMIC], ["id", "v", DYNAMIC]),
    ],
)
def test_output_fields(
    asked: list[str], with_primary: bool, fetch: list[str], fields: list[str], names: list[str]
) -> None:
    output = output_fields.resolve(asked, schema(dynamic=True), with_primary=with_primary)
    assert (list(output.fetch), [f.name for f in output.fields], list(output.names)) == (fetch, fields, names)


def test_unknown_output_field() -> None:
    with pytest.raises(InvalidArgument, match="field color not exist"):
        output_fields.resolve(["color"], schema(dynamic=False), with_primary=False)


# --- the rest -------------------------------------------------------------------------------------
def test_request_numbers() -> None:
    assert request_params.integer({"a": "12"}, "a", 0) == 12
    assert request_params.integer({}, "a", 3) == 3
    for bad in ("1.5", "x", "9" * 19, "²"):
        with pytest.raises(InvalidArgument, match=r"a \["):
            request_params.integer({"a": bad}, "a", 0)
    assert request_params.number({"r": "1.5"}, "r") == 1.5
    for wrong in (True, "far", [1]):
        with pytest.raises(InvalidArgument, match="should be a number"):
            request_params.number({"r": wrong}, "r")


async def test_auto_ids_are_never_given_twice() -> None:
    class Coordinator:
        leased = 0

        async def lease_ids(self, count: int) -> range:
            start, self.leased = self.leased, self.leased + count
            await asyncio.sleep(0)
            return range(start, start + count)

    ids = AutoIds(Coordinator(), 10)
    taken = await asyncio.gather(*(ids.take(n) for n in [3, 4, 5, 1, 25, 2, 10, 7] * 5))
    flat = [int(i) for part in taken for i in part]
    assert len(set(flat)) == len(flat) == 57 * 5
    key = Field(FieldId(1), "id", DataType.VARCHAR, primary=True, max_length=20)
    assert all(k.isdigit() for k in (await ids.keys(key, 3)).to_pylist())


def test_serving_needs_no_pandas() -> None:
    code = (
        "import sys, proxy.wire; assert 'pandas' not in sys.modules and 'pymilvus' not in sys.modules; "
        "import pymilvus; assert pymilvus.MilvusClient"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
