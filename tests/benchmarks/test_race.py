"""What the race makes of its times: which way ratios go, rates, the share of the ceiling."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import _race
from benchmarks._race import Entry, Plan, Race
from slmlab.measure import Interleaved, Roofline, Times, weight_bytes_stored
from slmlab.models import ModelConfig

CONFIG = ModelConfig("llama", 96, 32, 64, 2, 2, 1, 16, 4096, tie_word_embeddings=True)
PLAN = Plan("fake", "none", new_tokens=11, decode_repeats=3, prefill_repeats=2)
# One GB/s and far more arithmetic than that feeds: bandwidth sets every ceiling.
ROOF = Roofline(*(1.0, 1.0, 1.0, 2, "sum", 1.0, 100.0, 100.0, 100.0, 2, "float32", 1, 1.0, 1.0))


class Fake:
    """Takes a fixed time a new token and a hundredth of it a prompt token."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self.asked: list[tuple[int, int]] = []

    def complete(self, prompt: list[int], new_tokens: int) -> float:
        self.asked.append((len(prompt), new_tokens))
        return self.seconds * (len(prompt) / 100 + new_tokens)

    def tokens(self, prompt: list[int], new_tokens: int) -> list[int]:
        return []


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Race:
    def timed(
        a: Callable[[], Any], b: Callable[[], Any], *, repeats: int, warmup: int
    ) -> Interleaved:
        pairs = [(a(), b()) for _ in range(repeats)]
        walls = zip(*pairs, strict=True)
        return Interleaved(*(Times(wall=wall, process=wall) for wall in walls))

    monkeypatch.setattr(_race, "interleaved", timed)
    return Race(PLAN, CONFIG)


def test_a_ratio_above_one_means_that_ours_is_faster(race: Race) -> None:
    ours, theirs = Fake("slmlab", 0.01), Fake("other", 0.03)
    found = race.compete(Entry("fp32", ours), {"a": Entry("fp32", theirs), "b": None})
    ratio = {"ratio": 3.0, "low": 3.0, "high": 3.0}
    assert found["decode"] == {"a": {**ratio, "n": 3}, "b": None}
    assert found["prefill"] == {"a": {**ratio, "n": 2}, "b": None}
    assert ours.asked == theirs.asked == [(16, 11)] * 3 + [(16, 1)] * 3 + [(256, 1)] * 2


def test_rates_and_the_share_of_the_ceiling(race: Race) -> None:
    ours, theirs = Fake("slmlab", 0.01), Fake("other", 0.02)
    race.compete(Entry("fp32", ours), {"a": Entry("fp16", theirs)})
    found = race.rates("fp32", ROOF)
    kept = 16 + 11 // 2
    cached = 4 * 2 * CONFIG.num_hidden_layers * kept * CONFIG.head_dim
    assert found["bytes_per_token"] == 4 * CONFIG.parameter_count() + cached
    row = found["engines"]["slmlab"]
    assert list(found["engines"]) == ["slmlab"]
    assert row["decode_tokens_per_second"] == 100.0  # the first token and the prompt taken off
    assert row["prefill_tokens_per_second"] == round(256 / (0.01 * 3.56), 1)
    assert row["cpu_ms_per_token"] == 10.0  # the fake's process time is its wall time
    stored = race.rates("fp32", ROOF, "int4-g32", "int8")["bytes_per_token"] - cached // 2
    assert stored == weight_bytes_stored(CONFIG, "int4-g32", head_scheme="int8")
    share = found["bytes_per_token"] / 1e9 / 0.01
    assert row["fraction_of_bandwidth_ceiling"] == round(share, 3) > 0
    assert race.rates("fp16", ROOF)["engines"]["other"]["decode_tokens_per_second"] == 50.0


def test_a_disturbed_run_has_no_rate(race: Race) -> None:
    race.laps["fp32", "slmlab"] = _race.Laps(decode=0.2, first_token=0.3, prefill=0.1)
    row = race.rates("fp32", ROOF)["engines"]["slmlab"]
    assert row["decode_tokens_per_second"] is None
    assert row["fraction_of_bandwidth_ceiling"] is None
    assert row["cpu_ms_per_token"] is None


def test_prefill_can_be_left_out(race: Race) -> None:
    race.plan = dataclasses.replace(PLAN, prefill_repeats=0)
    ours = Fake("slmlab", 0.01)
    found = race.compete(Entry("fp32", ours), {"a": Entry("fp32", Fake("other", 0.03))})
    assert found["decode"]["a"] and found["prefill"] == {"a": None}
    assert ours.asked == [(16, 11)] * 3 + [(16, 1)] * 3
    assert "prefill_tokens_per_second" not in race.rates("fp32", ROOF)["engines"]["slmlab"]


def test_prompts_are_inside_the_vocabulary_and_differ(race: Race) -> None:
    first, second = race.prompt(200), race.prompt(200, start=1)
    assert len(first) == 200 and first != second
    assert set(first) == set(range(8, 96))
    assert max(second) < 96 and min(second) >= 8
    assert PLAN.most_tokens == 257
