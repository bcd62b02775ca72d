"""What compiling promises: text safe to log, a cache, any thread, masks of one's own."""

import threading

import pytest
from filter_rows import COLUMNS, ROWS, SCHEMA, STRICT, matching

from core.errors import FilterError
from engine.filter import Filter, compile


def test_the_text_of_a_filter_holds_no_literal() -> None:
    found = compile("age>1 AND name in ['secret','x'] || !(info['k'] == {x})  and TRUE", SCHEMA, {"x": "secret"})
    assert found.text == "age > ? and name in [?] or not ( info['k'] == ? ) and ?"
    assert compile("age > 7", SCHEMA).text == compile("age  >\t8", SCHEMA).text


def test_an_empty_segment() -> None:
    empty = {name: column.slice(0, 0) for name, column in COLUMNS.items()}
    for text in (
        "age > 1 or kind == 'a'",
        "tags[0] == 'a'",
        "array_contains_all(sizes, [1])",
        "age + 1 > 2",
        "age in [1]",
    ):
        assert compile(text, SCHEMA).mask(empty.__getitem__, 0).shape == (0,)


def test_filters_are_cached_per_schema_and_parameters() -> None:
    once = compile("id in {ids} and age > 1", SCHEMA, {"ids": [1, 2]})
    assert compile("id in {ids} and age > 1", SCHEMA, {"ids": [1, 2]}) is once
    assert compile("id in {ids} and age > 1", STRICT, {"ids": [1, 2]}) is not once
    assert compile("id in {ids} and age > 1", SCHEMA, {"ids": [1, 3]}) is not once
    ids = list(range(1000))
    many = compile("id in {ids}", SCHEMA, {"ids": ids})
    ids.append(1000)
    assert many.keys is not None
    assert len(many.keys) == 1000
    longer = compile("id in {ids}", SCHEMA, {"ids": ids})
    assert longer.keys is not None
    assert len(longer.keys) == 1001
    assert compile("sold == {x}", SCHEMA, {"x": True}) is not None
    with pytest.raises(FilterError):
        compile("sold == {x}", SCHEMA, {"x": 1})


def test_threads_compile_and_ask_at_once() -> None:
    results: list[list[int]] = []

    def work(n: int) -> None:
        results.extend(matching(f"id == {i % 5} or age == {n + 1000}") for i in range(20))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 160
    assert all(len(found) == 1 for found in results if found)


def test_a_mask_is_the_callers_own() -> None:
    found: Filter = compile("sold", SCHEMA)
    mask = found.mask(COLUMNS.__getitem__, len(ROWS))
    mask[:] = False
    assert found.mask(COLUMNS.__getitem__, len(ROWS)).tolist() == [True, False, True, False]
