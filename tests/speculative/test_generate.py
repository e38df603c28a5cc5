"""Speculation changes how fast a text comes, not which: every draft, every length, both libraries."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import slmlab
from slmlab.data.evaluation import evaluation_set
from slmlab.generation import generate_tokens
from slmlab.models import Decoder, model_directory
from slmlab.speculative import (
    AdaptiveLength,
    ModelDraft,
    PromptLookup,
    Proposal,
    layer_skip_draft,
    speculative_generate,
)
from tests.serving.oracle import language_model, prompts_of

NEAR_TIE = 1e-3
NEW = 20
KINDS = ("model", "lookup", "layer skip", "adaptive")


@cache
def theirs(name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_directory(name)).eval()


class Guesses:
    """A draft that knows the answer but errs at seeded places, more than once in a row too."""

    def __init__(self, answer: Sequence[int], prompt: int, vocabulary: int, seed: int) -> None:
        self.answer, self.prompt, self.vocabulary = answer, prompt, vocabulary
        self.choose = random.Random(seed)

    def start(self, max_length: int, sampling: Any, generator: Any) -> None:
        pass

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        done = len(tokens) - self.prompt
        right = self.answer[done : done + self.choose.randint(0, count)]
        return Proposal(
            [
                t if self.choose.random() < 0.8 else self.choose.randrange(self.vocabulary)
                for t in right
            ]
        )


def plain(name: str, prompt: list[int], new: int) -> list[int]:
    return list(_plain(name, tuple(prompt), new))


@cache
def _plain(name: str, prompt: tuple[int, ...], new: int) -> list[int]:
    model = language_model(name).model
    with torch.inference_mode():
        return list(
            generate_tokens(
                model, list(prompt), max_new_tokens=new, stop_ids=model.config.eos_token_ids
            )
        )


def assert_same(name: str, prompt: list[int], found: list[int], new: int) -> bool:
    """Identical to plain decoding, or from a near tie on; whether it was the latter."""
    wanted = plain(name, prompt, new)
    if found == wanted:
        return False
    at = next(i for i, (a, b) in enumerate(zip([*found, -1], [*wanted, -1])) if a != b)
    with torch.inference_mode():
        logits = language_model(name).model(torch.tensor([prompt + wanted[:at]]))[0, -1]
    first, second = logits.topk(2).values.tolist()
    assert first - second < NEAR_TIE, f"{found} is not {wanted}: they part at {at}"
    return True


def check(name: str, draft: Callable[[], Any], prompts: list[list[int]], lengths: Sequence[int]):
    ties = 0
    for prompt in prompts:
        for length in lengths:
            result = speculative_generate(
                language_model(name), draft(), torch.tensor([prompt]), NEW, length
            )
            ties += assert_same(name, prompt, result.tokens, NEW)
            assert_counts(result, prompt)
    assert ties <= 1


def assert_counts(result: Any, prompt: list[int]) -> None:
    """Every token went through the target once, and proposals that were refused."""
    stats = result.stats
    wanted = len(prompt) - 1 + sum(1 + len(r.proposed) for r in stats.rounds)
    assert stats.target_tokens == wanted
    assert stats.accepted <= stats.checked <= stats.proposed
    assert len(result.tokens) <= stats.accepted + len(stats.rounds)


def kinds(name: str) -> dict[str, Callable[[], Any]]:
    lm = language_model(name)
    draft = language_model("tiny-draft") if name == "tiny" else lm
    return {
        "model": lambda: draft,
        "lookup": lambda: PromptLookup(),
        "layer skip": lambda: layer_skip_draft(lm.model, 2),
    }


@pytest.mark.parametrize("kind", ["model", "lookup", "layer skip"])
@pytest.mark.parametrize("name", ["tiny", "stories260K"])
def test_greedy_as_plain_decoding(name: str, kind: str) -> None:
    prompts = prompts_of(name, 3, longest=30)
    if name == "tiny":
        prompts += tool_calls(1)
    check(name, kinds(name)[kind], prompts, (1, 3, 8))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "lookup", "layer skip"])
@pytest.mark.parametrize("name", ["tiny", "stories260K"])
def test_greedy_as_plain_decoding_at_full_size(name: str, kind: str) -> None:
    prompts = prompts_of(name, 200 if name == "stories260K" else 140, seed=5, longest=60)
    prompts += tool_calls(60) if name == "tiny" else []
    assert len(prompts) == 200
    ties = 0
    for prompt in prompts:
        for length in range(1, 9):
            result = speculative_generate(
                language_model(name), kinds(name)[kind](), torch.tensor([prompt]), NEW, length
            )
            ties += assert_same(name, prompt, result.tokens, NEW)
    print(f"{name}, {kind}: {ties} of 1600 runs part at a near tie")
    assert ties <= 8


def tool_calls(count: int) -> list[list[int]]:
    lm = language_model("tiny")
    return [lm.encode(sample.prompt) for sample in evaluation_set("tool_calls").samples[:count]]


@pytest.mark.parametrize("name", ["tiny", "stories260K"])
def test_a_draft_that_errs_in_every_way(name: str) -> None:
    """Rollback by every number of tokens, rounds without proposals, runs of any length."""
    rejected: set[int] = set()
    for seed, prompt in enumerate(prompts_of(name, 6, longest=20)):
        answer = plain(name, prompt, 40)
        lm = language_model(name)
        draft = Guesses(answer, len(prompt), lm.model.config.vocab_size, seed)
        result = speculative_generate(lm, draft, torch.tensor([prompt]), 40, 6)
        assert_same(name, prompt, result.tokens, 40)
        assert_counts(result, prompt)
        rejected |= {len(r.proposed) - r.accepted for r in result.stats.rounds}
    assert rejected >= {0, 1, 2, 3}


def test_adaptive_lengths() -> None:
    lm, draft = language_model("tiny"), language_model("tiny-draft")
    used = set()
    for prompt in prompts_of("tiny", 3, longest=30) + tool_calls(3):
        result = speculative_generate(
            lm, draft, torch.tensor([prompt]), NEW, AdaptiveLength(0.2, most=7)
        )
        assert_same("tiny", prompt, result.tokens, NEW)
        used |= {len(r.proposed) for r in result.stats.rounds}
    assert len(used) >= 4 and max(used) <= 7


@pytest.mark.parametrize("kind", ["model", "lookup", "layer skip", "our draft"])
def test_through_transformers_models(kind: str) -> None:
    target = theirs("tiny")
    drafts: dict[str, Callable[[], Any]] = {
        "model": lambda: theirs("tiny-draft"),
        "lookup": lambda: PromptLookup(),
        "layer skip": lambda: layer_skip_draft(target, 2),
        "our draft": lambda: language_model("tiny-draft").model,
    }
    for prompt in prompts_of("tiny", 2, longest=30) + tool_calls(1):
        for length in (1, 4):
            result = speculative_generate(
                target, drafts[kind](), torch.tensor([prompt]), NEW, length
            )
            assert_same("tiny", prompt, result.tokens, NEW)


def test_layer_skip_shares_weights_and_leaves_the_target_alone() -> None:
    lm = language_model("tiny")
    draft = layer_skip_draft(lm.model, 2)
    assert len(draft.model.layers) == 2 and len(lm.model.layers) == 6
    assert draft.model.layers[0] is lm.model.layers[0]
    assert draft.model.config.num_hidden_layers == 2 and lm.model.config.num_hidden_layers == 6
    own = layer_skip_draft(theirs("tiny"), 3)
    assert len(own.model.model.layers) == 3 and len(theirs("tiny").model.layers) == 6


def test_lookup_copies_what_followed() -> None:
    lookup = PromptLookup(longest=2)
    lookup.start(64, None, None)  # type: ignore[arg-type]
    assert lookup.propose([5], 3).tokens == []
    assert lookup.propose([5, 6, 7, 5], 3).tokens == [6, 7, 5]
    # The longest match decides, then the newest: 6 7 was followed by 5 first and by 9 later.
    assert lookup.propose([5, 6, 7, 5, 6, 7, 9, 6, 7], 1).tokens == [9]
    assert lookup.propose([5, 6, 7, 5, 6, 7, 9, 6, 7, 1], 4).tokens == []
    lookup.start(64, None, None)  # type: ignore[arg-type]
    assert lookup.propose([5, 9], 3).tokens == []


def test_an_end_token_inside_the_accepted_run() -> None:
    """The text ends before it, whatever was accepted behind it."""
    lm = language_model("tiny")
    prompt = prompts_of("tiny", 1, longest=30)[0]
    whole = plain("tiny", prompt, 30)
    for at in (0, 1, 5):
        stop = whole[at]
        found = speculative_generate(lm, lm, torch.tensor([prompt]), 30, 8, stop_ids=[stop]).tokens
        assert found == whole[: whole.index(stop)]
    assert speculative_generate(lm, lm, torch.tensor([prompt]), 30, 8, stop_ids=[]).tokens == whole


def test_the_budget_is_met_exactly() -> None:
    lm = language_model("tiny")
    prompt = prompts_of("tiny", 1, longest=30)[0]
    whole = plain("tiny", prompt, 12)
    for new in (1, 2, 5, 12):
        result = speculative_generate(lm, lm, torch.tensor([prompt]), new, 8)
        assert result.tokens == whole[:new]
        assert all(len(r.proposed) <= 8 for r in result.stats.rounds)
        assert result.stats.accepted + len(result.stats.rounds) == new
    room = 512 - len(prompt)
    assert speculative_generate(lm, lm, torch.tensor([prompt]), room, 8, stop_ids=[]).tokens


def test_a_text_of_its_own_draft_is_always_accepted() -> None:
    lm = language_model("tiny")
    prompt = torch.tensor([prompts_of("tiny", 1)[0]])
    for temperature in (0.0, 0.8):
        generator = torch.Generator().manual_seed(1)
        stats = speculative_generate(lm, lm, prompt, 40, 4, temperature, generator, top_k=40).stats
        assert stats.acceptance_rate is not None and stats.acceptance_rate > 0.98


def test_refusals() -> None:
    lm, draft = language_model("tiny"), language_model("tiny-draft")
    prompt = torch.tensor([[5, 6]])

    def run(**changes: Any) -> None:
        arguments = dict(target=lm, draft=draft, prompt_ids=prompt, max_new_tokens=4)
        speculative_generate(**{**arguments, **changes})  # type: ignore[arg-type]

    other = Decoder(lm.model.config.__class__("llama", 50, 16, 24, 1, 2, 1, 8, 64))
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"draft": other}, ValueError, "target has 2048 tokens, draft has 50"),
        ({"draft": "tiny-draft"}, TypeError, "a Decoder or a transformers causal model is needed"),
        ({"target": None}, TypeError, "a Decoder or a transformers causal model is needed"),
        ({"prompt_ids": prompt[:, :0]}, ValueError, "at least one token"),
        ({"prompt_ids": prompt[0]}, ValueError, r"must have shape \(1, T\)"),
        ({"prompt_ids": [[5]]}, TypeError, "prompt_ids must be an int64 tensor"),
        ({"prompt_ids": prompt + 5000}, ValueError, "outside the vocabulary of 2048"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens=0 must be at least 1"),
        ({"max_new_tokens": 600}, ValueError, "exceed the target's 512 positions"),
        ({"num_draft_tokens": 0}, ValueError, "num_draft_tokens=0 must be at least 1"),
        ({"num_draft_tokens": 2.0}, TypeError, "num_draft_tokens must be an int"),
        ({"temperature": -1}, ValueError, "temperature"),
        ({"top_p": 0.0}, ValueError, "top_p"),
    ]
    for changes, kind, message in refused:
        with pytest.raises(kind, match=message):
            run(**changes)
    with pytest.raises(ValueError, match="layers=6 must be below the target's 6"):
        layer_skip_draft(lm.model, 6)
    with pytest.raises(TypeError, match=r"has no model\.layers"):
        layer_skip_draft(torch.nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match="shortest=3 must be at most longest=2"):
        PromptLookup(2, 3)


def test_different_tokenizers_are_refused() -> None:
    other = replace(language_model("tiny-draft"), tokenizer=language_model("stories260K").tokenizer)
    with pytest.raises(ValueError, match="target and draft have different tokenizers"):
        speculative_generate(language_model("tiny"), other, torch.tensor([[5]]), 4)


def test_damaged_weights() -> None:
    lm = slmlab.load("tiny-draft")
    with torch.no_grad():
        lm.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="the target's logits are NaN or infinite"):
        speculative_generate(lm, PromptLookup(), torch.tensor([[5]]), 4)


def test_model_draft_wraps() -> None:
    draft = ModelDraft(language_model("tiny-draft").model)
    lm = language_model("tiny")
    assert draft.vocabulary == 2048
    prompt = prompts_of("tiny", 1)[0]
    assert_same(
        "tiny", prompt, speculative_generate(lm, draft, torch.tensor([prompt]), 9).tokens, 9
    )
