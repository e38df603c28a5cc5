"""Token rows of the distillation study: what is learned from, and what nobody learned from.

Documentation and code of the corpus and of the seeded grammar, in the same shares for
training and for judging. Training rows come from the training split, judging rows from the held-out
files and the held-out combinations of the grammar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from slmlab.data import documents, evaluation_set, read_corpus
from slmlab.data.corpus import Origin
from slmlab.distill import teacher_sequences
from slmlab.generation import LanguageModel
from slmlab.training.batches import Rows as TokenRows
from slmlab.training.batches import cut_rows, pack_rows
from slmlab.training.prepare import GRAMMAR_TASKS, GRAMMAR_WEIGHTS

LENGTH = 128  # inputs of a row; it holds one token more
SHARES = {"documentation": 0.375, "code": 0.25, "grammar": 0.375}
# Set of slmlab.data whose held-out files a domain is judged on.
HELD_OUT = {"documentation": "docs", "code": "code"}
CORPUS_SEED = 20261207  # of the choice of documents, and of the grammar


@dataclass(frozen=True)
class Pools:
    """Training rows (N, LENGTH + 1) int64 of every domain of `SHARES`."""

    of: Mapping[str, Tensor]

    def sample(self, rows: int, seed: int, shares: Mapping[str, float] | None = None) -> Tensor:
        """Another choice of rows for every seed: (rows, LENGTH + 1), one domain behind another.

        shares: domain -> its part; of `SHARES` where not given. Raises ValueError for a pool that
        has too few rows.
        """
        chosen = []
        for place, (domain, count) in enumerate(counts(rows, shares or SHARES).items()):
            pool = self.of[domain]
            if count > len(pool):
                raise ValueError(
                    f"{count} rows of {domain} are wanted, there are {len(pool)}: make more, or "
                    "take fewer"
                )
            order = np.random.default_rng([seed, place]).permutation(len(pool))
            chosen.append(pool[torch.from_numpy(order[:count])])
        return torch.cat(chosen)


def counts(rows: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Rows of every domain; what rounding leaves over goes to the first."""
    each = {domain: int(rows * share) for domain, share in shares.items()}
    each[next(iter(each))] += rows - sum(each.values())
    return each


def training_pools(lm: LanguageModel, origins: tuple[Origin, ...], rows: int) -> Pools:
    """Rows to draw from: up to ``rows`` of documentation and of code, ``rows`` of grammar."""
    corpus = read_corpus("training", origins)
    order = np.random.default_rng(CORPUS_SEED)
    pools = {}
    for domain, texts in (
        ("documentation", corpus.texts("docs")),
        ("code", corpus.texts("code")),
    ):
        shuffled = [texts[place] for place in order.permutation(len(texts))]
        pools[domain] = _cut(lm, shuffled, rows)
    samples = documents(CORPUS_SEED, GRAMMAR_TASKS, GRAMMAR_WEIGHTS, name="distillation-study")
    pools["grammar"] = _packed(lm, (sample.text for sample in samples), rows)
    return Pools(pools)


@cache
def held_out_texts(domain: str) -> tuple[str, ...]:
    """Of documentation or code; read once, as reading takes seconds."""
    return evaluation_set(HELD_OUT[domain]).texts


def held_out_rows(lm: LanguageModel, rows: int) -> Tensor:
    """(rows, LENGTH + 1) that no model was trained on, evenly spread over the held-out texts."""
    wanted = counts(rows, SHARES)
    parts = []
    for domain in HELD_OUT:
        found = _cut(lm, held_out_texts(domain), None)
        places = torch.linspace(0, len(found) - 1, wanted[domain]).long()
        parts.append(found[places])
    samples = documents(CORPUS_SEED, GRAMMAR_TASKS, GRAMMAR_WEIGHTS, split="evaluation")
    parts.append(_packed(lm, (sample.text for sample in samples), wanted["grammar"]))
    return torch.cat(parts)


def written_rows(
    lm: LanguageModel, rows: Tensor, prompt_tokens: int, temperature: float, seed: int
) -> Tensor:
    """The same beginnings, continued by the teacher: rows (N, T) -> (N, T)."""
    new = rows.shape[1] - prompt_tokens
    return teacher_sequences(lm.model, rows[:, :prompt_tokens], new, temperature, seed)[0]


def _cut(lm: LanguageModel, texts: Iterable[str], most: int | None) -> Tensor:
    """Rows of whole texts, one behind the other, until there are ``most``."""
    found: list[list[int]] = []
    tokens = 0
    for text in texts:
        found.append(lm.encode(text))
        tokens += len(found[-1])
        if most is not None and tokens > most * LENGTH:
            break
    return _tensor(cut_rows(found, LENGTH, _end(lm)), most)


def _packed(lm: LanguageModel, texts: Iterable[str], rows: int) -> Tensor:
    encoded = (lm.encode(text) for text in texts)
    return _tensor(pack_rows(encoded, LENGTH, _end(lm), rows * LENGTH), rows)


def _end(lm: LanguageModel) -> int:
    return int(lm.model.config.eos_token_ids[0])


def _tensor(rows: TokenRows, most: int | None) -> Tensor:
    return torch.from_numpy(rows[:most].astype(np.int64))
