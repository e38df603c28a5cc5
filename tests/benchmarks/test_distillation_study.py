"""The distillation study: what it measures, on what text, and that finished runs are kept."""

from __future__ import annotations

import copy
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from benchmarks import _distillation_runs, distillation_study
from benchmarks._distillation_metrics import DOMAINS, Judge, Size, prompts_of
from benchmarks._distillation_recipes import LAYERS, RECIPES
from benchmarks._distillation_rows import LENGTH, SHARES, counts, training_pools
from benchmarks._distillation_runs import (
    PROMPT_TOKENS,
    Ledger,
    Recipe,
    learned,
    settings_of,
    train,
)
from benchmarks._distillation_tables import BUDGETS, METHODS, rises, spread, wins
from benchmarks.distillation_study import SHORT, draft_rows, measure, rounded, steps_for_equal_cpu
from slmlab import load
from slmlab.data.corpus import Origin
from slmlab.distill import evenly_spaced_layers, student_from_layers
from slmlab.generation import LanguageModel
from slmlab.measure.acceptance import greedy_acceptance
from slmlab.measure.tasks import exact_match
from slmlab.models import Decoder


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("tiny")


@pytest.fixture(scope="module")
def judge(lm: LanguageModel) -> Judge:
    return Judge(lm, Size(rows=8, tool_calls=3, prompts=3, new_tokens=8))


