"""What a student of the distillation study is judged by, on text that it was not trained on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks._distillation_rows import held_out_rows, held_out_texts
from slmlab.data import evaluation_set
from slmlab.generation import LanguageModel, generate_tokens
from slmlab.measure.acceptance import Acceptance
from slmlab.measure.divergence import position_kl_nats
from slmlab.measure.perplexity import token_nll_nats
from slmlab.measure.tasks import exact_match
from slmlab.models import Decoder

BLOCK_ROWS = 16
PROMPT_TOKENS = 32
DOMAINS = ("documentation", "code", "tool_calls")


@dataclass(frozen=True)
class Size:
    """How much judging. rows: of held-out text. tool_calls: commands. prompts: a domain, for the
    acceptance, with answers of at most new_tokens."""

    rows: int
    tool_calls: int
    prompts: int
    new_tokens: int


@dataclass(frozen=True)
class Written:
    """A prompt's ids and what the teacher greedily writes behind it, its end token included."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


class Judge:
    """Asks the teacher once, then every student.

    rows: (N, T) held-out ids. written: domain -> the teacher's greedy answers.
    """

    def __init__(self, teacher: LanguageModel, size: Size) -> None:
        self.teacher, self.size = teacher, size
        self.rows = held_out_rows(teacher, size.rows)
        self._reference = [_logits(teacher.model, block) for block in self._blocks()]
        self.written = {
            domain: write(teacher, prompts_of(teacher, domain, size.prompts), size.new_tokens)
            for domain in DOMAINS
        }

    def _blocks(self) -> Sequence[Tensor]:
        return self.rows.split(BLOCK_ROWS)

    def kl(self, model: Decoder) -> float:
        """Mean KL(teacher || model) over the held-out rows, nats a token."""
        return self.kl_and_perplexity(model)[0]

    def kl_and_perplexity(self, model: Decoder) -> tuple[float, float]:
        """The mean KL as above, and exp of the mean negative log-likelihood of the rows' tokens."""
        kl = nll = 0.0
        for block, reference in zip(self._blocks(), self._reference, strict=True):
            logits = _logits(model, block)
            kl += float(position_kl_nats(logits, reference).sum())
            nll += float(token_nll_nats(logits, block[:, 1:].flatten()).sum())
        positions = self.rows.shape[0] * (self.rows.shape[1] - 1)
        return kl / positions, math.exp(nll / positions)

    def tool_calls(self, model: Decoder) -> float:
        """Share of held-out commands answered with exactly the right call."""
        lm = LanguageModel(model, self.teacher.tokenizer)
        return exact_match(lm, "tool_calls", self.size.tool_calls).accuracy

    def acceptance(self, model: Decoder, domain: str) -> Acceptance:
        """As `slmlab.measure.greedy_acceptance`, of texts that the teacher wrote before."""
        accepted = proposed = 0
        for each in self.written[domain]:
            inputs = torch.tensor([[*each.prompt, *each.answer[:-1]]])
            with torch.no_grad():
                guesses = model(inputs)[0, len(each.prompt) - 1 :].argmax(-1)
            accepted += int((guesses == torch.tensor(each.answer)).sum())
            proposed += len(each.answer)
        return Acceptance(accepted, proposed, len(self.written[domain]))

    def metrics(self, model: Decoder) -> dict[str, float]:
        """kl, perplexity, tool_calls, acceptance (documentation)."""
        kl, perplexity = self.kl_and_perplexity(model)
        return {
            "kl": kl,
            "perplexity": perplexity,
            "tool_calls": self.tool_calls(model),
            "acceptance": self.acceptance(model, "documentation").rate,
        }

    def acceptances(self, model: Decoder) -> dict[str, dict[str, float]]:
        """Domain -> rate and its standard error."""
        found = {domain: self.acceptance(model, domain) for domain in DOMAINS}
        return {
            domain: {"rate": each.rate, "standard_error": each.standard_error}
            for domain, each in found.items()
        }

    def digest(self) -> str:
        """Of all that judges: figures of other texts are no rerun's figures."""
        facts = hashlib.sha256(self.rows.numpy().tobytes())
        facts.update(repr((self.size, sorted(self.written.items()))).encode())
        return facts.hexdigest()


def _logits(model: Decoder, block: Tensor) -> Tensor:
    """(rows, T) -> (rows * (T - 1), V)."""
    with torch.no_grad():
        return model(block[:, :-1]).flatten(0, 1)


def prompts_of(lm: LanguageModel, domain: str, count: int) -> list[list[int]]:
    """Whole held-out commands, or evenly spread pieces of held-out text of `PROMPT_TOKENS`."""
    if domain == "tool_calls":
        return [lm.encode(each.prompt) for each in evaluation_set(domain).samples[:count]]
    ids = lm.encode("\n\n".join(held_out_texts(domain)))
    stride = (len(ids) - PROMPT_TOKENS) // count
    if stride < 1:
        raise ValueError(f"the held-out {domain} has no {count} prompts: ask for fewer")
    return [ids[i * stride : i * stride + PROMPT_TOKENS] for i in range(count)]


def write(lm: LanguageModel, prompts: Sequence[list[int]], new_tokens: int) -> list[Written]:
    """The teacher's greedy answers."""
    ends = lm.model.config.eos_token_ids
    found = []
    for ids in prompts:
        answer = list(generate_tokens(lm.model, ids, max_new_tokens=new_tokens, stop_ids=ends))
        if len(answer) < new_tokens and ends:
            answer.append(ends[0])
        found.append(Written(tuple(ids), tuple(answer)))
    return found
