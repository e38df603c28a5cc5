"""The speculative race: what it times, what it makes of it, and that it refuses other answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import speculative_race
from benchmarks._llama_cpp import missing
from benchmarks._serving_trace import Asked
from benchmarks._speculative_agreement import check, compare
from benchmarks._speculative_costs import (
    acceptance,
    chosen,
    costs,
    predict,
    speedup_in_rounds,
    step_ms,
)
from benchmarks._speculative_domains import SETS, Domain, domain
from benchmarks._speculative_rounds import Laps, race, rates, speedup
from benchmarks._speculative_tables import aims_of
from benchmarks._speculative_ways import Answer, Generate, Plain, Speculative, load_transformers
from slmlab import load
from slmlab.generation import LanguageModel
from slmlab.models import model_directory
from slmlab.speculative import Round, SpeculativeStats, expected_speedup

ASKED = tuple(Asked((9, 10, 11), n) for n in (4, 2, 3))
DOMAIN = Domain("fake", "code", 0.0, ASKED)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("tiny")


def test_a_short_race(capsys: pytest.CaptureFixture[str]) -> None:
    speculative_race.main(["--short"])
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["threads"] == 1 and measured["aims"] == []
    assert (measured["llama_cpp"] is None) == (missing() is not None)
    names = {"plain", "draft 2", "draft 4", "draft adaptive", "lookup 4", "skip 2", "transformers"}
    names |= {f"transformers {how}" for how in ("assisted", "assisted 4", "lookup 4")}
    names |= set() if missing() else {"llama.cpp", "llama.cpp draft 4"}
    assert set(measured["domains"]) == {*SETS, "documentation, temperature 0.7"}
    for name, result in measured["domains"].items():
        greedy = result["temperature"] == 0
        assert set(result["ways"]) == (names if greedy else {"plain", "draft 2", "draft adaptive"})
        assert 0 < result["new_tokens"] <= 2 * 10 and result["prompts"] == 2
        for way, row in result["ways"].items():
            for by in ("wall", "cpu"):
                over = row["over_plain"][by]
                assert 0 < over["low"] <= over["ratio"] <= over["high"]
            if way.startswith("draft"):
                found = row["acceptance"]
                assert 0 <= found["alpha_low"] <= found["alpha"] <= found["alpha_high"] <= 1
        assert result["chosen"] in result["ways"], name
    # Whatever the draft, the answers are plain decoding's.
    assert set(measured["agreement"]) == names - {"plain"}
    for way, row in measured["agreement"].items():
        assert row["requests"] == 6
        assert row["equal"] + row["near_ties"] == 6 or way.startswith(("transf", "llama")), way


class Fake:
    """Takes a fixed time a token, on a clock that only it moves."""

    def __init__(self, name: str, seconds: float, log: list[tuple[str, int, int]]) -> None:
        self.name, self.seconds, self.log = name, seconds, log

    def run(self, asked: Asked, temperature: float, seed: int) -> Answer:
        self.log.append((self.name, asked.new_tokens, seed))
        return Answer([1] * asked.new_tokens)


def test_all_answer_a_prompt_before_the_next_and_ratios_go_the_right_way() -> None:
    log: list[tuple[str, int, int]] = []
    ways = [Fake("slow", 0.3, log), Fake("fast", 0.1, log)]
    seconds = {way.name: way.seconds for way in ways}

    def clock(run: Callable[[], Any]) -> tuple[float, float]:
        run()
        name, tokens, _ = log[-1]
        return seconds[name] * tokens, 0.5 * tokens

    laps = race(ways, DOMAIN, clock)
    assert log[:2] == [("slow", 4, 0), ("fast", 4, 0)]  # not timed
    order = [("slow", 4, 0), ("fast", 4, 0), ("fast", 2, 1), ("slow", 2, 1)]
    assert log[2:] == [*order, ("slow", 3, 2), ("fast", 3, 2)]
    found = speedup(laps["slow"], laps["fast"])
    assert found["wall"] == {"ratio": 3.0, "low": 3.0, "high": 3.0} and found["n"] == 3
    assert found["cpu"]["ratio"] == 1.0
    assert rates(laps["fast"], 9)["tokens_per_second"] == 10.0


def test_the_interval_is_of_the_choice_of_prompts() -> None:
    ours = Laps(wall=[1.0] * 100, cpu=[1.0] * 100)
    rival = Laps(wall=[1.0, 3.0] * 50, cpu=[2.0] * 100)
    found = speedup(rival, ours)
    # The standard error of the mean of fifty ones and fifty threes is 1 / sqrt(100).
    assert found["wall"]["ratio"] == 2.0
    assert found["wall"]["low"] == pytest.approx(2 - 0.196, abs=0.03)
    assert found["wall"]["high"] == pytest.approx(2 + 0.196, abs=0.03)
    assert found["cpu"] == {"ratio": 2.0, "low": 2.0, "high": 2.0}


def _round(proposed: int, accepted: int, *seconds: float) -> Round:
    return Round(tuple(range(proposed)), accepted, 0, *seconds)


def _laps() -> Laps:
    """Processor share one half. The first round reads the prompt, the last is short."""
    rounds = [
        _round(2, 1, 9.0, 9.0, 9.0),
        _round(2, 2, 0.4, 1.2, 0.2),
        _round(2, 0, 0.8, 1.6, 0.2),
        _round(1, 1, 0.3, 0.7, 0.2),
    ]
    stats = SpeculativeStats(rounds, 1.0, 12)
    return Laps(wall=[40.0], cpu=[20.0], answers=[Answer([0] * 8, stats=stats)])


def test_costs_by_hand() -> None:
    plain = Laps(
        wall=[4.0, 4.0], cpu=[2.0, 2.0], answers=[Answer([0], 0.9), Answer([0], step_seconds=1.1)]
    )
    step = step_ms(plain)
    assert step == pytest.approx(500.0)  # half of 1 s on the clock
    laps = _laps()
    cost = costs(laps, step)
    assert cost["c"] == pytest.approx(1.5 / 5)
    assert cost["verify"] == pytest.approx(1.4)  # full rounds only
    assert cost["overhead"] == pytest.approx(0.2)
    found = acceptance(laps)
    assert (found["checked"], found["rounds"]) == (2 + 2 + 1 + 1, 4)
    assert found["alpha"] == pytest.approx(4 / 6) and found["tokens_per_round"] == 2.0
    # Four tokens in two full rounds of 1.8 and 2.6 s, a step taking 1 s.
    in_rounds = speedup_in_rounds(laps, 2, step)
    assert in_rounds == pytest.approx(4 / 4.4)
    predicted = predict(2, found, cost, measured=0.8, in_rounds=in_rounds)
    assert predicted is not None
    assert predicted["formula"] == expected_speedup(4 / 6, 2, cost["c"] or 0)
    assert predicted["with_costs"] == pytest.approx((1 + 2 / 3 + 4 / 9) / (0.6 + 1.4 + 0.2))
    assert predicted["deviation"] == pytest.approx(predicted["with_costs"] / 0.8 - 1)


def test_no_round_no_prediction() -> None:
    short = Laps([1.0], [1.0], [Answer([0], stats=SpeculativeStats([_round(0, 0, 0, 1, 0)], 0, 1))])
    found, cost = acceptance(short), costs(short, 1.0)
    assert found["alpha"] is None and cost["c"] is None
    assert speedup_in_rounds(short, 2, 1.0) is None
    assert predict(2, found, cost, measured=1.0, in_rounds=None) is None
    with pytest.raises(ValueError, match="longer answers"):
        chosen({"draft 2": {"prediction": None}})


def test_the_length_is_chosen_by_the_formula_not_by_its_time() -> None:
    rows = {
        f"draft {n}": {"prediction": {"with_costs": predicted, "measured": measured}}
        for n, predicted, measured in ((2, 1.5, 1.9), (4, 1.6, 1.2))
    }
    assert chosen({**rows, "skip 2": {"prediction": {"with_costs": 9.0}}}) == "draft 4"


@pytest.mark.parametrize("text", SETS)
def test_prompts_and_answers_of_a_domain(lm: LanguageModel, text: str) -> None:
    asked = domain(lm, text, prompts=3, new_tokens=6).asked
    assert len(asked) == len({each.prompt for each in asked}) == 3
    assert all(1 < each.new_tokens <= 6 for each in asked)
    drawn = domain(lm, text, prompts=3, new_tokens=6, temperature=0.7)
    assert drawn.new_tokens == 18 and "0.7" in drawn.name


def test_transformers_draws_what_our_loop_draws(lm: LanguageModel) -> None:
    asked = Asked((300, 301, 302), 8)
    ours = Plain(lm.model).run(asked, 0.7, seed=3)
    theirs = Generate("hf", load_transformers(model_directory("tiny"))).run(asked, 0.7, seed=3)
    assert ours.tokens == theirs.tokens
    assert ours.step_seconds is not None and ours.step_seconds > 0
    assert Speculative("self", lm.model, lm.model, 2).run(asked, 0.0, 0).stats is not None


def test_another_answer_is_found_and_refused(lm: LanguageModel) -> None:
    plain = [Plain(lm.model).run(asked, 0.0, 0) for asked in ASKED]
    wrong = [Answer([*(answer.tokens or [])[:-1], 5]) for answer in plain]
    texts = [Answer(text=str(lm.tokenizer.decode(answer.tokens or []))) for answer in plain]
    other = [Answer(text=(answer.text or "") + "x") for answer in texts]
    laps = {
        name: Laps(answers=answers)
        for name, answers in (
            ("plain", plain),
            ("draft 2", plain),
            ("llama.cpp", texts),
            ("llama.cpp draft", other),
        )
    }
    counts: dict[str, dict[str, int]] = {}
    compare(lm, DOMAIN, laps, counts)
    assert counts["draft 2"] == {"requests": 3, "equal": 3, "near_ties": 0, "differing": 0}
    assert counts["llama.cpp"]["equal"] == 3
    assert counts["llama.cpp draft"]["differing"] == 3
    check(counts)  # what others say is counted, no more
    compare(lm, DOMAIN, {"plain": Laps(answers=plain), "draft 2": Laps(answers=wrong)}, counts)
    assert counts["draft 2"] == {"requests": 6, "equal": 3, "near_ties": 0, "differing": 3}
    with pytest.raises(ValueError, match="draft 2: greedy answers are not"):
        check(counts)


def test_aims_say_what_is_missed() -> None:
    def over(wall: float) -> dict[str, Any]:
        return {"wall": {"ratio": wall, "low": 1.0, "high": 9.0}, "cpu": {"ratio": 2.5}, "n": 3}

    ways = {
        "draft 2": {"over_plain": over(1.7), "prediction": {"deviation": -0.2}},
        "draft 4": {"over_plain": over(9.0), "prediction": {"deviation": 0.1}},
    }
    result = {
        "ways": ways,
        "chosen": "draft 2",
        "over_assisted": {"rival": "transformers assisted", "over": over(2.1)},
    }
    aims = aims_of({"domains": {"tool calls": result, "documentation": result}})
    assert [(aim["wanted"], aim["measured"], aim["met"]) for aim in aims] == [
        (">= 1.8", 1.7, False),
        (">= 2.0", 2.1, True),
        ("within 15%", -0.2, False),
        (">= 1.6", 1.7, True),
        (">= 2.0", 2.1, True),
        ("within 15%", -0.2, False),
    ]