@pytest.fixture(scope="module")
def student(lm: LanguageModel) -> Decoder:
    model: Decoder = student_from_layers(lm.model, evenly_spaced_layers(6, 2))
    return model


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def measured(work: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    return measure(SHORT, work)


def test_the_shape_of_a_short_study(measured: dict[str, Any]) -> None:
    assert measured["threads"] == 1
    metrics = {"kl", "perplexity", "tool_calls", "acceptance"}
    assert measured["teacher"]["kl"] == 0 and measured["teacher"]["acceptance"] == 1
    assert metrics < set(measured["start"])
    assert measured["start"]["layers"] == list(LAYERS)
    assert measured["start"]["parameters"] < measured["teacher"]["parameters"]
    asked = {(run["budget"], run["method"], run["seed"]) for run in measured["runs"]}
    assert asked == {(budget, method, 0) for budget in BUDGETS for method in METHODS}
    assert len(measured["runs"]) == len(asked)
    for run in measured["runs"]:
        assert set(run["metrics"]) == metrics
        assert run["cpu_seconds"] > 0
        tokens = [point[0] for point in run["curve"]]
        seconds = [point[1] for point in run["curve"]]
        assert tokens == sorted(set(tokens)) and seconds == sorted(seconds)
        assert tokens[0] == 0 and tokens[-1] == run["tokens"] and seconds[-1] <= run["cpu_seconds"]
        assert run["curve"][0][2] == pytest.approx(measured["start"]["kl"], rel=1e-12)
        assert run["curve"][-1][2] == pytest.approx(run["metrics"]["kl"], rel=1e-12)
    for budget in BUDGETS:
        assert set(measured["summary"][budget]) == set(METHODS)
        for found in measured["summary"][budget].values():
            assert metrics < set(found) and all(each["n"] == SHORT.seeds for each in found.values())
        assert set(measured["logits_beat_hard"][budget]) == metrics
    pairs = {tuple(each["layers"]): each["kl"] for each in measured["cuts"]["pairs"]}
    assert len(pairs) == 15 and pairs[LAYERS] == measured["start"]["kl"] == min(pairs.values())


def test_all_methods_learn_from_the_same_number_of_tokens(measured: dict[str, Any]) -> None:
    equal = [run for run in measured["runs"] if run["budget"] == "tokens"]
    wanted = SHORT.steps * SHORT.batch_size * (LENGTH + 1 - PROMPT_TOKENS)
    assert [run["tokens"] for run in equal] == [wanted] * len(METHODS)
    assert {run["steps"] for run in equal} == {SHORT.steps}
    by = {(run["budget"], run["method"]): run for run in measured["runs"]}
    assert by["cpu", "logits"] == {**by["tokens", "logits"], "budget": "cpu"}


def test_the_draft_is_judged_before_and_after(measured: dict[str, Any]) -> None:
    draft = measured["draft"]
    assert set(draft["before"]) == {*DOMAINS, "kl"}
    assert {(run["method"], run["seed"]) for run in draft["runs"]} == {("logits", 0), ("hard", 0)}
    assert len({run["tokens"] for run in draft["runs"]}) == 1
    for run in draft["runs"]:
        assert set(run["acceptance"]) == set(run["standard_error"]) == set(DOMAINS)
        assert all(0 <= rate <= 1 for rate in run["acceptance"].values())
        assert run["kl"] != draft["before"]["kl"]
        assert draft["summary"][run["method"]]["kl"]["mean"] == run["kl"]


def test_a_rerun_trains_nothing_and_says_the_same(
    measured: dict[str, Any],
    work: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    files = sorted(work.iterdir())
    assert len(files) == 12 and not [file for file in files if file.suffix != ".json"]
    monkeypatch.setattr(distillation_study, "train", never)
    monkeypatch.setattr(distillation_study, "written_rows", never)
    distillation_study.main(["--short", "--work", str(work)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == rounded(measured)
    assert sorted(work.iterdir()) == files


def test_what_is_missing_is_made_and_a_changed_setting_is_another_run(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"value": (1, 2.5)}

    assert Ledger(tmp_path).run("a", {"steps": 1}, make) == {"value": [1, 2.5]}
    again = Ledger(tmp_path)
    assert again.run("a", {"steps": 1}, make) == {"value": [1, 2.5]}
    assert len(made) == 1 and again.reused == 1
    again.run("a", {"steps": 2}, make)
    again.run("b", {"steps": 1}, make)
    assert len(made) == 3
    next(tmp_path.glob("b-*.json")).write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="damaged: delete it"):
        again.run("b", {"steps": 1}, make)

    def interrupted() -> dict[str, Any]:
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        again.run("c", {}, interrupted)
    assert sorted(tmp_path.iterdir()) == before


def test_all_that_decides_a_run_is_in_its_settings(lm: LanguageModel, student: Decoder) -> None:
    rows = torch.arange(2 * (LENGTH + 1)).reshape(2, -1)
    other = copy.deepcopy(student)
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1
    recipe = Recipe("topk", 1e-3)
    known = settings_of(recipe, rows, student, lm.model, seed=0, steps=3)
    assert known == settings_of(
        recipe, rows.clone(), copy.deepcopy(student), lm.model, seed=0, steps=3
    )
    for changed in (
        settings_of(Recipe("topk", 2e-3), rows, student, lm.model, seed=0, steps=3),
        settings_of(Recipe("logits", 1e-3), rows, student, lm.model, seed=0, steps=3),
        settings_of(recipe, rows + 1, student, lm.model, seed=0, steps=3),
        settings_of(recipe, rows, other, lm.model, seed=0, steps=3),
        settings_of(recipe, rows, student, student, seed=0, steps=3),
        settings_of(recipe, rows, student, lm.model, seed=1, steps=3),
    ):
        assert changed != known
    json.dumps(known)


def test_kl_and_perplexity_are_those_of_plain_torch(
    lm: LanguageModel, judge: Judge, student: Decoder
) -> None:
    inputs, targets = judge.rows[:, :-1], judge.rows[:, 1:]
    kls, losses = [], []
    with torch.no_grad():
        for row, wanted in zip(inputs, targets):
            log_p = lm.model(row[None])[0].double().log_softmax(-1)
            log_q = student(row[None])[0].double().log_softmax(-1)
            kls.append(functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True))
            losses.append(functional.nll_loss(log_q, wanted))
    kl, perplexity = judge.kl_and_perplexity(student)
    assert kl > 1  # not a comparison of zeros
    assert kl == pytest.approx(float(torch.stack(kls).mean()), rel=1e-5)
    assert perplexity == pytest.approx(float(torch.stack(losses).mean().exp()), rel=1e-5)
    metrics = judge.metrics(student)
    assert metrics["kl"] == kl and metrics["perplexity"] == perplexity
    assert judge.tool_calls(lm.model) == exact_match(lm, "tool_calls", 3).accuracy


@pytest.mark.parametrize("domain", DOMAINS)
def test_acceptance_is_the_measure_rooms(lm: LanguageModel, judge: Judge, domain: str) -> None:
    draft = load("tiny-draft")
    wanted = greedy_acceptance(draft, lm, prompts_of(lm, domain, 3), new_tokens=8)
    assert judge.acceptance(draft.model, domain) == wanted
    found = judge.acceptances(draft.model)[domain]
    assert found == {"rate": wanted.rate, "standard_error": wanted.standard_error}


def test_rows_of_training_and_judging(lm: LanguageModel, judge: Judge) -> None:
    pools = training_pools(lm, (Origin("tqdm"), Origin("rich")), 20)
    assert {domain: tuple(pool.shape) for domain, pool in pools.of.items()} == {
        domain: (20, LENGTH + 1) for domain in SHARES
    }
    first, same, other = pools.sample(16, 0), pools.sample(16, 0), pools.sample(16, 1)
    assert first.shape == (16, LENGTH + 1) and torch.equal(first, same)
    assert not torch.equal(first, other)
    assert len(first.unique(dim=0)) == 16
    # A longer run sees the shorter one's rows, and more.
    longer = {tuple(row) for row in pools.sample(32, 0).tolist()}
    assert {tuple(row) for row in first.tolist()} < longer
    assert counts(16, SHARES) == {"documentation": 6, "code": 4, "grammar": 6}
    assert sum(counts(17, SHARES).values()) == 17
    with pytest.raises(ValueError, match="rows of documentation are wanted, there are 20"):
        pools.sample(80, 0)
    assert judge.rows.shape == (8, LENGTH + 1)
    judged = {tuple(row) for row in judge.rows.tolist()}
    assert not judged & {tuple(row) for pool in pools.of.values() for row in pool.tolist()}
    written = torch.zeros(20, LENGTH + 1, dtype=torch.int64)
    mixed = draft_rows(pools, written, 16, 0)
    assert mixed.shape == (16, LENGTH + 1) and 0 < int((mixed == 0).all(1).sum()) < 16


def test_the_beginning_of_a_row_is_learned_by_nobody() -> None:
    mask = learned(torch.zeros(2, LENGTH + 1, dtype=torch.int64))
    # Position i predicts token i + 1: the first prediction behind the prompt is of token 9.
    assert mask.dtype == torch.bool and mask.shape == (2, LENGTH)
    assert not mask[:, : PROMPT_TOKENS - 1].any() and mask[:, PROMPT_TOKENS - 1 :].all()


def test_judging_costs_a_run_nothing(
    lm: LanguageModel, student: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(_distillation_runs.time, "process_time", lambda: now[0])

    def kl(_: Decoder) -> float:
        now[0] += 100.0
        return 0.5

    rows = torch.arange(4 * (LENGTH + 1)).reshape(4, -1)
    recipe = Recipe("hard", 1e-3, batch_size=1)
    done = train(copy.deepcopy(student), lm.model, rows, recipe, steps=4, seed=0, kl=kl, points=2)
    assert now[0] == 300.0 and done.cpu_seconds == 0
    each = LENGTH + 1 - PROMPT_TOKENS
    assert done.curve == [(0, 0.0, 0.5), (2 * each, 0.0, 0.5), (4 * each, 0.0, 0.5)]


def test_every_method_has_a_recipe() -> None:
    assert set(RECIPES) == set(METHODS)
    assert all(recipe.method == name and recipe.build() for name, recipe in RECIPES.items())


def test_equal_seconds_by_hand() -> None:
    runs = [
        {"method": method, "steps": 40, "cpu_seconds": seconds}
        for method, seconds in (("hard", 10.0), ("logits", 28.0), ("hard", 20.0), ("logits", 32.0))
    ]
    assert steps_for_equal_cpu([*runs, {"method": "slow", "steps": 40, "cpu_seconds": 1e9}]) == {
        "hard": 80,
        "logits": 40,
        "slow": 1,
    }


def test_wins_rises_and_spreads_by_hand() -> None:
    runs = [
        {"budget": budget, "method": method, "seed": seed, "metrics": {"kl": kl, "tool_calls": kl}}
        for budget in BUDGETS
        for method, kls in (("logits", (1.0, 2.0, 3.0)), ("hard", (2.0, 2.0, 2.0)))
        for seed, kl in enumerate(kls)
    ]
    assert wins(runs) == {budget: {"kl": 1, "tool_calls": 1} for budget in BUDGETS}
    runs[0]["metrics"] = {"kl": 0.5, "tool_calls": 9.0}
    assert wins(runs)["tokens"] == {"kl": 1, "tool_calls": 2}
    before = {"code": {"rate": 0.5, "standard_error": 0.1}, "kl": 1.0}
    after = [{"method": "logits", "acceptance": {"code": rate}} for rate in (0.4, 0.5, 0.6, 0.7)]
    assert rises(before, after) == {"logits": {"code": 2}}
    values = [1.0, 4.0, 7.5]
    found = spread(values)
    assert found["n"] == 3 and found["mean"] == pytest.approx(statistics.mean(values))
    assert found["sd"] == pytest.approx(statistics.stdev(values))
    assert spread([2.0]) == {"mean": 2.0, "sd": None, "n": 1}
