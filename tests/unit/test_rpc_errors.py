"""An error crosses as the class it is, with its text and what it carries."""

import asyncio
import inspect
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import errors
from core.errors import LogTruncated, ObjectNotFound, SheafError, Unavailable
from rpc.errors import failure, from_message, raised, to_message, trailer
from rpc.pb.call_pb2 import Error

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, SheafError)]


def example(cls: type[SheafError]) -> SheafError:
    """An instance, made with whatever its constructor takes."""
    if cls.__init__ is Exception.__init__:
        return cls("went wrong")
    parameters = inspect.signature(cls).parameters.values()
    return cls(*[7 if p.annotation is int else p.name for p in parameters])


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_comes_back(cls: type[SheafError]) -> None:
    error = example(cls)
    back = from_message(Error.FromString(to_message(error).SerializeToString()))
    assert type(back) is cls
    assert (str(back), vars(back)) == (str(error), vars(error))
    assert (back.code, back.retriable, back.caller_mistake) == (error.code, error.retriable, error.caller_mistake)


def test_attributes_come_back() -> None:
    truncated = from_message(to_message(LogTruncated(3, 10, 20)))
    assert isinstance(truncated, LogTruncated)
    assert (truncated.channel, truncated.asked, truncated.start) == (3, 10, 20)
    missing = from_message(to_message(ObjectNotFound("a/b")))
    assert isinstance(missing, ObjectNotFound)
    assert missing.name == "a/b"


def test_a_class_of_a_newer_version_is_an_error_all_the_same() -> None:
    back = from_message(Error(type="NotInventedYet", message="told by a newer node"))
    assert (type(back), str(back)) == (SheafError, "told by a newer node")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_texts_of_any_language(text: str) -> None:
    assert str(from_message(to_message(Unavailable(text)))) == text


def test_a_very_long_text_is_cut_beside_a_call() -> None:
    ((_, data),) = trailer(Unavailable("ä" * 100_000))
    text = str(from_message(Error.FromString(data)))
    assert 20_000 < len(text) < 40_000
    assert text.startswith("ää")
    assert text.endswith("...")


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", Unavailable),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", Unavailable),
        (grpc.StatusCode.INTERNAL, "something else", SheafError),
        (grpc.StatusCode.UNIMPLEMENTED, "no such method", SheafError),
    ],
)
def test_what_becomes_of_a_connection(code: grpc.StatusCode, details: str, kind: type[SheafError]) -> None:
    nothing = grpc.aio.Metadata()
    told = failure(grpc.aio.AioRpcError(code, nothing, nothing, details), "host:1")
    assert type(told) is kind
    assert str(told).startswith(f"host:1: {details}")


def test_what_nobody_foresaw_is_an_internal_error(capsys: pytest.CaptureFixture[str]) -> None:
    told = raised(ValueError("oops"), "/s/M")
    assert (type(told), str(told)) == (SheafError, "internal error: ValueError: oops")
    assert "call failed unexpectedly" in "".join(capsys.readouterr())


async def test_a_cancellation_is_passed_on_only_when_it_is_meant_for_the_task() -> None:
    assert isinstance(raised(asyncio.CancelledError(), "/s/M"), Unavailable)

    async def cancelled() -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as e:
            return raised(e, "/s/M")

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
