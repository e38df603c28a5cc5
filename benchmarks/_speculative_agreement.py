"""Are greedy answers plain decoding's? Counted for every way, demanded of ours."""

from __future__ import annotations

from typing import Any

from benchmarks._serving_rounds import agreement
from benchmarks._speculative_domains import Domain
from benchmarks._speculative_rounds import Laps
from slmlab.generation import LanguageModel

# Ways whose answers are not ours to promise.
RIVALS = ("transformers", "llama.cpp")


def compare(
    lm: LanguageModel, domain: Domain, laps: dict[str, Laps], counts: dict[str, dict[str, int]]
) -> None:
    """Add one domain to ``counts``: {way: requests, equal, near_ties, differing}.

    An answer differs unless it is plain decoding's, or leaves it where the two largest logits are
    nearly equal. llama.cpp gives text: that text is compared, and where it is another, whether the
    tokens part at a near tie is found from the text's own tokens.
    """
    wanted = [answer.tokens or [] for answer in laps["plain"].answers]
    for name, each in laps.items():
        if name == "plain":
            continue
        found = [
            _tokens(lm, plain, answer.tokens, answer.text)
            for plain, answer in zip(wanted, each.answers, strict=True)
        ]
        row = counts.setdefault(name, {"requests": 0, "equal": 0, "near_ties": 0, "differing": 0})
        for key, value in vars(agreement(lm.model, domain.asked, wanted, found)).items():
            row[key] += value


def _tokens(
    lm: LanguageModel, plain: list[int], tokens: list[int] | None, text: str | None
) -> list[int]:
    """The answer's ids; of a text, ``plain`` as far as the text follows it, and then the rest."""
    if tokens is not None:
        return tokens
    assert text is not None
    if lm.tokenizer.decode(plain) == text:
        return plain
    shared = len(plain)
    while shared and not text.startswith(str(lm.tokenizer.decode(plain[:shared]))):
        shared -= 1
    rest = lm.encode(text[len(str(lm.tokenizer.decode(plain[:shared]))) :])
    return [*plain[:shared], *rest]


def check(counts: dict[str, dict[str, Any]]) -> None:
    """Raise ValueError where one of our own ways says something else than plain decoding."""
    for name, row in counts.items():
        if row["differing"] and not name.startswith(RIVALS):
            raise ValueError(f"{name}: greedy answers are not plain decoding's: {row}")
