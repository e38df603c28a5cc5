"""The references of lesson 06 against independent arithmetic, and every worked example."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from torch import Tensor

from authoring.build import ROOT
from authoring.sources import Source, read_source
from slmlab.checking import check, get, make_cases, registered
from slmlab.generation import generate_tokens
from slmlab.lessons.speculative_decoding import EXERCISES
from slmlab.lessons.speculative_decoding.acceptance import ACCEPTANCE
from slmlab.lessons.speculative_decoding.choose_length import CHOOSE_LENGTH, rounds
from slmlab.lessons.speculative_decoding.expected_tokens import EXPECTED_TOKENS
from slmlab.lessons.speculative_decoding.one_round import ONE_ROUND
from slmlab.lessons.speculative_decoding.residual import RESIDUAL
from slmlab.lessons.speculative_decoding.rollback import ROLLBACK
from slmlab.lessons.speculative_decoding.sampler_repair import SAMPLER_REPAIR
from slmlab.lessons.speculative_decoding.speedup import SPEEDUP
from slmlab.models import Decoder, ModelConfig
from slmlab.speculative import expected_tokens, speculative_generate
from slmlab.speculative.runner import Runner
from tests.speculative.exact import rounds as every_round

ROW = st.lists(st.integers(1, 20), min_size=3, max_size=3)


@pytest.fixture(autouse=True)
def topic() -> Any:
    with registered("speculative", EXERCISES):
        yield


def both(exercise: Any) -> tuple[Any, ...]:
    return (exercise.reference, *exercise.alternatives)


def row(counts: list[int]) -> Tensor:
    return torch.tensor(counts, dtype=torch.float32) / sum(counts)


def pair_of_toys(seed: int) -> tuple[Decoder, Decoder]:
    """A target, and a draft that is the same model with noise: some of its guesses hold."""
    target, draft = toy(seed), toy(seed)
    for parameter in draft.parameters():
        parameter.add_(0.15 * torch.randn(parameter.shape))
    return target, draft


def toy(seed: int) -> Decoder:
    torch.manual_seed(seed)
    decoder = Decoder(ModelConfig("llama", 6, 8, 12, 1, 2, 1, 4, 64)).eval()
    for parameter in decoder.parameters():
        parameter.requires_grad_(False).add_(0.5 * torch.randn(parameter.shape))
    return decoder


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_acceptance_by_scipy(temperature: float) -> None:
    target, draft = torch.randn(5, 7), torch.randn(5, 7)
    tokens = [0, 6, 3, 3, 1]
    p, q = (softmax(x.numpy() / temperature, axis=-1) for x in (target, draft))
    wanted = torch.tensor([min(1.0, p[i, t] / q[i, t]) for i, t in enumerate(tokens)])
    for answer in both(ACCEPTANCE):
        torch.testing.assert_close(
            answer(target, draft, tokens, temperature).float(), wanted.float()
        )


@given(ours=ROW, theirs=ROW)
def test_kept_and_replaced_is_the_target(ours: list[int], theirs: list[int]) -> None:
    p, q = row(ours), row(theirs)
    kept = torch.minimum(p, q)
    for answer in both(RESIDUAL):
        found = answer(p, q)
        assert float(found.sum()) == pytest.approx(1.0, abs=1e-4) and bool((found >= 0).all())
        torch.testing.assert_close(kept + (1 - kept.sum()) * found, p, rtol=1e-3, atol=1e-4)


@given(first=ROW, second=ROW, theirs=ROW)
@settings(max_examples=15)
def test_one_round_over_all_draws_follows_the_target(
    first: list[int], second: list[int], theirs: list[int]
) -> None:
    """Both random numbers on a grid: the shares of the first token, and of the second behind it."""
    p, q, steps = torch.stack([row(first), row(second)]), row(theirs)[None], 25
    grid = [(i + 0.5) / steps for i in range(steps)]
    for answer in both(ONE_ROUND):
        share = torch.zeros(3)
        behind: dict[int, Tensor] = defaultdict(lambda: torch.zeros(3))
        for token, draw, last in itertools.product(range(3), grid, grid):
            out = answer([token], q, p, [draw], last)
            share[out[0]] += q[0, token] / steps**2
            if len(out) == 2:
                behind[out[0]][out[1]] += 1
        assert float((share - p[0]).abs().max()) < 0.06
        for counts in behind.values():
            assert float((counts / counts.sum() - p[1]).abs().max()) < 0.06


@given(rates=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_expected_tokens_over_every_outcome(rates: list[float]) -> None:
    total = 0.0
    for held in itertools.product((True, False), repeat=len(rates)):
        chance = 1.0
        for ok, rate in zip(held, rates, strict=True):
            chance *= rate if ok else 1 - rate
        total += chance * (1 + len(list(itertools.takewhile(bool, held))))
    for answer in both(EXPECTED_TOKENS):
        assert answer(rates) == pytest.approx(total)


def test_equal_rates_are_the_papers_formula() -> None:
    for answer in both(EXPECTED_TOKENS):
        assert answer([0.8] * 4) == pytest.approx((1 - 0.8**5) / 0.2)
        assert answer([0.8] * 4) == pytest.approx(expected_tokens(0.8, 4))


@pytest.mark.parametrize("seed", range(4))
def test_rollback_is_what_the_package_truncates_to(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, draft = pair_of_toys(seed)
    held: dict[int, list[int]] = {id(target): [], id(draft): []}
    truncate = Runner.truncate

    def watched(runner: Runner, n: int) -> None:
        truncate(runner, n)
        held[id(runner.model)].append(len(runner.tokens))

    monkeypatch.setattr(Runner, "truncate", watched)
    stats = speculative_generate(target, draft, torch.tensor([[1, 2, 3]]), 24, 3).stats
    # The last round of a text may have room for no proposal.
    done = [(len(r.proposed), r.accepted) for r in stats.rounds if r.proposed]
    wanted = ROLLBACK.reference(3, done)
    assert [t for t, _ in wanted] == held[id(target)][: len(done)]
    # The draft goes back when it is asked again: its first entry is before any round.
    assert [d for _, d in wanted][:-1] == held[id(draft)][1 : len(done)]
    assert ROLLBACK.alternatives[0](3, done) == wanted


@given(rows=st.lists(st.tuples(ROW, ROW), min_size=1, max_size=3), last=ROW)
@settings(max_examples=25)
def test_outcomes_by_enumeration(rows: list[tuple[list[int], list[int]]], last: list[int]) -> None:
    p = torch.stack([*(row(ours) for ours, _ in rows), row(last)])
    q = torch.stack([row(theirs) for _, theirs in rows])
    found = every_round(lambda t: p[len(t)], lambda t: q[len(t)], 3, len(rows), ())
    wanted = torch.zeros_like(p)
    for text, chance in found.items():
        wanted[len(text) - 1, text[-1]] += chance
    for answer in both(SAMPLER_REPAIR):
        torch.testing.assert_close(answer(q, p), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_rounds_of_a_record_are_those_of_a_real_run(length: int) -> None:
    target, draft = pair_of_toys(1)
    prompt = [1, 2, 3]
    text = list(generate_tokens(target, prompt, max_new_tokens=40))
    guesses = draft(torch.tensor([prompt + text[:-1]]))[0, len(prompt) - 1 :].argmax(-1)
    agreed = [int(g) == t for g, t in zip(guesses, text, strict=True)]
    stats = speculative_generate(
        target, draft, torch.tensor([prompt]), 40, length, stop_ids=()
    ).stats
    assert rounds(agreed, length) == len(stats.rounds)
    assert 0 < sum(agreed) < len(agreed)


@pytest.mark.parametrize("seed", range(3))
def test_no_length_is_clearly_better(seed: int) -> None:
    for case in make_cases(CHOOSE_LENGTH, seed):
        agreed, cost, verify = case.arguments.values()
        times = [rounds(agreed, n) * (n * cost + v) for n, v in enumerate(verify)]
        for answer in both(CHOOSE_LENGTH):
            assert times[answer(agreed, cost, verify)] == pytest.approx(min(times))


def test_the_speedup_by_hand() -> None:
    assert SPEEDUP.reference() == pytest.approx((1 - 0.8**6) / 0.2 * 40 / 65)


def test_worked_examples_of_the_statements() -> None:
    assert ROLLBACK.reference(3, [(2, 2)]) == [(5, 4)]
    assert ROLLBACK.reference(3, [(2, 1)]) == [(4, 4)]
    kept = ACCEPTANCE.reference(torch.zeros(1, 3), torch.tensor([[0.7, 0.0, 0.0]]), [0], 1.0)
    assert float(kept) == pytest.approx(0.664, abs=5e-4)
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.4, 0.1])
    assert RESIDUAL.reference(p, q).tolist() == pytest.approx([1, 0, 0])
    rows = torch.stack([p, torch.tensor([0.2, 0.3, 0.5])])
    assert ONE_ROUND.reference([1], q[None], rows, [0.6], 0.4) == [0]
    assert ONE_ROUND.reference([1], q[None], rows, [0.3], 0.4) == [1, 1]
    assert EXPECTED_TOKENS.reference([0.8, 0.5, 0.5]) == pytest.approx(2.4)
    assert CHOOSE_LENGTH.reference([True, True, False], 0.2, [1.0, 1.1, 1.2]) == 2
    found = SAMPLER_REPAIR.reference(
        torch.tensor([[0.5, 0.5]]), torch.tensor([[0.8, 0.2], [0.1, 0.9]])
    )
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.0], [0.07, 0.63]]))


def test_the_code_to_repair_runs_and_is_diagnosed_as_itself() -> None:
    name = "authoring/06_speculative_decoding/exercises.py"
    notebook = read_source(Source(ROOT / name, name, "06_speculative_decoding", False))
    (source,) = (c.source for c in notebook.cells if c.source.startswith("def outcomes_as_found"))
    names: dict[str, Any] = {"torch": torch, "Tensor": Tensor}
    exec(compile(source, "outcomes_as_found", "exec"), names)
    report = check(get("speculative.sampler_repair"), names["outcomes_as_found"])
    assert report.outcome == "wrong" and report.diagnosis is not None
    assert report.diagnosis.mistake is not None
    assert report.diagnosis.mistake.name == "the given bug"
