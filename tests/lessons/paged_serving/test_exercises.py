"""The references of lesson 05 against the package's engine rooms and independent models."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from authoring.build import ROOT
from authoring.sources import Source, read_source
from slmlab.checking import check, get, make_cases, registered
from slmlab.kv import BlockPool, PagedBatch, PagedCache
from slmlab.lessons.paged_serving import EXERCISES
from slmlab.lessons.paged_serving.choose_block import CHOOSE_BLOCK
from slmlab.lessons.paged_serving.copy_on_write import COPY_ON_WRITE
from slmlab.lessons.paged_serving.last_token import LAST_TOKEN
from slmlab.lessons.paged_serving.prefix_hits import PREFIX_HITS
from slmlab.lessons.paged_serving.requests_that_fit import REQUESTS_THAT_FIT
from slmlab.lessons.paged_serving.schedule_step import SCHEDULE_STEP
from slmlab.lessons.paged_serving.slot_mapping import SLOT_MAPPING
from slmlab.lessons.paged_serving.stale_name import STALE_NAME
from slmlab.serving.request import Request, State
from slmlab.serving.scheduler import Scheduler

SMALLEST = SimpleNamespace(num_hidden_layers=1, num_attention_heads=1, head_dim=1)


def answers(exercise: Any) -> tuple[Any, ...]:
    return (exercise.reference, *exercise.alternatives)


def filled(pool: BlockPool, tokens: int) -> PagedCache:
    cache = PagedCache(pool)
    if tokens:
        key = torch.zeros(1, 1, tokens, 1)
        cache.append(0, key, key)
    return cache


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), min_size=1, max_size=4),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_slots_are_those_of_the_batch_that_serves(
    sequences: list[tuple[int, int]], size: int
) -> None:
    pool = BlockPool(SMALLEST, num_blocks=80, block_size=size)
    caches = [filled(pool, stored) for stored, _ in sequences]
    stored, counts = [s for s, _ in sequences], [c for _, c in sequences]
    batch = PagedBatch(caches, counts)
    tables = [cache.block_table for cache in caches]
    for answer in answers(SLOT_MAPPING):
        assert answer(tables, stored, counts, size) == batch._slots.tolist()


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), max_size=8), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_prefix_hits_are_what_the_paged_cache_takes(prompts: list[list[int]], size: int) -> None:
    pool = BlockPool(SMALLEST, num_blocks=100, block_size=size)
    wanted = []
    for prompt in prompts:
        cache = PagedCache(pool)
        wanted.append(cache.take_prefix(prompt))
        key = torch.zeros(1, 1, len(prompt) - cache.length, 1)
        cache.append(0, key, key)
        cache.record(prompt)
        cache.free()
    for answer in answers(PREFIX_HITS):
        assert answer(prompts, size) == wanted


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 9), st.data())
def test_the_plan_computes_the_rest_once_and_no_shared_block(
    tokens: int, size: int, chunk: int, data: st.DataObject
) -> None:
    cached = data.draw(st.integers(0, tokens // size))
    for answer in answers(LAST_TOKEN):
        taken, chunks = answer(tokens, cached, size, chunk)
        run = [t for start, end in chunks for t in range(start, end)]
        assert run == list(range(taken * size, tokens)) and run
        assert all(0 < end - start <= chunk for start, end in chunks)
        assert taken == cached or (taken == cached - 1 and cached * size == tokens)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 25))
@settings(max_examples=60, deadline=None)
def test_copies_keep_every_text_apart(seed: int, size: int, steps: int) -> None:
    draw = random.Random(seed)
    trace: list[list[Any]] = [["append", 0, 7]]
    texts: list[list[int]] = [[7]]
    for token in range(10, 10 + steps):
        s = draw.randrange(len(texts))
        if draw.random() < 0.3:
            trace.append(["fork", s, 0])
            texts.append(list(texts[s]))
        else:
            trace.append(["append", s, token])
            texts[s].append(token)
    reference = COPY_ON_WRITE.reference(trace, size)
    assert reference["texts"] == texts
    # Tokens are their own proof of origin: a block is shared where texts agree up to its end.
    for answer in COPY_ON_WRITE.alternatives:
        assert answer(trace, size) == reference


def _requests(pool: BlockPool, running: list[list[int]], waiting: list[int]) -> list[Request]:
    def make(i: int, stored: int, pending: int, state: State) -> Request:
        return Request(
            id=i,
            prompt=tuple(1000 * i + t for t in range(stored + pending)),
            params=None,  # type: ignore[arg-type]
            cache=filled(pool, stored),
            text=None,  # type: ignore[arg-type]
            generator=None,  # type: ignore[arg-type]
            submitted=0.0,
            state=state,
        )

    first = [make(i, s, p, State.RUNNING) for i, (s, p) in enumerate(running)]
    return [*first, *(make(50 + i, 0, p, State.WAITING) for i, p in enumerate(waiting))]


@given(st.integers(0, 100_000))
@settings(max_examples=80, deadline=None)
def test_the_step_is_what_the_package_schedules(seed: int) -> None:
    # In the package only the youngest running request can still be in prefill.
    draw = random.Random(seed)
    size, max_batch = draw.randrange(1, 6), draw.randrange(1, 7)
    running = [[draw.randrange(1, 20), 1] for _ in range(draw.randrange(max_batch))]
    if draw.random() < 0.5:
        running.append([draw.randrange(0, 9), draw.randrange(2, 15)])
    waiting = [draw.randrange(1, 20) for _ in range(5)]
    budget = max_batch + draw.randrange(30)
    counts, _ = SCHEDULE_STEP.reference(running, [], budget, 0, max_batch, size)
    held = sum(-(-stored // size) for stored, _ in running)
    grown = [s + c for (s, _), c in zip(running, counts, strict=True)]
    free = sum(-(-tokens // size) for tokens in grown) - held + draw.randrange(12)
    if not running:
        # An engine refuses what its empty pool could not hold, so its scheduler never meets it.
        free = max(free, -(-waiting[0] // size))
    pool = BlockPool(SMALLEST, num_blocks=max(held + free, 1), block_size=size)
    scheduler = Scheduler(pool, max_batch, budget)
    for request in _requests(pool, running, waiting):
        if request.state is State.RUNNING:
            scheduler.running.append(request)
        else:
            scheduler.add(request)
    free = pool.num_free
    plan = {s.request.id: s.count for s in scheduler.schedule()}
    wanted = (
        [plan.get(i, 0) for i in range(len(running))],
        [plan[50 + i] for i in range(len(waiting)) if 50 + i in plan],
    )
    for answer in answers(SCHEDULE_STEP):
        counts, started = answer(running, waiting, budget, free, max_batch, size)
        assert (list(counts), list(started)) == wanted


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 4))
def test_everybody_reads_what_they_asked_for(texts: list[int], num_blocks: int) -> None:
    for answer in answers(STALE_NAME):
        served = answer(texts, num_blocks)
        assert [text for _, text in served] == texts
        for i, (block, text) in enumerate(served):
            before = [other for at, other in served[:i] if at == block]
            recent = list(dict.fromkeys(reversed(texts[:i])))[:num_blocks]
            # A text among the last num_blocks different ones is still held: nothing is rewritten.
            assert (text in recent) == (bool(before) and before[-1] == text)


def test_requests_on_paper_by_counting() -> None:
    places = 6e9 / (2 * 28 * 8 * 128 * 2)
    assert REQUESTS_THAT_FIT.reference() == pytest.approx(places / 436)


@pytest.mark.parametrize(
    ("factor", "outcome"), [(1.0, "passed"), (0.981, "passed"), (1.019, "passed"), (1.021, "wrong")]
)
def test_two_percent(factor: float, outcome: str) -> None:
    answer = factor * REQUESTS_THAT_FIT.reference()
    assert check(REQUESTS_THAT_FIT, lambda: answer).outcome == outcome


def test_a_gigabyte_is_ten_to_the_nine() -> None:
    answer = 6 * 2**30 / 6e9 * REQUESTS_THAT_FIT.reference()
    report = check(REQUESTS_THAT_FIT, lambda: answer)
    assert report.diagnosis is not None and "6e9 bytes, not 6 * 2**30" in report.diagnosis.sentence


def test_rounding_the_average_up_is_not_half_a_block() -> None:
    # 400 tokens in blocks of 32 would give 416 both ways.
    tokens = 2 * 28 * 8 * 128 * 2
    report = check(REQUESTS_THAT_FIT, lambda: 6e9 / (-(-420 // 32) * 32 * tokens))
    assert report.diagnosis is not None and report.diagnosis.mistake is not None
    assert report.diagnosis.mistake.name == "last block not half empty"


def _texts_without_blocks(trace: list[list[Any]], block_size: int) -> dict[str, Any]:
    texts: list[list[int]] = [[]]
    for what, s, token in trace:
        if what == "fork":
            texts.append(list(texts[s]))
        else:
            texts[s].append(token)
    names = {tuple(t[: i + block_size]) for t in texts for i in range(0, len(t), block_size)}
    return {"texts": texts, "blocks": len(names)}


def test_blocks_are_not_counted_by_their_text() -> None:
    same: list[list[Any]] = [["append", 0, 5], ["fork", 0, 0], ["append", 0, 6], ["append", 1, 6]]
    assert COPY_ON_WRITE.reference(same, 2)["blocks"] == 2
    assert _texts_without_blocks(same, 2)["blocks"] == 1
    assert check(COPY_ON_WRITE, _texts_without_blocks).outcome == "wrong"
    assert COPY_ON_WRITE.reference(same[:2], 2)["blocks"] == 1


@pytest.mark.parametrize("answer", [0, -5.0, math.nan, math.inf, "126", True, [126.0], None])
def test_no_number_never_passes(answer: Any) -> None:
    assert check(REQUESTS_THAT_FIT, lambda: answer).outcome == "wrong"


def test_a_wrong_number_is_not_told_the_right_one() -> None:
    wrong = [f() for m in REQUESTS_THAT_FIT.mistakes for f in m.implementations]
    for answer in (90.0, 6 * 2**30 / 6e9 * REQUESTS_THAT_FIT.reference(), *wrong):
        report = check(REQUESTS_THAT_FIT, lambda answer=answer: answer)
        assert report.diagnosis is not None and report.diagnosis.counterexample is not None
        told = report.diagnosis.sentence + report.diagnosis.counterexample.sentence
        assert "119" not in told and "120" not in told


def test_only_choices_within_the_budget_and_near_the_best_pass() -> None:
    problem = CHOOSE_BLOCK.compare.problem
    for seed in range(5):
        for case in make_cases(CHOOSE_BLOCK, seed):
            wanted = CHOOSE_BLOCK.reference(**case.arguments)
            offered = (*case.arguments["sizes"], None)
            assert [s for s in offered if problem(case.arguments, wanted, s) is None] == [wanted]
    for answer in (3, 8.0, True, "8"):
        assert problem(make_cases(CHOOSE_BLOCK, 0)[0].arguments, 2, answer) is not None


def test_the_worked_examples() -> None:
    assert SLOT_MAPPING.reference([[7, 2]], [3], [2], 4) == [31, 8]
    assert "[31, 8]" in SLOT_MAPPING.hints[1]
    assert PREFIX_HITS.reference([[1, 2, 3], [1, 2], [1, 2, 9]], 2) == [0, 0, 2]
    assert LAST_TOKEN.reference(8, 2, 4, 16) == (1, [[4, 8]])
    assert LAST_TOKEN.reference(9, 2, 4, 16) == (2, [[8, 9]])
    trace = [["append", 0, 5], ["fork", 0, 0], ["append", 0, 6], ["append", 1, 7]]
    assert COPY_ON_WRITE.reference(trace, 2) == {"texts": [[5, 6], [5, 7]], "blocks": 2}
    assert SCHEDULE_STEP.reference([[8, 7], [5, 1]], [3], 6, 9, 8, 4) == ([5, 1], [])
    assert STALE_NAME.reference([1, 2, 1], 1) == [[0, 1], [0, 2], [0, 1]]
    assert STALE_NAME.mistakes[0].implementation([1, 2, 1], 1)[-1] == [0, 2]
    assert CHOOSE_BLOCK.reference([20, 20], 16, [12, 8], 0.5, 3.0) == 8
    assert CHOOSE_BLOCK.reference([20, 20], 16, [12, 8], 0.5, 2.5) == 12
    assert (
        1.024e6 / ((85 + 15) * 2 * 2 * 64 * 2) == 20 and "serves 20" in REQUESTS_THAT_FIT.hints[1]
    )


@pytest.mark.parametrize(
    ("function", "identifier"),
    [
        ("plan_as_found", "paging.last_token"),
        ("replay_as_found", "paging.copy_on_write"),
        ("serve_as_found", "paging.stale_name"),
    ],
)
def test_the_code_to_repair_is_diagnosed_as_itself(function: str, identifier: str) -> None:
    name = "authoring/05_paged_serving/exercises.py"
    source = Source(ROOT / name, name, "05_paged_serving", False)
    cells = [c.source for c in read_source(source).cells if f"def {function}" in c.source]
    names: dict[str, Any] = {"Any": Any}
    exec(compile(cells[0], function, "exec"), names)
    with registered("paging", EXERCISES):
        report = check(get(identifier), names[function])
    assert report.diagnosis is not None and report.diagnosis.mistake is not None
    assert report.diagnosis.mistake.name == "the given bug"


def test_eight_exercises_of_about_eighty_minutes() -> None:
    assert len(EXERCISES) == 8 and sum(e.minutes for e in EXERCISES) == 81
