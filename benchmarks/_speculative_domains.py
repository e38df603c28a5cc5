"""What the speculative race asks for: beginnings of documentation, code and tool calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks._serving_trace import Asked
from slmlab.data import evaluation_set
from slmlab.generation import LanguageModel, generate_tokens
from slmlab.measure.card import held_out_text

PROMPT_TOKENS = 32
TEXT_CHARACTERS = 60_000
# Domain -> the evaluation set: files and commands that neither model was trained on.
SETS = {"documentation": "stdlib-docs", "code": "stdlib-code", "tool calls": "tool_calls"}


@dataclass(frozen=True)
class Domain:
    """One race: prompts, and how their answers are drawn. temperature 0 is greedy."""

    name: str
    text: str
    temperature: float
    asked: tuple[Asked, ...]

    @property
    def new_tokens(self) -> int:
        """Of all answers together."""
        return sum(asked.new_tokens for asked in self.asked)


def domain(
    lm: LanguageModel, text: str, prompts: int, new_tokens: int, temperature: float = 0.0
) -> Domain:
    """``prompts`` beginnings of a text of `SETS`, with answers of at most ``new_tokens``.

    A greedy answer stops where the model ends it, and no engine is asked for its end token: all
    of them then do the same work. Answers below two tokens are passed over. A drawn answer has
    ``new_tokens`` tokens.
    """
    name = text if temperature == 0.0 else f"{text}, temperature {temperature}"
    asked: list[Asked] = []
    for prompt in _prompts(lm, text, prompts):
        length = new_tokens if temperature else _answer_length(lm, prompt, new_tokens)
        if length > 1 and len(asked) < prompts:
            asked.append(Asked(tuple(prompt), length))
    return Domain(name, text, temperature, tuple(asked))


def _answer_length(lm: LanguageModel, prompt: Sequence[int], most: int) -> int:
    ends = lm.model.config.eos_token_ids
    return len(list(generate_tokens(lm.model, list(prompt), max_new_tokens=most, stop_ids=ends)))


def _prompts(lm: LanguageModel, text: str, count: int) -> list[list[int]]:
    """Whole commands, or evenly spread pieces of held-out text; a few to spare."""
    count += 4
    if text == "tool calls":
        samples = evaluation_set(SETS[text]).samples[:count]
        return [lm.encode(sample.prompt) for sample in samples]
    ids = lm.encode(held_out_text(SETS[text], TEXT_CHARACTERS))
    stride = max(1, (len(ids) - PROMPT_TOKENS) // count)
    return [ids[i * stride : i * stride + PROMPT_TOKENS] for i in range(count)]
