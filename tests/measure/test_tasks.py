"""Task scores on models whose score is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from slmlab.data import evaluation_set
from slmlab.generation import LanguageModel
from slmlab.measure import tasks
from slmlab.models import Decoder
from slmlab.models.loading import EMBEDDED
from slmlab.training import load_recipe

TINY = EMBEDDED / "tiny"
pytestmark = pytest.mark.skipif(not TINY.is_dir(), reason="no embedded model in this checkout")


@pytest.fixture(scope="module")
def uniform() -> LanguageModel:
    """Every token equally likely: log2(2048) = 11 bits each."""
    decoder = Decoder(load_recipe("tiny-draft").model_config())
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
    return LanguageModel(decoder.eval(), PreTrainedTokenizerFast.from_pretrained(TINY))


def test_entropy_gap_of_a_uniform_model(uniform: LanguageModel) -> None:
    gap = tasks.entropy_gap(uniform, "stories", limit=8)
    assert gap.bits_per_token == pytest.approx(11.0, abs=1e-4) and gap.n == 8
    samples = evaluation_set("stories", split="training").samples[:8]
    tokens = sum(len(uniform.tokenizer.encode(s.text)) + 1 for s in samples)
    assert gap.tokens == tokens
    assert gap.floor_bits_per_token == pytest.approx(sum(s.bits for s in samples) / tokens)
    assert 0 < gap.floor_bits_per_token < math.log2(2048)


@pytest.mark.parametrize("task", tasks.ANSWERED_TASKS)
def test_exact_match_counts_what_is_exact(
    task: str, uniform: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {s.prompt: s.answer for s in evaluation_set(task).samples}
    wrong = set(list(wanted)[:3])

    def answer(_: LanguageModel, prompt: str) -> str:
        return "?" if prompt in wrong else f" {wanted[prompt].strip()}"

    monkeypatch.setattr(tasks, "_answer", answer)
    result = tasks.exact_match(uniform, task, limit=20)
    assert (result.right, result.n) == (17, 20) and len(result.wrong) == 3
    assert result.accuracy == 0.85
    assert result.standard_error == pytest.approx((0.85 * 0.15 / 20) ** 0.5)


def test_only_the_line_counts_in_sums(
    uniform: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {s.prompt: s.answer for s in evaluation_set("sums").samples}
    monkeypatch.setattr(tasks, "_answer", lambda _, prompt: wanted[prompt].strip() + "\n1+1=2")
    assert tasks.exact_match(uniform, "sums", limit=5).right == 5


def test_a_model_that_says_nothing_is_wrong(uniform: LanguageModel) -> None:
    # All logits are equal, greedy takes id 0, and id 0 ends the text.
    assert tasks.exact_match(uniform, "recall", limit=3).right == 0


class Prepending:
    """A tokenizer that puts a token before every text, and a space before a line break."""

    def __init__(self, inner: PreTrainedTokenizerFast, eos: int | None) -> None:
        self.inner, self.eos_token_id = inner, eos

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = self.inner.encode((" " if text == "\n" else "") + text)
        return [7, *ids] if add_special_tokens else list(ids)

    def decode(self, ids: list[int], **options: bool) -> str:
        return str(self.inner.decode(ids, **options))


def test_a_tokenizer_that_prepends_changes_nothing(
    uniform: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = uniform.tokenizer
    other: Any = SimpleNamespace(
        model=uniform.model, tokenizer=Prepending(tokenizer, tokenizer.eos_token_id)
    )
    assert tasks.entropy_gap(other, limit=3) == tasks.entropy_gap(uniform, limit=3)
    prompts: list[list[int]] = []

    def generated(model: Any, ids: list[int], **_: Any) -> Iterator[int]:
        prompts.append(list(ids))
        yield from tokenizer.encode("yes\nno")

    monkeypatch.setattr(tasks, "generate_tokens", generated)
    assert tasks._answer(other, "a b") == tasks._answer(uniform, "a b") == "yes"
    assert prompts == [tokenizer.encode("a b")] * 2


def test_a_tokenizer_without_an_end_is_refused(uniform: LanguageModel) -> None:
    lm: Any = SimpleNamespace(model=uniform.model, tokenizer=Prepending(uniform.tokenizer, None))
    with pytest.raises(ValueError, match="no eos token"):
        tasks.entropy_gap(lm, limit=1)


def test_bad_arguments(uniform: LanguageModel) -> None:
    with pytest.raises(ValueError, match="task is 'poetry': choose one of"):
        tasks.exact_match(uniform, "poetry")
    with pytest.raises(ValueError, match="limit must be at least 1"):
        tasks.exact_match(uniform, "sums", limit=0)
