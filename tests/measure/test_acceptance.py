"""Greedy acceptance against transformers: its text, its guesses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from slmlab.generation import LanguageModel
from slmlab.measure.acceptance import Acceptance, greedy_acceptance
from slmlab.models import Decoder

PROMPTS = [[5, 9, 14], [33], [60, 2, 2, 41, 7]]


def language_model(model: LlamaForCausalLM, folder: Path) -> LanguageModel:
    model.save_pretrained(folder)
    return LanguageModel(Decoder.from_pretrained(folder), None)  # type: ignore[arg-type]


@pytest.fixture
def pair(llama: LlamaForCausalLM, tmp_path: Path) -> tuple[LanguageModel, LanguageModel]:
    draft = copy.deepcopy(llama)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.03)
    return language_model(draft, tmp_path / "draft"), language_model(llama, tmp_path / "teacher")


def oracle(draft: Any, teacher: Any, new_tokens: int) -> tuple[int, int]:
    """Guesses that agree, one forward pass a token, on transformers' own greedy text."""
    accepted = proposed = 0
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        text = teacher.generate(ids, max_new_tokens=new_tokens, do_sample=False, pad_token_id=0)
        for end in range(len(prompt), text.shape[1]):
            guess = draft(text[:, :end]).logits[0, -1].argmax()
            accepted += int(guess == text[0, end])
            proposed += 1
    return accepted, proposed


def test_equal_to_transformers(
    pair: tuple[LanguageModel, LanguageModel], llama: LlamaForCausalLM, tmp_path: Path
) -> None:
    draft = LlamaForCausalLM.from_pretrained(tmp_path / "draft").eval()
    result = greedy_acceptance(*pair, PROMPTS, new_tokens=20)
    assert (result.accepted, result.proposed) == oracle(draft, llama, 20)
    assert 0 < result.rate < 1 and result.prompts == 3


def test_a_model_accepts_itself(pair: tuple[LanguageModel, LanguageModel]) -> None:
    teacher = pair[1]
    assert greedy_acceptance(teacher, teacher, PROMPTS, new_tokens=12).rate == 1.0


def test_the_end_token_counts_once(
    pair: tuple[LanguageModel, LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = pair[1]
    free = greedy_acceptance(teacher, teacher, PROMPTS[:1], new_tokens=6)
    from slmlab.generation import generate_tokens

    written = list(generate_tokens(teacher.model, PROMPTS[0], max_new_tokens=6))
    ended = copy.copy(teacher.model.config)
    object.__setattr__(ended, "eos_token_ids", (written[-1],))
    monkeypatch.setattr(teacher.model, "config", ended)
    stopped = greedy_acceptance(teacher, teacher, PROMPTS[:1], new_tokens=40)
    assert stopped.proposed == written.index(written[-1]) + 1 <= free.proposed
    assert stopped.rate == 1.0


def test_standard_error_and_no_prompts(pair: tuple[LanguageModel, LanguageModel]) -> None:
    assert Acceptance(50, 100, 1).standard_error == pytest.approx(0.05)
    with pytest.raises(ValueError, match="prompts is empty"):
        greedy_acceptance(*pair, [])
