"""Whatever else the engine does at the time, a request gets what it would get alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from slmlab.serving import Engine, QueueFull
from tests.serving.oracle import MODELS, assert_as_alone, language_model, prompts_of

NEW = 24


def engine(name: str = "tiny-draft", **settings: Any) -> Engine:
    return Engine(language_model(name), **{"num_blocks": 64, **settings})


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_batch": 1},
        {"max_batch": 3, "token_budget": 7, "block_size": 4},
        {"max_batch": 16, "block_size": 1, "num_blocks": 900, "token_budget": 500},
        {"prefix_sharing": False},
    ],
    ids=str,
)
def test_as_transformers_alone(name: str, settings: dict[str, Any]) -> None:
    prompts = prompts_of(name, 12)
    found = engine(name, **settings).generate(prompts, max_new_tokens=NEW)
    assert assert_as_alone(name, prompts, found, NEW) <= 1


@pytest.mark.parametrize("name", MODELS)
def test_preemption_changes_nothing(name: str) -> None:
    serving = engine(name, num_blocks=22, block_size=4)
    prompts = prompts_of(name, 12)
    found = serving.generate(prompts, max_new_tokens=NEW)
    assert serving.stats["preemptions"] >= 5
    assert assert_as_alone(name, prompts, found, NEW) <= 1
    assert serving.pool.num_free == 22


@pytest.mark.parametrize("seed", range(6))
def test_arrivals_and_cancellations_change_nothing(seed: int) -> None:
    """Requests come and go between steps; those that stay get what they would get alone."""
    choose = random.Random(seed)
    name = MODELS[seed % 2]
    serving = engine(name, num_blocks=24, block_size=4, max_batch=5, token_budget=19)
    prompts = prompts_of(name, 14, seed=seed, longest=40)
    prompts[5] = list(prompts[4])
    kept: dict[int, list[int]] = {}
    waiting = list(prompts)
    cancelled = 0
    while waiting or not serving.idle:
        while waiting and choose.random() < 0.3:
            prompt = waiting.pop()
            kept[serving.submit(prompt, max_new_tokens=NEW)] = prompt
        serving.step()
        alive = [i for i in kept if i in serving._requests]
        if alive and choose.random() < 0.04:
            victim = choose.choice(alive)
            held = len(serving._requests[victim].cache.block_table)
            free = serving.pool.num_free
            serving.cancel(victim)
            assert serving.pool.num_free >= free + (held > 0)
            del kept[victim]
            assert serving.result(victim).finish_reason == "cancelled"
            cancelled += 1
    assert cancelled >= 1
    found = [serving.result(i).tokens for i in kept]
    assert assert_as_alone(name, list(kept.values()), found, NEW) <= 1
    assert serving.pool.num_free == 24 and not serving._results


def test_the_same_prompt_again_computes_its_last_token_only() -> None:
    serving = engine(block_size=4)
    prompt = prompts_of("tiny-draft", 1, longest=1)[0] * 16
    first = serving.generate([prompt], max_new_tokens=4)
    before = serving.stats["computed_tokens"]
    again = serving.submit(prompt, max_new_tokens=4)
    serving.step()
    # 16 tokens are 4 full blocks; the last one is computed anew for the sake of its last token.
    assert serving.stats["computed_tokens"] - before == 4
    done = serving.run()[again]
    assert done.tokens == first[0] and done.cached_prompt_tokens == 12


def test_a_shared_prompt_is_computed_once() -> None:
    serving = engine("tiny", num_blocks=128, max_batch=4)
    shared = prompts_of("tiny", 1, longest=1)[0] * 320
    prompts = [[*shared, 5 + i] for i in range(4)]
    serving.generate(prompts[:1], max_new_tokens=2)
    before = serving.stats["computed_tokens"]
    serving.generate(prompts[1:], max_new_tokens=2)
    prefill = serving.stats["computed_tokens"] - before - 3  # one decode step each
    assert prefill == 3
    assert serving.stats["prefix_hit_rate"] > 0.7


def test_sampling_follows_the_seed_whatever_the_batch() -> None:
    prompts = prompts_of("tiny-draft", 6)
    settings: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "top_k": 50}
    alone = [
        engine().generate([p], max_new_tokens=NEW, seed=i, **settings)[0]
        for i, p in enumerate(prompts)
    ]
    serving = engine(num_blocks=24, block_size=4)
    ids = [serving.submit(p, max_new_tokens=NEW, seed=i, **settings) for i, p in enumerate(prompts)]
    done = serving.run()
    assert [done[i].tokens for i in ids] == alone
    other = engine().generate(prompts[:1], max_new_tokens=NEW, seed=99, **settings)
    assert other[0] != alone[0]


def test_text_and_stop() -> None:
    lm = language_model("tiny")
    serving = engine("tiny")
    prompt = "The standard library"
    whole = lm.generate(prompt, max_new_tokens=NEW)
    stop = whole[12:17]
    ids = [
        serving.submit(prompt, max_new_tokens=NEW),
        serving.submit(prompt, max_new_tokens=NEW, stop=stop),
        serving.submit(prompt, max_new_tokens=NEW, stop=["no such text", stop]),
        serving.submit(prompt, max_new_tokens=NEW, stop=whole[-1] + "never"),
    ]
    pieces: dict[int, str] = {i: "" for i in ids}
    while not serving.idle:
        for output in serving.step():
            pieces[output.request_id] += output.text
    done = {i: serving.result(i) for i in ids}
    for i in ids:
        assert pieces[i] == done[i].text
    assert [done[i].text for i in ids] == [whole, *[whole[: whole.index(stop)]] * 2, whole]
    assert [done[i].finish_reason for i in ids] == ["length", "stop", "stop", "length"]


def test_logprobs() -> None:
    serving = engine("tiny")
    prompt = prompts_of("tiny", 1)[0]
    request = serving.submit(prompt, max_new_tokens=5, logprobs=3)
    done = serving.run()[request]
    assert done.logprobs is not None and len(done.logprobs) == len(done.tokens) == 5
    with torch.no_grad():
        logits = serving.model(torch.tensor([prompt + done.tokens]))[0, len(prompt) - 1 : -1]
    wanted = logits.log_softmax(-1)
    for row, entry, token in zip(wanted, done.logprobs, done.tokens):
        assert entry.token == token == entry.top[0][0]
        assert entry.logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert [t for t, _ in entry.top] == row.topk(3).indices.tolist()


def test_stats() -> None:
    serving = engine(max_batch=2)
    assert serving.step() == [] and serving.idle
    prompts = prompts_of("tiny-draft", 5)
    for prompt in prompts:
        serving.submit(prompt, max_new_tokens=3)
    serving.step()
    stats = serving.stats
    assert (stats["submitted"], stats["running"], stats["waiting"]) == (5, 2, 3)
    assert stats["blocks_used"] > 0 and stats["ttft"]["n"] == 2
    done = serving.run()
    stats = serving.stats
    assert (stats["finished"], stats["running"], stats["waiting"]) == (5, 0, 0)
    assert stats["generated_tokens"] == sum(len(c.tokens) for c in done.values())
    assert stats["prompt_tokens"] == sum(map(len, prompts))
    assert 0 < stats["waste"] < 1 and stats["block_occupancy"] == 0
    for completion in done.values():
        assert completion.queue_time is not None and completion.ttft is not None
        assert 0 <= completion.queue_time <= completion.ttft <= completion.total_time


def test_damaged_weights_end_requests_and_leave_the_engine_whole() -> None:
    import slmlab

    serving = Engine(slmlab.load("tiny-draft"), num_blocks=16)
    weight = serving.model.norm.weight
    saved = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    request = serving.submit("def main(", max_new_tokens=4)
    assert serving.run()[request].finish_reason == "error"
    with torch.no_grad():
        weight.copy_(saved)
    serving.pool.drop_prefixes()
    assert serving.generate(["def main("], max_new_tokens=4) == engine().generate(
        ["def main("], max_new_tokens=4
    )


def test_refusals() -> None:
    lm = language_model("tiny-draft")
    with pytest.raises(TypeError, match=r"lm must be what slmlab\.load returns"):
        Engine(lm.model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="token_budget=4 must be at least max_batch=8"):
        Engine(lm, token_budget=4)
    serving = engine(num_blocks=4, max_waiting=1)
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        (dict(prompt=[]), ValueError, "the prompt is empty"),
        (dict(prompt=""), ValueError, "the prompt is empty"),
        (dict(prompt=[99999]), ValueError, "outside the vocabulary"),
        (dict(prompt=["a"]), TypeError, "prompt ids must be ints"),
        (
            dict(prompt=[1] * 60, max_new_tokens=6),
            ValueError,
            r"store 65 tokens; the pool holds 64 \(4 blocks of 16\): ask for at most 5 new",
        ),
        (dict(prompt=[1] * 600), ValueError, "exceed this model's 512 positions"),
        (dict(max_new_tokens=0), ValueError, "max_new_tokens=0 must be at least 1"),
        (dict(temperature=-1), ValueError, "temperature"),
        (dict(top_p=2.0), ValueError, "top_p"),
        (dict(top_k=0), ValueError, "top_k"),
        (dict(seed=1.5), TypeError, "seed must be an int"),
        (dict(stop=[""]), ValueError, "stop holds an empty text"),
        (dict(stop=[3]), TypeError, "stop must be a str or a list of them"),
        (dict(logprobs=21), ValueError, "logprobs=21 must be at most 20"),
    ]
    for bad, error, message in refused:
        with pytest.raises(error, match=message):
            serving.submit(**{"prompt": [1, 2], "max_new_tokens": 4, **bad})
    assert serving.idle
    with pytest.raises(ValueError, match="request id 7 is unknown or has ended"):
        serving.cancel(7)
    with pytest.raises(ValueError, match="request id 7 is unknown or was taken"):
        serving.result(7)
    first = serving.submit([1], max_new_tokens=2)
    with pytest.raises(ValueError, match=f"request id {first} has not finished"):
        serving.result(first)
    with pytest.raises(QueueFull, match="1 requests wait already"):
        serving.submit([1], max_new_tokens=2)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        engine().generate([[1], [99999]])
    serving.run()
    with pytest.raises(ValueError, match="unknown or has ended"):
        serving.cancel(first)


def test_generate_leaves_other_requests_and_cleans_up_after_itself() -> None:
    serving = engine()
    early = serving.submit([1, 2, 3], max_new_tokens=5)
    serving.generate([[4, 5]], max_new_tokens=8)
    assert serving.result(early).finish_reason in ("length", "stop")
    with pytest.raises(ValueError, match="outside the vocabulary"):
        serving.generate([[1], [99999]])
    assert serving.idle and not serving._results
