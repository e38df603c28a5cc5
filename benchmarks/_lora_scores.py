"""What a model for one domain is judged by: in the domain, outside of it, and its speed."""

from __future__ import annotations

import math
from typing import Any

import torch

from benchmarks._lora_text import held_out
from slmlab.data import evaluation_set
from slmlab.generation import LanguageModel, generate_tokens
from slmlab.measure import bits_per_byte, interleaved, score
from slmlab.measure.tasks import exact_match
from slmlab.models import Decoder

LONGEST_ANSWER_TOKENS = 64


class Exam:
    """The same texts for every model."""

    def __init__(self, tokenizer: Any, commands: int, answered: int, prose_bytes: int) -> None:
        """commands: held-out ones that are scored; answered: how many of them, and of tiny's own
        tool calls, are answered. prose_bytes: the beginning of the project's prose."""
        self.commands, self._answered = held_out(commands), answered
        end = tokenizer.eos_token_id
        self.ids = [
            torch.tensor([end, *tokenizer.encode(c.text, add_special_tokens=False), end])
            for c in self.commands
        ]
        prose = evaluation_set("prose").texts[0].encode()[:prose_bytes]
        self._prose = prose.decode(errors="ignore")

    def sizes(self) -> dict[str, int]:
        return {
            "held_out_commands": len(self.commands),
            "held_out_bytes": sum(len(c.text.encode()) for c in self.commands),
            "answered_commands": self._answered,
            "prose_bytes": len(self._prose.encode()),
        }

    def of(self, lm: LanguageModel) -> dict[str, float]:
        """Bits a byte and share of right calls, in the domain and outside."""
        right = sum(
            lm.generate(c.prompt, max_new_tokens=LONGEST_ANSWER_TOKENS).strip() == c.answer
            for c in self.commands[: self._answered]
        )
        own = exact_match(lm, "tool_calls", limit=self._answered)
        return {
            "domain_bits_per_byte": round(self._domain_bits_per_byte(lm), 4),
            "domain_accuracy": round(right / self._answered, 4),
            "outside_bits_per_byte": round(bits_per_byte(lm.model, lm.tokenizer, self._prose), 4),
            "outside_accuracy": round(own.accuracy, 4),
        }

    def _domain_bits_per_byte(self, lm: LanguageModel) -> float:
        """Each command alone behind an end of text, its own end scored too."""
        nats = sum(score(lm.model, ids).nll_nats for ids in self.ids)
        return nats / math.log(2) / self.sizes()["held_out_bytes"]


def decode_ratio(model: Decoder, reference: Decoder, new_tokens: int, repeats: int = 5) -> float:
    """Tokens a second over the reference's, greedy, side by side; 1.0 is as fast."""
    prompt = list(range(4, 20))

    def decode(which: Decoder) -> object:
        return list(generate_tokens(which, prompt, max_new_tokens=new_tokens))

    timed = interleaved(lambda: decode(reference), lambda: decode(model), repeats=repeats)
    # The fastest of each, in processor time: what else runs on the core touches it least.
    return min(timed.a.process) / min(timed.b.process)
