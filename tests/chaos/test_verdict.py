"""What a run draws, keeps and says."""

import json
import math
from itertools import islice
from pathlib import Path

from core.ids import Channel, CollectionId, NodeId, ShardId
from storage import keys
from tests.chaos.aftermath import of_collections
from tests.chaos.history import History, Outcome, Write
from tests.chaos.run import all_faults, drawn
from tests.chaos.verdict import Verdict, waits

OK, FAILED, UNKNOWN = Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN


def test_a_wait_lasts_from_the_first_attempt_to_the_answer() -> None:
    def asked(start: float, end: float, outcome: Outcome, client: str = "a") -> Write:
        return Write(client, start, {}, end=end, outcome=outcome, call="upsert")

    answered = [asked(0, 1, OK), asked(2, 4, UNKNOWN), asked(5, 6, FAILED), asked(7, 9, OK), asked(20, 21, OK)]
    assert waits(answered) == {"upsert": 7}
    assert waits([*answered, asked(0, 8, UNKNOWN, "b"), asked(9, 12, UNKNOWN, "b")]) == {"upsert": 12}
    assert waits([Write("a", 0, {})]) == {}


def test_a_verdict_tells_what_was_asked_and_struck() -> None:
    verdict = Verdict(7, struck=[("kill etcd", 1.5), ("kill etcd", 3.25)], rounds=2)
    verdict.count(
        [
            Write("a", 0, {}, end=2, outcome=OK, call="upsert"),
            Write("a", 2, {}, end=3, call="upsert", told="waited 1.5 s"),
        ]
    )
    lines = [line.split() for line in str(verdict).splitlines()]
    assert lines[0] == ["seed", "7:", "2", "faults", "in", "2", "rounds"]
    assert ["upsert", "1", "1", "0", "2.0", "s"] in lines
    assert ["kill", "etcd", "2", "3.2", "s"] in lines
    assert ["1", "times,", "upsert:", "waited", "N", "s"] in lines
    assert lines[-1][0] == "RIGHT:"
    verdict.left = "3 keys"
    assert str(verdict).endswith("left behind: 3 keys\nWRONG")
    assert not verdict.right


def test_a_seed_draws_the_same_faults_and_what_they_draw() -> None:
    def first(seed: int) -> list[tuple[str, float]]:
        return [(fault.name, random.random()) for fault, random in islice(drawn(all_faults(), seed), 200)]

    assert first(1) == first(1) != first(2)
    assert {name for name, _ in first(1)} == {fault.name for fault in all_faults()}


def test_a_history_is_saved_as_lines_of_json(tmp_path: Path) -> None:
    history = History(clock=iter([1.0, 2.0, 3.0]).__next__)
    history.ended(history.write("a", {1: 10, "c/1": None}, "upsert"), OK)
    history.read("b", None)
    history.save(tmp_path / "history")
    first, second = map(json.loads, (tmp_path / "history").read_text().splitlines())
    assert first == {
        "kind": "Write",
        "client": "a",
        "start": 1.0,
        "end": 2.0,
        "outcome": "ok",
        "call": "upsert",
        "told": "",
        "values": [[1, 10], ["c/1", None]],
    }
    assert (second["kind"], second["keys"], second["end"]) == ("Read", None, math.inf)


def test_what_a_dropped_collection_left_is_named() -> None:
    stays = [keys.CLUSTER, keys.NEXT_ID, keys.LEADER, keys.owner(Channel(1)), keys.node("proxy", NodeId("a"))]
    assert of_collections(stays) == ""
    shard = ShardId(CollectionId(7), 0)
    for left in (keys.manifest(shard), keys.collection(shard.collection), keys.name("default", "c"), keys.garbage(3)):
        assert of_collections([*stays, left]) == f"1 keys in etcd: {left}"
