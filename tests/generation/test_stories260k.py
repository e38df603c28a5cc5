"""A real published checkpoint, where it lies beside the checkout (see CONTRIBUTING)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import slmlab
from slmlab.generation import generate_tokens
from tests.models.layouts import assert_same_logits

CHECKPOINT = Path(
    os.environ.get("SLMLAB_STORIES260K", Path(__file__).parents[3] / "shared" / "stories260K")
)
pytestmark = pytest.mark.skipif(
    not CHECKPOINT.is_dir(), reason="stories260K is not part of the repository and not present"
)
BEGINNING = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
)


def test_logits_equal_transformers() -> None:
    ours = slmlab.load(CHECKPOINT).model
    theirs = AutoModelForCausalLM.from_pretrained(CHECKPOINT).eval()
    ids = torch.randint(0, 512, (2, 200), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert_same_logits(ours(ids), theirs(ids).logits)


def test_greedy_text_token_for_token() -> None:
    lm = slmlab.load(CHECKPOINT)
    theirs = AutoModelForCausalLM.from_pretrained(CHECKPOINT).eval()
    prompt = lm.tokenizer.encode("Once upon a time")
    got = list(generate_tokens(lm.model, prompt, max_new_tokens=200))
    wanted = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=200, min_new_tokens=200, do_sample=False
    )[0, len(prompt) :].tolist()
    assert got == wanted
    assert lm.tokenizer.decode(prompt + got, skip_special_tokens=True).startswith(BEGINNING)
