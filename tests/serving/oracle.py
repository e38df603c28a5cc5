"""What a request must get: transformers' greedy continuation of its prompt alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import slmlab
from slmlab.generation import LanguageModel
from slmlab.models import model_directory

STORIES260K = Path(
    os.environ.get("SLMLAB_STORIES260K", Path(__file__).parents[3] / "shared" / "stories260K")
)
NEAR_TIE = 1e-3
MODELS = ("tiny", "tiny-draft", "stories260K")


@cache
def language_model(name: str) -> LanguageModel:
    return slmlab.load(_place(name))


@cache
def _transformers(name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_directory(_place(name))).eval()


def _place(name: str) -> str | Path:
    if name != "stories260K":
        return name
    if not STORIES260K.is_dir():
        pytest.skip("stories260K is not part of the repository and not present")
    return STORIES260K


@cache
def alone(name: str, prompt: tuple[int, ...], new_tokens: int) -> tuple[tuple[int, ...], tuple]:
    """Greedy tokens of the prompt alone, without an end token, and the top-2 gap at each."""
    model = _transformers(name)
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=new_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    tokens = out.sequences[0, len(prompt) :].tolist()
    gaps = [float(t[0, 0] - t[0, 1]) for t in (logits.topk(2).values for logits in out.logits)]
    ends = language_model(name).model.config.eos_token_ids
    if tokens and tokens[-1] in ends:
        tokens.pop()
    return tuple(tokens), tuple(gaps)


def assert_as_alone(
    name: str, prompts: Sequence[Sequence[int]], found: Sequence[Sequence[int]], new_tokens: int
) -> int:
    """Identical tokens; returns how many requests differ, each from a near tie on."""
    near_ties = 0
    for prompt, tokens in zip(prompts, found, strict=True):
        wanted, gaps = alone(name, tuple(prompt), new_tokens)
        if tuple(tokens) == wanted:
            continue
        pairs = enumerate(zip(tokens, wanted))
        at = next((i for i, (a, b) in pairs if a != b), min(len(tokens), len(wanted)))
        assert gaps[at] < NEAR_TIE, f"{tokens} is not {wanted}: they part at {at}, gap {gaps[at]}"
        near_ties += 1
    return near_ties


def prompts_of(name: str, count: int, seed: int = 0, longest: int = 60) -> list[list[int]]:
    """Pieces of the project's own prose in the model's tokens, of mixed lengths."""
    lm = language_model(name)
    text = (Path(slmlab.__file__).parent / "data" / "prose.md").read_text(encoding="utf-8")
    ids = lm.encode(text[:12000])
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    for _ in range(count):
        start = int(torch.randint(len(ids) - longest, (), generator=generator))
        length = int(torch.randint(1, longest + 1, (), generator=generator))
        pieces.append(ids[start : start + length])
    return pieces
