"""anatomy.top_p_repair: a nucleus filter that drops the token which crosses p."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.generation import next_token_probabilities


def cases(seed: int) -> list[Case]:
    """p between the first and second token, p below the first, a hot distribution, two rows."""
    random = torch.Generator().manual_seed(seed)

    def logits(*base: float) -> Tensor:
        noise = (0.2 * torch.rand(len(base), generator=random)).round(decimals=1)
        # Never in sorted order: a mask that was not put back must show.
        order = torch.tensor([1, 2, 0, 3][: len(base)])
        return (torch.tensor(base) + noise)[order][None]

    three = logits(2.0, 1.0, 0.0)
    first, second, _ = three.softmax(dim=-1).sort(descending=True).values[0].tolist()
    return [
        _case(three, first + second / 2, 1.0),
        _case(three, first / 2, 1.0),
        # At temperature 1 the first token alone reaches p, at 3 it takes two of them.
        _case(logits(3.0, 1.0, 0.0), 0.62, 3.0),
        _clear_case(random, 2, 5),
        _clear_case(random, 3, 12),
    ]


def _case(logits: Tensor, p: float, temperature: float) -> Case:
    return Case({"logits": logits, "p": round(p, 3), "temperature": temperature})


def _clear_case(random: torch.Generator, rows: int, vocabulary: int) -> Case:
    """Random logits whose running sums stay clear of p, so that rounding decides nothing."""
    p, temperature = 0.7, 0.8
    while True:
        logits = (2 * torch.randn(rows, vocabulary, generator=random)).round(decimals=2)
        ordered = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True).values
        gaps = ordered[:, :-1] - ordered[:, 1:]
        if (ordered.cumsum(dim=-1) - p).abs().min() > 1e-3 and gaps.min() > 1e-5:
            return _case(logits, p, temperature)


def reference(logits: Tensor, p: float, temperature: float) -> Tensor:
    """The package's sampler distribution: temperature first, then the nucleus."""
    return next_token_probabilities(logits, temperature, top_p=p)


def _sorted(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True)


def _put_back(kept: Tensor, order: Tensor) -> Tensor:
    return torch.zeros_like(kept).scatter(-1, order, kept)


def _shared(kept: Tensor) -> Tensor:
    return kept / kept.sum(dim=-1, keepdim=True)


def _as_given(logits: Tensor, p: float, temperature: float) -> Tensor:
    ordered, order = _sorted(logits, temperature)
    return _shared(_put_back(ordered * (ordered.cumsum(dim=-1) <= p), order))


def _first_rescued(logits: Tensor, p: float, temperature: float) -> Tensor:
    ordered, order = _sorted(logits, temperature)
    keep = ordered.cumsum(dim=-1) <= p
    keep[..., 0] = True
    return _shared(_put_back(ordered * keep, order))


def _kept_in_sorted_order(logits: Tensor, p: float, temperature: float) -> Tensor:
    ordered, _ = _sorted(logits, temperature)
    keep = ordered.cumsum(dim=-1) - ordered < p
    return _shared((logits / temperature).softmax(dim=-1) * keep)


def _one_beyond(logits: Tensor, p: float, temperature: float) -> Tensor:
    ordered, order = _sorted(logits, temperature)
    reached = ordered.cumsum(dim=-1) >= p
    # A token leaves two places after the sum has reached p, where one is right.
    late = torch.nn.functional.pad(reached, (2, 0))[..., : reached.shape[-1]]
    return _shared(_put_back(ordered * ~late, order))


def _temperature_last(logits: Tensor, p: float, temperature: float) -> Tensor:
    ordered, order = _sorted(logits, 1.0)
    keep = _put_back((ordered.cumsum(dim=-1) - ordered < p).float(), order) > 0
    return (logits / temperature).masked_fill(~keep, float("-inf")).softmax(dim=-1)


def _not_shared_out(logits: Tensor, p: float, temperature: float) -> Tensor:
    ordered, order = _sorted(logits, temperature)
    return _put_back(ordered * (ordered.cumsum(dim=-1) - ordered < p), order)


def _token_by_token(logits: Tensor, p: float, temperature: float) -> Tensor:
    rows = []
    for row in (logits / temperature).softmax(dim=-1).tolist():
        kept, mass = [0.0] * len(row), 0.0
        for token in sorted(range(len(row)), key=lambda token: -row[token]):
            if mass >= p:
                break
            kept[token], mass = row[token], mass + row[token]
        rows.append([value / mass for value in kept])
    return torch.tensor(rows)


def _from_below(logits: Tensor, p: float, temperature: float) -> Tensor:
    # transformers sorts upwards: a token goes while the mass up to and with it is at most 1 - p.
    ordered, order = (logits / temperature).softmax(dim=-1).sort(dim=-1)
    keep = ordered.cumsum(dim=-1) > 1 - p
    keep[..., -1] = True
    return _shared(_put_back(ordered * keep, order))


TOP_P_REPAIR = Exercise(
    id="anatomy.top_p_repair",
    title="Repair this: top-p that keeps too little",
    points=3,
    minutes=8,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: a token is dropped as soon as the sum with it passes p, so the "
            "kept mass stays below p, and nothing is left where the first token alone passes it. "
            "Which sum should decide: with the token, or before it?",
            _as_given,
        ),
        Mistake(
            "only the first token rescued",
            "No row is empty any more, and where the first token lies below p the kept mass still "
            "does too: you rescue the first token, not the one that crosses p. Which one is that?",
            _first_rescued,
        ),
        Mistake(
            "sorted order not undone",
            "The right number of tokens is kept, and they are the wrong ones: the mask belongs to "
            "the sorted order and is laid over the original one. What takes each entry back to its "
            "token?",
            _kept_in_sorted_order,
        ),
        Mistake(
            "one token beyond",
            "You keep one token too many: the set is complete with the token that reaches p. Is p "
            "reached already before the last one that you keep?",
            _one_beyond,
        ),
        Mistake(
            "filter before temperature",
            "Right at temperature 1, off elsewhere: the set is chosen from the untempered "
            "probabilities. Which distribution must hold the mass p?",
            _temperature_last,
        ),
        Mistake(
            "not shared out again",
            "The right tokens are kept and their probabilities sum to less than 1: what happens to "
            "the mass of the dropped ones?",
            _not_shared_out,
        ),
    ),
    hints=(
        "The kept tokens hold a mass of at least p before they are scaled up, and without the last "
        "of them they would hold less. Which of the two does the given code break?",
        "Probabilities [0.2, 0.5, 0.3], p 0.7. Sorted [0.5, 0.3, 0.2]; sums with the token "
        "[0.5, 0.8, 1.0]; sums before it [0.0, 0.5, 0.8]. The given code keeps 0.5 alone, "
        "a mass below 0.7. Right is 0.5 and 0.3: [0.0, 0.625, 0.375].",
        "probabilities = softmax(logits / temperature)\n"
        "sort downwards; before = running sum - the token's own probability\n"
        "keep where before < p; the others become 0\n"
        "scatter back to the tokens' places; divide each row by its sum",
    ),
    compare=Close(rtol=1e-4, atol=1e-5),
    alternatives=(_token_by_token, _from_below),
)
